from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ckptstore import Store
from ckptstore.errors import ImportingWarning, ImportRefusedError
from tests.importing.files import Net, full


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", run="r") as opened:
        yield opened


@pytest.fixture
def old(tmp_path):
    """A folder as trainings leave it."""
    folder = tmp_path / "old"
    folder.mkdir()
    for epoch in (10, 9, 2):
        torch.save(full(epoch=epoch, n=epoch), folder / f"model_{epoch}.pth")
    torch.save(full(epoch=5, val_loss=0.01), folder / "best.pt")
    (folder / "log.csv").write_text("epoch,loss\n")
    (folder / "code").mkdir()
    return folder


def test_checkpoints_come_in_the_order_of_their_epochs(store, old):
    told = []
    found = store.import_folder(old, progress=lambda *what: told.append(what))
    assert [each.epoch for each in found] == [2, 5, 9, 10]
    assert [each.version for each in found] == [1, 2, 3, 4]
    assert found.left == ("code", "log.csv")
    assert found.new == ("r@1", "r@2", "r@3", "r@4")
    assert found.summary() == f"{old}: 4 imported, 0 there already, 2 no checkpoint (code, log.csv)"
    assert told[0] == (0, 4, "model_2.pth")
    assert told[-1] == (4, 4, "")
    assert store.best(run="r").epoch == 5


def test_a_second_import_brings_what_is_new_alone(store, old):
    store.import_folder(old)
    torch.save(full(epoch=11), old / "model_11.pth")
    with pytest.warns(ImportingWarning, match="4 of 5 were imported before, the first as r@1"):
        found = store.import_folder(old)
    assert found.new == ("r@5",)
    assert [each.epoch for each in found] == [2, 5, 9, 10, 11]
    assert len(store.history("r")) == 5


def test_a_pattern_chooses(store, old):
    assert [each.epoch for each in store.import_folder(old, pattern="model_?.pth")] == [2, 9]
    with pytest.raises(ImportRefusedError, match=r"no checkpoint whose name matches '\*\.ckpt'"):
        store.import_folder(old, pattern="*.ckpt")


def test_one_that_is_refused_keeps_no_other_from_coming(store, old):
    torch.save(Net(), old / "whole.pt")
    (old / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ImportRefusedError, match="2 could not be imported") as caught:
        store.import_folder(old)
    assert "whole.pt can't be read without running what it says" in str(caught.value)
    assert "The others are there: r@1, r@2, r@3, r@4" in str(caught.value)
    assert len(store.history("r")) == 4


def test_folders_of_checkpoints_come_too(tmp_path, store):
    for step in (500, 1000, 90):
        folder = tmp_path / "runs" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file({"w": torch.full((2,), float(step))}, folder / "model.safetensors")
    found = store.import_folder(tmp_path / "runs")
    assert [each.step for each in found] == [90, 500, 1000]
    assert found[0].imported_from.format == "huggingface"


def test_a_place_that_is_itself_a_checkpoint_is_that_one(tmp_path, store, old):
    assert [each.ref for each in store.import_folder(old / "best.pt")] == ["r@1"]
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "x").mkdir()
    (tmp_path / "model.safetensors").rename(tmp_path / "x" / "model.safetensors")
    assert [each.ref for each in store.import_folder(tmp_path / "x")] == ["r@2"]


def test_a_folder_elsewhere_is_fetched_one_by_one(store, old, memory_url):
    import fsspec

    for file in old.glob("*.p*"):
        with fsspec.open(f"{memory_url}/old/{file.name}", "wb") as target:
            target.write(file.read_bytes())
    found = store.import_folder(f"{memory_url}/old")
    assert [each.epoch for each in found] == [2, 5, 9, 10]
    assert store.import_file(f"{memory_url}/old/best.pt", again=True).epoch == 5


def test_an_empty_folder_holds_none(tmp_path, store):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportRefusedError, match="holds no checkpoint"):
        store.import_folder(tmp_path / "empty")
