"""What is in the storage is right, whatever this process or its catalog remembers."""

from __future__ import annotations

import shutil

import pytest
from torch import nn

from ckptstore import Store
from ckptstore.errors import CatalogWarning, IntegrityError, NotAStoreError, RunWarning
from ckptstore.format.layout import STORE_KEY, version_key

CONFIG = {"in_features": 2, "out_features": 2}


def save(store, epoch, run="digits", **options):
    return store.save(
        nn.Linear(2, 2), run=run, epoch=epoch, val_loss=1 / epoch, model_config=CONFIG, **options
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    with Store(folder) as opened:
        yield opened


def epochs(place, run="digits"):
    with Store(place, catalog="sqlite://") as store:
        return [entry.epoch for entry in store.history(run)]


def test_a_store_deleted_under_a_training_is_begun_again(store, folder):
    save(store, 1)
    save(store, 2)
    shutil.rmtree(folder)

    with pytest.warns(RunWarning, match=r"gone or was replaced"):
        saved = save(store, 3)

    assert (saved.version, saved.parent) == (1, None)
    assert epochs(folder) == [3]
    assert store.latest(run="digits") == saved
    assert save(store, 4).version == 2
    assert epochs(folder) == [3, 4]


def test_a_run_deleted_under_a_training_is_begun_again(store, folder):
    save(store, 1, run="other")
    save(store, 1)
    save(store, 2)
    shutil.rmtree(folder / "runs" / "digits")

    with (
        pytest.warns(RunWarning, match=r"gone or was replaced"),
        pytest.warns(CatalogWarning, match="indexed anew"),
    ):
        saved = save(store, 3)

    assert [entry.epoch for entry in store.history("digits")] == epochs(folder) == [3]
    assert store.best(run="digits") == saved
    assert epochs(folder, "other") == [1]


def test_a_store_put_in_anothers_place_is_gone_on_with(store, folder):
    for epoch in (1, 2):
        save(store, epoch)
    shutil.rmtree(folder)
    with Store(folder) as other:
        for epoch in (11, 12, 13):
            save(other, epoch)

    with pytest.warns(RunWarning, match=r"gone or was replaced"):
        saved = save(store, 3)

    assert saved.version == 4
    assert epochs(folder) == [11, 12, 13, 3]
    assert [entry.epoch for entry in store.history("digits")] == [11, 12, 13, 3]


def test_another_writers_versions_are_nothing_to_warn_of(store, folder):
    save(store, 1)
    with Store(folder) as other, pytest.warns(RunWarning, match="neither resumed nor created"):
        save(other, 2)

    assert save(store, 3).version == 3


def test_a_number_taken_again_is_the_new_versions_for_every_reader(store, folder):
    for epoch in (1, 2, 3):
        save(store, epoch)
    store.close()
    (folder / version_key("digits", 3)).unlink()

    with Store(folder) as later:
        with pytest.warns(CatalogWarning, match="indexed anew"):
            resumed = later.resume(nn.Linear(2, 2), run="digits")
        assert resumed.checkpoint.version == 2
        saved = save(later, 7)
        assert saved.version == 3
        assert [entry.epoch for entry in later.history("digits")] == [1, 2, 7]

    assert [entry.epoch for entry in store.history("digits")] == [1, 2, 7]
    assert store.latest(run="digits") == saved
    store.load_latest(nn.Linear, run="digits", device="cpu")


def test_a_run_rolled_back_is_read_as_it_is(store, folder):
    for epoch in (1, 2, 3):
        save(store, epoch)
    for number in (2, 3):
        (folder / version_key("digits", number)).unlink()

    with pytest.warns(CatalogWarning, match="indexed anew"):
        assert [entry.epoch for entry in store.history("digits")] == [1]
    assert store.best(run="digits").epoch == 1


def test_a_store_without_its_file_is_damage_and_no_empty_place(store, folder):
    save(store, 1)
    (folder / STORE_KEY).unlink()

    with Store(folder) as later:
        with pytest.raises(IntegrityError, match=r"has runs and no ckptstore\.json"):
            later.resume(nn.Linear(2, 2), run="digits")
        with pytest.raises(IntegrityError, match=r"has runs and no ckptstore\.json"):
            save(later, 2)
    assert not (folder / STORE_KEY).exists()


def test_a_store_that_is_gone_is_no_store_for_readers_either(store, folder):
    save(store, 1)
    shutil.rmtree(folder)

    with pytest.raises(NotAStoreError):
        store.latest(run="digits")


def test_a_run_that_begins_comes_from_what_was_restored(store):
    pretrained = save(store, 1, run="pretrained")
    model = nn.Linear(2, 2)
    store.get("pretrained@1").restore(model)

    assert save(store, 1, run="fine").parent == pretrained.ref
    assert save(store, 2, run="fine").parent == "fine@1"
    assert save(store, 3, run="pretrained").parent == pretrained.ref


def test_runs_of_a_sweep_do_not_come_from_one_another(store):
    save(store, 1, run="sweep/a")

    assert save(store, 1, run="sweep/b").parent is None
