from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from ckptstore.errors import ArgumentError, ImportRefusedError, UntrustedPickleError
from ckptstore.importing.file_names import Named
from ckptstore.importing.reading import kind_of, kind_of_file, read_foreign
from tests.importing.files import same, trained


def read(path, **how):
    return read_foreign(path, "it", named=Named(), trust_pickle=False, **how)


def test_content_says_what_a_file_is_and_not_its_name(tmp_path):
    state = dict(trained()[0].state_dict())
    save_file(state, tmp_path / "x.pth", metadata={"a": "b"})
    torch.save(state, tmp_path / "y.safetensors")
    found = read(tmp_path / "x.pth")
    assert (found.format, found.extra) == ("safetensors", {"metadata": {"a": "b"}})
    other = read(tmp_path / "y.safetensors")
    assert other.format == "torch"
    assert same(dict(other.parts["model"].state), state)


def test_a_length_that_begins_as_a_pickle_does_makes_none(tmp_path):
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x80)
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\7")
    assert read(tmp_path / "x").parts["model"].state["w"].tolist() == [7]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 20, "HDF5"),
        (b"GGUF" + b"\0" * 20, "GGUF"),
        (b"\x93NUMPY", "NumPy"),
        (b"\x1f\x8b\x08", "unpack it first"),
        (b"epoch,loss\n1,2\n", "it begins with"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, data, why):
    (tmp_path / "x").write_bytes(data)
    assert kind_of(tmp_path / "x") is kind_of_file(data) is None
    with pytest.raises(ImportRefusedError, match=why):
        read(tmp_path / "x")


def test_other_folders_too(tmp_path):
    with pytest.raises(ImportRefusedError, match="a folder without weights"):
        read(tmp_path)


def test_a_pickle_of_somebody_else_is_none_of_torchs(tmp_path):
    (tmp_path / "x").write_bytes(pickle.dumps({"w": [1.0]}))
    with pytest.raises(UntrustedPickleError, match=r"torch\.save did not write"):
        read(tmp_path / "x")


def test_keys_are_for_dicts_of_several_things(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "x")
    with pytest.raises(ArgumentError, match="keys= is for"):
        read(tmp_path / "x", keys={"w": "model"})


def test_whatever_goes_wrong_is_told_of_the_file(tmp_path, monkeypatch):
    def breaks(*_):
        raise NotImplementedError("no number of these bits")

    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "x.pt")
    monkeypatch.setattr("ckptstore.importing.reading.recognise", breaks)
    with pytest.raises(ImportRefusedError, match=r"it can't be read .* no number of these bits"):
        read(tmp_path / "x.pt")
