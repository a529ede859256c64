"""What is chosen to be copied, and whether two places are one."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.catalog.identity import Identity
from ckptstore.errors import IntegrityError, NotAStoreError, RetiredError
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.chosen import Choice, Item, Place, choose, is_same, merged, store_id
from tests.catalog.places import START


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "here")
    for run, loss in (("a", 1.0), ("a", 0.5), ("a", 0.75), ("B/c", 0.1)):
        store.save({"w": torch.ones(2) * loss}, run=run, val_loss=loss, rng=False)
    return store


@pytest.fixture
def here(store):
    return Place(store._storage, store._catalog, store._writer)


@pytest.mark.parametrize(
    ("run", "ref", "chosen"),
    [
        (None, None, [Choice("a", None), Choice("b/c", None)]),
        ("b/*", None, [Choice("b/c", None)]),
        (["a", "a"], None, [Choice("a", None)]),
        (None, "a@best", [Choice("a", frozenset({2}))]),
        (None, ["a@1", "a@latest", "B/c"], [Choice("a", frozenset({1, 3})), Choice("b/c", {1})]),
        ("a", ["a@1", "B/c@1"], [Choice("a", None), Choice("b/c", {1})]),
        ([], [], [Choice("a", None), Choice("b/c", None)]),
    ],
)
def test_runs_versions_or_all_are_chosen(here, run, ref, chosen):
    assert choose(here, run, ref) == chosen


def test_the_best_is_by_the_monitor_that_was_given(here):
    assert choose(here, None, "a@best", ("val_loss", "max")) == [Choice("a", frozenset({1}))]


def test_a_retired_version_that_is_named_is_refused(store, here):
    store.prune(Keep(last=1), run="a")
    with pytest.raises(RetiredError):
        choose(here, None, "a@1")


def test_a_place_has_the_id_of_its_store(store, here, tmp_path):
    assert store_id(here.storage) == store._catalog._facts().store_id
    with pytest.raises(NotAStoreError):
        store_id(LocalStorage(tmp_path / "nothing"))
    (tmp_path / "half" / "runs" / "a").mkdir(parents=True)
    with pytest.raises(IntegrityError):
        store_id(LocalStorage(tmp_path / "half"))


def test_one_folder_under_two_names_is_one_place(here, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert is_same(here.storage, LocalStorage(tmp_path / "link"))
    (tmp_path / "other").mkdir()
    assert not is_same(here.storage, LocalStorage(tmp_path / "other"))


def test_another_kind_of_storage_is_another_place(here, memory_url):
    other = Store(memory_url)._storage
    assert not is_same(here.storage, other)
    assert is_same(other, Store(memory_url)._storage)


# ------------------------------------------------------------ the order


def items(run, *minutes):
    """Versions of a run, created at these minutes."""
    return [
        Item(
            run,
            run,
            Identity(
                number,
                "checkpoint",
                UUID(int=number),
                START + timedelta(minutes=minute),
                0,
                copied_from=None,
                retired=None,
                damage=None,
            ),
        )
        for number, minute in enumerate(minutes, 1)
    ]


@pytest.mark.parametrize(
    ("first", "second", "refs"),
    [
        ((1, 3), (2, 4), "a@1 b@1 a@2 b@2"),
        # The clock of a's first machine was ahead.
        ((9, 1, 2), (5, 10), "b@1 a@1 a@2 a@3 b@2"),
        ((1, 9, 2, 3), (5,), "a@1 b@1 a@2 a@3 a@4"),
        ((), (1,), "b@1"),
    ],
)
def test_runs_are_merged_by_age_and_each_stays_in_the_order_of_its_numbers(first, second, refs):
    found = merged([iter(items("a", *first)), iter(items("b", *second))])
    assert [item.ref for item in found] == refs.split()
