"""The whole path on each kind of storage: a folder, memory, S3."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from ckptstore import Store
from tests.loading.trainings import Net, Training, everything, frozen, same

NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def user_data(tmp_path, monkeypatch):
    """Keep the catalogs of remote stores out of the user's own folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))


def test_save_resume_load_package_and_history(store_url):
    whole = Training()
    losses = [whole.epoch() for _ in range(4)]

    first = Training()
    with Store(store_url, run="digits") as store:
        for epoch in range(2):
            first.save(store, epoch=epoch, val_loss=first.epoch(), extra={"a": np.arange(3)})

    second, store = Training(seed=9), Store(store_url, run="digits")
    resumed = second.resume(store)
    assert resumed.next_epoch == 2
    assert frozen(resumed.extra) == frozen({"a": np.arange(3)})
    second.model.train()
    # The first training saved before its epochs' draws: it goes on from what was saved.
    for epoch in range(2, 4):
        second.save(store, epoch=epoch, val_loss=second.epoch(), tags=[f"epoch-{epoch}"])
    assert everything(second) == everything(whole)

    store = Store(store_url)
    assert [each.epoch for each in store.history()] == [0, 1, 2, 3]
    assert store.best().metrics["val_loss"] == min(losses)
    assert same(store.load_latest(Net, device="cpu"), whole.model)
    assert same(store.load(Net, "digits@epoch-3", device="cpu", mmap=False), whole.model)
    assert store.load_best(Net, device="cpu") is not None

    store.save_package(
        "digits@latest", preprocessing={"mean": np.zeros(4), "std": np.ones(4)}, class_names=NAMES
    )
    package = Store(store_url).load_package(Net, device="cpu")
    assert package.parent == "digits@4"
    assert package.predict([1, 2, 3, 4]) in NAMES
    assert same(package.model, whole.model)


def test_a_store_goes_to_another_process_with_its_options(s3_url, storage_options):
    store = Store(s3_url, storage_options=storage_options)
    model = Net()
    store.save(model)
    again = copy.copy(store)  # what a worker gets

    assert again is not store
    assert same(again.load_latest(Net, device="cpu"), model)
