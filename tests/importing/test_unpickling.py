"""No pickle runs: what could do harm is refused, by name, before torch sees it."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptstore.errors import ImportRefusedError, UntrustedPickleError
from ckptstore.importing.plain import to_plain
from ckptstore.importing.unpickling import is_torchs, load_restricted, load_trusted
from tests.importing.files import Net, evil, full, legacy, same, torch_zip, trained


def load(path):
    return to_plain(load_restricted(path, "it"), "it").value


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_dict_comes_back_bit_for_bit(tmp_path, zipped):
    saved = full()
    torch.save(saved, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    assert same(load(tmp_path / "x"), saved)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_plain_values_of_every_allowed_kind_come_back(tmp_path, zipped):
    saved = {
        "namespace": Namespace(lr=0.1, layers=[8]),
        "path": Path("/runs/1"),
        "list": defaultdict(list, a=[1]),
        "none": defaultdict(None, a=1),
        "counted": Counter("abc"),
        "ordered": OrderedDict(a=1),
        "set": {1, 2},
        "frozen": frozenset({3}),
        "bytes": b"\0\1",
        "array": np.arange(6, dtype="f4").reshape(2, 3),
        "text": np.array(["a", "bc"]),
        "scalar": np.float64(0.1),
        "dtype": np.dtype("f2"),
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "complex": 1 + 2j,
    }
    torch.save(saved, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    found = load(tmp_path / "x")
    assert found["namespace"] == {"lr": 0.1, "layers": [8]}
    assert found["path"] == "/runs/1"
    assert found["array"].tolist() == saved["array"].tolist()
    assert found["text"].tolist() == ["a", "bc"]
    for name in saved.keys() - {"namespace", "path", "array", "text"}:
        assert found[name] == saved[name]
        assert type(found[name]) is type(saved[name])
    assert found["list"].default_factory is list


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", list(evil(Path("x"))))
@pytest.mark.parametrize("wrap", [torch_zip, legacy, bytes], ids=["zip", "legacy", "bare"])
def test_what_would_run_something_is_refused_and_nothing_runs(tmp_path, name, wrap, protocol):
    canary = tmp_path / "canary"
    data = pickle.dumps(evil(canary)[name], protocol)
    (tmp_path / "x.pth").write_bytes(wrap(data))
    with pytest.raises(UntrustedPickleError) as caught:
        load_restricted(tmp_path / "x.pth", "x.pth")
    assert not canary.exists()
    assert caught.value.names
    assert all(each in str(caught.value) for each in caught.value.names)
    assert "trust_pickle=True" in str(caught.value)


def test_every_name_is_listed(tmp_path):
    torch.save({"a": trained()[0], "b": Counter(), "c": slice(1)}, tmp_path / "x")
    with pytest.raises(UntrustedPickleError) as caught:
        load_restricted(tmp_path / "x", "x")
    assert caught.value.names == (
        "builtins.slice",
        "tests.importing.files.Net",
        "torch.nn.modules.batchnorm.BatchNorm1d",
        "torch.nn.modules.linear.Linear",
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path, protocol):
    torch.save({"w": torch.ones(2), "s": {1}}, tmp_path / "x", pickle_protocol=protocol)
    assert same(load(tmp_path / "x"), {"w": torch.ones(2), "s": {1}})


def test_a_tar_of_ancient_torch_needs_trust(tmp_path):
    head = b"pickle" + b"\0" * 251 + b"ustar\0" + b"\0" * 250
    (tmp_path / "x").write_bytes(head)
    assert is_torchs(head)
    with pytest.raises(UntrustedPickleError, match="tar archive"):
        load_restricted(tmp_path / "x", "x")


def test_tensors_of_a_zip_are_mapped_and_the_file_is_left_as_it_is(tmp_path):
    torch.save({"w": torch.ones(1000)}, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    load_restricted(tmp_path / "x", "x")["w"].zero_()
    assert (tmp_path / "x").read_bytes() == before


def test_a_suffix_says_nothing(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "x.safetensors")
    assert load_restricted(tmp_path / "x.safetensors", "x")["w"].tolist() == [1, 1, 1]


def test_torchs_own_list_is_left_as_it_was(tmp_path):
    before = torch.serialization.get_safe_globals()
    torch.save({"w": Namespace()}, tmp_path / "x")
    load_restricted(tmp_path / "x", "x")
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_damage_anywhere_is_refused_or_read_as_values(tmp_path, zipped):
    torch.save(full(), tmp_path / "x", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "x").read_bytes()
    draws = torch.Generator().manual_seed(5)
    refused = 0
    for _ in range(120):
        damaged = bytearray(whole)
        place = int(torch.randint(len(whole), (1,), generator=draws))
        damaged[place] ^= 1 << int(torch.randint(8, (1,), generator=draws))
        cut = damaged[: place + 1] if place % 3 == 0 else damaged
        (tmp_path / "y").write_bytes(cut)
        try:
            load(tmp_path / "y")
        except ImportRefusedError:
            refused += 1
    assert refused > 20


def test_names_of_a_legacy_file_are_those_of_all_its_pickles(tmp_path):
    data = legacy(pickle.dumps(OrderedDict(), 2)).removesuffix(pickle.dumps([], 2))
    (tmp_path / "x").write_bytes(data + b"\x80\x02cposix\nsystem\n.")
    with pytest.raises(UntrustedPickleError) as caught:
        load_restricted(tmp_path / "x", "x")
    assert caught.value.names == ("posix.system",)


def test_trusted_loading_stands_in_for_classes_that_are_gone(tmp_path):
    model = trained()[0]
    torch.save({"model": model, "fact": Net}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes().replace(b"tests.importing.files", b"tests.importing.gone_")
    (tmp_path / "x").write_bytes(data)
    # The archive's checksum is nothing that torch looks at.
    found = load_trusted(tmp_path / "x")
    assert isinstance(found["model"], torch.nn.Module)
    assert type(found["model"]).__name__ == "Net"
    assert same(dict(found["model"].state_dict()), dict(model.state_dict()))
