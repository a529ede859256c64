from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.safetensors_file import is_safetensors, read_safetensors
from tests.importing.files import same, trained


def written(folder, header, data=b"", length=None):
    line = header if isinstance(header, bytes) else json.dumps(header).encode()
    count = len(line) if length is None else length
    (folder / "x").write_bytes(count.to_bytes(8, "little") + line + data)
    return folder / "x"


def test_tensors_and_metadata_come_back(tmp_path):
    state = {**trained()[0].state_dict(), "half": torch.ones(3, dtype=torch.bfloat16)}
    save_file(state, tmp_path / "x", metadata={"made by": "me"})
    assert is_safetensors((tmp_path / "x").read_bytes()[:512])
    found, metadata = read_safetensors(tmp_path / "x", "it")
    assert metadata == {"made by": "me"}
    assert same({key: found[key] for key in state}, state)


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"w": W}, 2**63),
        ({"w": W}, 10**6),
        ({"w": W | {"data_offsets": [0, 800]}}, None),
        ({"w": W | {"data_offsets": [8, 0]}}, None),
        ({"w": W | {"data_offsets": [-8, 0]}}, None),
        ({"w": W | {"data_offsets": [True, False]}}, None),
        ({"w": W | {"data_offsets": "all"}}, None),
        ({"w": W | {"shape": [2**62, 2**62]}}, None),
        ({"w": W | {"shape": [3]}}, None),
        ({"w": W | {"dtype": "F3"}}, None),
        ({"w": [1]}, None),
        ({"w": W, "v": W}, None),
        (b'{"w":1,"w":1}', None),
        (b"{" * 10_000, None),
        (b"[1]", None),
        (b"{}{}", None),
    ],
)
def test_a_header_that_says_what_can_not_be_is_refused(tmp_path, header, length):
    path = written(tmp_path, header, b"\0" * 8, length)
    with pytest.raises(ImportRefusedError):
        read_safetensors(path, "it")


@pytest.mark.parametrize("ends", [[0, 800], [8, 0], [-8, 0]])
def test_a_tensor_outside_the_data_is_named(tmp_path, ends):
    path = written(tmp_path, {"w": W | {"data_offsets": ends}}, b"\0" * 8)
    with pytest.raises(ImportRefusedError, match="'w' does not lie within the 8 bytes"):
        read_safetensors(path, "it")


def test_a_file_that_was_cut_is_refused(tmp_path):
    save_file({"w": torch.ones(100)}, tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    for length in (9, 20, 100, len(whole) - 1):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(ImportRefusedError):
            read_safetensors(tmp_path / "x", "it")
