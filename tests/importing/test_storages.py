from __future__ import annotations

import io

import pytest
import torch

from ckptstore.importing.archive import Span
from ckptstore.importing.inert import PERSISTENT, Made, Name
from ckptstore.importing.storages import LegacyStorages, ZipStorages, asked_for, dtype_named

FLOATS = Name("torch", "FloatStorage")


def asked(kind=FLOATS, key="0", values=2, *view):
    return asked_for(Made(PERSISTENT, (("storage", kind, key, "cuda:0", values, *view),)))


@pytest.mark.parametrize(
    "how",
    [(Name("os", "system"),), (FLOATS, b"0"), (FLOATS, "0", -1), (FLOATS, "0", True),
     (FLOATS, "0", 2, ("v", 1, 2)), (FLOATS, "0", 2, ("v", -1, 1))],
)  # fmt: skip
def test_what_is_no_storage_is_not_asked_for(how):
    with pytest.raises(ValueError, match="storage"):
        asked(*how)


@pytest.mark.parametrize("swapped", [False, True])
def test_an_entry_is_no_longer_than_it_is(swapped):
    data = torch.tensor([1.0, 2.0]).numpy()
    data = (data.byteswap() if swapped else data).tobytes()
    stored = ZipStorages(io.BytesIO(b"#" + data), None, {"0": Span(1, 8, 0)}, swapped=swapped)
    assert torch.empty(0).set_(stored.get(asked())).tolist() == [1, 2]
    for values, key in ((3, "0"), (1, "1")):
        with pytest.raises(ValueError, match="storage"):
            stored.get(asked(FLOATS, key, values))


def test_storages_of_old_files_lie_one_behind_the_other():
    one = (2).to_bytes(8, "little") + torch.tensor([1.0, 2.0]).numpy().tobytes()
    stored = LegacyStorages(io.BytesIO(one + one), ["0", "1"], [asked(), asked(FLOATS, "1")])
    assert torch.empty(0).set_(stored.get(asked(FLOATS, "1", 2, ("v", 1, 1)))).tolist() == [2]
    for keys, data in ((["0", "0"], one + one), (["9"], one), (["0"], one[:-1])):
        with pytest.raises(ValueError, match="storage"):
            LegacyStorages(io.BytesIO(data), keys, [asked()])


def test_dtypes_are_torchs():
    assert dtype_named(Name("torch", "float16")) is torch.float16
    with pytest.raises(ValueError, match="dtype"):
        dtype_named(Name("torch", "load"))
