"""With folders that torch.distributed.checkpoint wrote, and such as it never would."""

from __future__ import annotations

import io
import pickle
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.distributed.checkpoint as saver
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from ckptstore.errors import ImportRefusedError, UntrustedPickleError
from ckptstore.importing.dcp import INDEX, is_dcps, read_dcp
from ckptstore.importing.unpickling import load_restricted
from tests.importing.files import evil, same, trained


def save(state, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about there being no process group
        saver.save(state, checkpoint_id=folder, no_dist=True)


def read(folder):
    return read_dcp(folder, "it", load_restricted)


def pieces(folder, size=(4, 3), boxes=None, **change):
    """A folder with one tensor in several pieces, as several ranks write it; and the tensor."""
    whole = torch.arange(12.0).reshape(4, 3)
    boxes = boxes or [((0, 0), (2, 3)), ((2, 0), (2, 1)), ((2, 1), (2, 2))]
    chunks, places = [], {}
    folder.mkdir()
    for rank, (offsets, sizes) in enumerate(boxes):
        part = whole[offsets[0] : offsets[0] + sizes[0], offsets[1] : offsets[1] + sizes[1]]
        file = io.BytesIO()
        torch.save(part.clone(), file)
        (folder / f"__{rank}_0.distcp").write_bytes(file.getvalue())
        chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        info = {"relative_path": f"__{rank}_0.distcp", "offset": 0, "length": len(file.getvalue())}
        places[MetadataIndex("w", offsets)] = _StorageInfo(**(info | change))
    tensor = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size(size), chunks)
    (folder / INDEX).write_bytes(pickle.dumps(Metadata({"w": tensor}, None, places)))
    return whole


def test_what_was_saved_comes_back(tmp_path):
    model = trained()[0]
    state = {
        "model": model.state_dict(),
        "epoch": 3,
        "list": [1, torch.ones(2)],
        "half": torch.ones(2, 2, dtype=torch.bfloat16),
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(5),
    }
    save(state, tmp_path / "x")
    assert is_dcps(tmp_path / "x")
    found = read(tmp_path / "x")
    assert same(found.pop("model"), dict(model.state_dict()))
    state.pop("model")
    assert same(found, state)


def test_pieces_of_several_ranks_are_put_together(tmp_path):
    whole = pieces(tmp_path / "x")
    assert same(read(tmp_path / "x")["w"], whole)


@pytest.mark.parametrize(
    "how",
    [
        {"relative_path": "../x/__0_0.distcp", "boxes": [((0, 0), (4, 3))]},
        {"relative_path": "/etc/passwd"},
        {"relative_path": "gone"},
        {"relative_path": 5},
        {"offset": -1},
        {"length": 10**9},
        {"length": 5},
        {"length": True},
        {"transform_descriptors": ["zstd"]},
        {"size": (2**40, 2**20)},
        {"size": (4, 4)},
        {"size": (4, 3, 1)},
        {"boxes": [((0, 0), (2, 3))]},
        {"boxes": [((0, 0), (4, 3)), ((0, 0), (2, 3))]},
        {"boxes": [((0, 0), (2, 3)), ((1, 0), (2, 3))]},
        {"boxes": [((0, 0), (2, 3)), ((3, 0), (2, 3))]},
    ],
)
def test_an_index_that_says_what_can_not_be_is_refused(tmp_path, how):
    pieces(tmp_path / "x", **how)
    with pytest.raises(ImportRefusedError):
        read(tmp_path / "x")


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "nested"])
def test_an_index_that_would_run_something_runs_nothing(tmp_path, name):
    canary = tmp_path / "canary"
    pieces(tmp_path / "x")
    (tmp_path / "x" / INDEX).write_bytes(pickle.dumps(evil(canary)[name]))
    with pytest.raises(ImportRefusedError, match="not what torch writes"):
        read(tmp_path / "x")
    index = Metadata({"w": evil(canary)[name]}, None, {})
    (tmp_path / "x" / INDEX).write_bytes(pickle.dumps(index))
    with pytest.raises(ImportRefusedError):
        read(tmp_path / "x")
    assert not canary.exists()


def test_a_value_that_would_run_something_is_refused_by_name(tmp_path):
    save({"model": trained()[0].state_dict(), "value": OrderedDict(a=slice(1))}, tmp_path / "x")
    with pytest.raises(UntrustedPickleError) as caught:
        read(tmp_path / "x")
    assert caught.value.names == ("builtins.slice",)


@pytest.mark.parametrize("data", [b"", b"N.", pickle.dumps({"state_dict_metadata": {}})])
def test_an_index_of_something_else_is_refused(tmp_path, data):
    (tmp_path / INDEX).write_bytes(data)
    with pytest.raises(ImportRefusedError):
        read(tmp_path)


def test_one_piece_that_is_named_again_and_again_is_refused(tmp_path):
    pieces(tmp_path / "x", boxes=[((0, 0), (4, 3))])
    index = pickle.loads((tmp_path / "x" / INDEX).read_bytes())  # noqa: S301 - written right here
    (place,) = index.storage_data.values()
    for number in range(3):
        index.state_dict_metadata[f"w{number}"] = index.state_dict_metadata["w"]
        index.storage_data[MetadataIndex(f"w{number}", (0, 0))] = place
    (tmp_path / "x" / INDEX).write_bytes(pickle.dumps(index))
    with pytest.raises(ImportRefusedError, match="two pieces lie at one place"):
        read(tmp_path / "x")


def nested(levels):
    found = ()
    for _ in range(levels):
        found = (found,)
    return found


@pytest.mark.parametrize("path", [(), ("a",) * 100, "w", (nested(50),)])
def test_a_path_that_leads_nowhere_is_refused(tmp_path, path):
    pieces(tmp_path / "x")
    index = pickle.loads((tmp_path / "x" / INDEX).read_bytes())  # noqa: S301 - written right here
    index.planner_data = {"w": path}
    (tmp_path / "x" / INDEX).write_bytes(pickle.dumps(index))
    with pytest.raises(ImportRefusedError, match="'w' lies nowhere"):
        read(tmp_path / "x")
