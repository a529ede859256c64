from __future__ import annotations

import os
import warnings

import pytest
import torch
from safetensors.torch import save_file

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    ImportingWarning,
    ImportRefusedError,
    IntegrityError,
    NotFoundError,
    StorageError,
    UnsupportedValueError,
    UntrustedPickleError,
)
from ckptstore.importing import bring
from tests.importing.files import Net, Runs, full


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
    assert found.left == ("code/", "log.csv")
    assert found.new == ("r@1", "r@2", "r@3", "r@4")
    assert found.summary() == (
        f"{old}: 4 imported, 0 there already, {found.tensors} tensors, digests equal, "
        "2 no checkpoint (code/, log.csv)"
    )
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
    with pytest.raises(ImportRefusedError, match="2 of 6 could not be imported") as caught:
        store.import_folder(old)
    assert "whole.pt can't be read without running what it says" in str(caught.value)
    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(":")[0].strip() for line in lines] == [
        "model_2.pth", "best.pt", "model_9.pth", "model_10.pth", "broken.pt", "whole.pt",
    ]  # fmt: skip
    assert [line.partition(": ")[2] for line in lines[:4]] == ["r@1", "r@2", "r@3", "r@4"]
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


@pytest.mark.parametrize(
    "error",
    [
        StorageError("gone"), IntegrityError("damaged"), ArgumentError("no"), NotFoundError("no"),
        UnsupportedValueError("x", "y"), OSError(5, "I/O"), UntrustedPickleError("x", ["y"]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_reading_one_raises_the_others_come(store, old, monkeypatch, error):
    real = bring.read_foreign

    def read(path, where, **how):
        if path.name == "model_9.pth":
            raise error
        return real(path, where, **how)

    monkeypatch.setattr(bring, "read_foreign", read)
    with pytest.raises(ImportRefusedError, match=r"1 of 4 could not be imported, (.|\n)*_9.pth: "):
        store.import_folder(old)
    assert [each.epoch for each in store.history("r")] == [2, 5, 10]


def test_what_the_own_store_raises_ends_it(store, old, monkeypatch):
    def save(*_):
        raise StorageError("no such disk")

    monkeypatch.setattr(bring, "save", save)
    with pytest.raises(StorageError, match="no such disk"):
        store.import_folder(old)


def test_what_is_no_plain_file_is_left(store, old):
    (old / "gone.pt").symlink_to("nowhere")
    os.mkfifo(old / "pipe.pt")
    assert store.import_folder(old).left == ("code/", "gone.pt", "log.csv", "pipe.pt")


def test_folders_that_are_not_entered_are_named(store, tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(ImportRefusedError, match=r"not entered \(old/\): import each by itself"):
        store.import_folder(tmp_path, pattern="old")


def test_a_file_is_run_once_and_not_at_all_when_it_is_there(store, tmp_path):
    folder, runs = tmp_path / "whole", tmp_path / "runs"
    folder.mkdir()
    code = f"open({str(runs)!r}, 'a').write('x')"
    torch.save({"model": Net().state_dict(), "epoch": 1, "r": Runs(exec, code)}, folder / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportingWarning)
        assert store.import_folder(folder, trust_pickle=True).new == ("r@1",)
        assert runs.read_text() == "x"
        assert store.import_folder(folder, trust_pickle=True).new == ()
    assert runs.read_text() == "x"


def test_what_a_name_alone_says_is_said(store, tmp_path):
    folder = tmp_path / "named"
    folder.mkdir()
    torch.save(full(), folder / "epoch=3-acc=0.5.pt")
    torch.save({"w": torch.ones(1)}, folder / "epoch_4_loss0.5.pt")
    found = store.import_folder(folder)
    assert "epoch=3-acc=0.5.pt: acc 0.5, as its name alone says" in found.notes()
    assert "epoch_4_loss0.5.pt: epoch 4, loss 0.5, as its name alone says" in found.notes()
