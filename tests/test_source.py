"""Entries reach their bytes through the store that made them."""

from __future__ import annotations

import shutil

import pytest
from torch import nn

from ckptstore import Store
from ckptstore.errors import ArgumentError, IntegrityError
from tests.loading.trainings import Net, Training, same


def test_an_entry_outlives_its_store_object(tmp_path):
    model = Net()
    checkpoint = Store(tmp_path / "store").save(model)
    with Store(tmp_path / "store") as store:
        found = store.get(1)

    for entry in (checkpoint, found):  # closing lets go of connections, and they come again
        assert same(entry.load(Net, device="cpu"), model)


def test_an_entry_whose_store_went_says_so(tmp_path):
    checkpoint = Store(tmp_path / "store").save(Net())
    shutil.rmtree(tmp_path / "store")

    with pytest.raises(IntegrityError, match=r"default@1: its manifest .* is gone"):
        checkpoint.load(Net, device="cpu")


def test_what_is_restored_is_the_parent_of_what_is_saved_next(tmp_path):
    store, training = Store(tmp_path / "store"), Training()
    for _ in range(3):
        checkpoint = training.save(store)
    assert checkpoint.parent == "default@2"
    store.get("default@1").restore(training.model)

    assert training.save(store).parent == "default@1"


@pytest.mark.parametrize(
    ("option", "said"), [("map_location", "write device="), ("devise", "it has device, part")]
)
def test_an_option_that_load_has_not_is_named(tmp_path, option, said):
    store = Store(tmp_path)
    store.save(nn.Linear(1, 1), epoch=0, val_loss=1.0, model_config={})

    for load in (store.load_best, store.load_latest, store.run("default").load_best):
        with pytest.raises(ArgumentError, match=f"no option '{option}'; {said}"):
            load(nn.Linear, **{option: "cpu"})
