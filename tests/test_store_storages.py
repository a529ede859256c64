"""The whole path on each kind of storage: a folder, memory, S3."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from ckptstore import Store
from ckptstore.storage.opening import open_storage
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


@pytest.fixture
def secluded_url(s3_url, monkeypatch):
    """A prefix in a bucket that nothing in the environment leads to."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    return s3_url


def test_metadata_goes_to_the_same_service_with_the_stores_options(secluded_url, storage_options):
    checkpoint = Store(secluded_url, storage_options=storage_options).save({"w": 1}, rng=False)
    checkpoint.write_metadata(f"{secluded_url}/beside.json")

    written = open_storage(secluded_url, storage_options).read("beside.json")
    assert json.loads(written) == checkpoint.metadata


def test_metadata_goes_to_another_service_with_options_of_its_own(
    tmp_path, secluded_url, storage_options, memory_url
):
    checkpoint = Store(tmp_path / "store").save({"w": 1}, rng=False)
    checkpoint.write_metadata(f"{secluded_url}/a.json", storage_options=storage_options)
    remote = Store(secluded_url, storage_options=storage_options).save({"w": 1}, rng=False)
    remote.write_metadata(str(tmp_path / "a.json"))  # where options of S3 would be refused
    remote.write_metadata(f"{memory_url}/a.json")

    assert open_storage(secluded_url, storage_options).read("a.json")
    assert (tmp_path / "a.json").is_file()
    assert open_storage(memory_url).read("a.json")
