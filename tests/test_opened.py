"""A store that is open: where it is, that it travels, and that it can be closed and used again."""

from __future__ import annotations

import copy

import torch

from ckptstore import Store


def test_a_closed_store_can_be_used_again(tmp_path):
    with Store(tmp_path / "store") as store:
        store.save({"w": torch.ones(2)}, epoch=1)

    assert store.latest().epoch == 1
    store.close()


def test_a_store_says_where_it_is(tmp_path):
    assert str(tmp_path / "store") in repr(Store(tmp_path / "store"))


def test_a_store_that_travels_means_the_same(tmp_path):
    store = Store(tmp_path / "store", run="digits", monitor="acc", mode="max", catalog="sqlite://")

    other = copy.copy(store)
    other.save({"w": torch.ones(2)}, acc=0.5)

    assert other.url == store.url
    assert store.best().ref == "digits@1"


def test_two_names_of_one_run_share_what_this_process_knows(tmp_path):
    store = Store(tmp_path / "store")

    assert store._writer("digits") is store._writer("digits")
