from __future__ import annotations

import json

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import ImportingWarning
from ckptstore.history import History
from tests.importing.files import full


@pytest.fixture
def found(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    state = {f"module.{key}": value for key, value in full()["model_state_dict"].items()}
    torch.save({"model": state}, folder / "epoch=1-val_loss=0.5.pt")
    torch.save(full(epoch=2, val_loss=0.25), folder / "b.pt")
    with Store(tmp_path / "store", run="r") as store:
        with pytest.warns(ImportingWarning, match="module"):
            store.import_file(folder / "epoch=1-val_loss=0.5.pt")
        with pytest.warns(ImportingWarning, match="before"):
            imported = store.import_folder(folder)
        yield imported


def test_it_is_a_history_that_says_what_was_done(found):
    assert isinstance(found, History)
    text = repr(found)
    assert text.splitlines()[0].split()[:4] == ["ref", "epoch", "val_loss", "train_loss"]
    assert found.new == ("r@2",)
    assert found.summary().endswith("1 imported, 1 there already, 27 tensors, digests equal")


def test_notes_stand_below_the_table(tmp_path):
    state = {f"module.{key}": value for key, value in full()["model_state_dict"].items()}
    torch.save({"model": state}, tmp_path / "a.pt")
    with Store(tmp_path / "store") as store, pytest.warns(ImportingWarning, match="module"):
        found = store.import_folder(tmp_path / "a.pt")
    assert repr(found).splitlines()[-1] == found.notes()[0]
    assert found.notes()[0].startswith("a.pt: every key of model began with 'module.'")


def test_as_plain_data(found):
    value = json.loads(json.dumps(found.to_json()))
    assert value["format"] == 1
    first, second = value["versions"]
    assert (first["file"], first["new"]) == ("epoch=1-val_loss=0.5.pt", False)
    assert (second["ref"], second["epoch"], second["format"]) == ("r@2", 2, "torch")
    assert second["parts"] == ["model", "optimizer", "scheduler"]
