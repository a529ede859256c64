"""What a process may build upon, and for how long it trusts its last look."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import StorageError
from ckptstore.format.journal import DamageEntry, RetireEntry, UndeleteEntry
from ckptstore.format.layout import version_key
from ckptstore.format.manifest import parent_of
from ckptstore.saving import moment
from ckptstore.saving.bases import LOOK_S, MOST_REMEMBERED, Bases
from ckptstore.saving.basis import Basis
from ckptstore.saving.journaling import append
from ckptstore.saving.moment import Moment
from tests.faults import Failing, lost, store_on


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://")


@pytest.fixture
def saved(store):
    """A version that another process saved: nothing is remembered of it here."""
    return parent_of(Store(store.url).save({"w": torch.arange(9.0)}, run="digits").head)


@pytest.fixture
def bases(store):
    return Bases(store._storage, store._catalog)


@pytest.fixture
def later(monkeypatch):
    shift = [0.0]
    real = moment.time.monotonic
    monkeypatch.setattr(moment.time, "monotonic", lambda: real() + shift[0])
    return lambda seconds: shift.__setitem__(0, shift[0] + seconds)


RETIRE = (RetireEntry, {1: "pruned"})
UNDELETE = (UndeleteEntry, (1,))
DAMAGE = (DamageEntry, 1, "a flipped bit")


def journal(store, entry):
    kind, *facts = entry
    append(
        store._storage,
        store._catalog,
        "digits",
        lambda _, time, writer: kind(*facts, time, writer),
    )


def test_a_version_in_the_storage_is_read_and_looked_at(bases, saved):
    before = Moment.now()

    ((basis, looked),) = bases.live([saved])

    assert basis.version == saved
    assert {place.length for place in basis.places.values()} >= {36}
    assert basis.samples is None
    assert looked.monotonic_s >= before.monotonic_s


def test_the_same_version_asked_for_twice_counts_once(bases, saved):
    assert len(bases.live([saved, saved])) == 1


def test_a_fresh_look_is_trusted(bases, saved, store):
    first = bases.live([saved])
    journal(store, RETIRE)

    assert bases.live([saved]) == first


def test_after_a_while_it_looks_again(bases, saved, store, later):
    bases.live([saved])
    journal(store, RETIRE)

    later(LOOK_S)

    assert bases.live([saved]) == []
    journal(store, UNDELETE)
    assert len(bases.live([saved])) == 1


def test_a_look_is_as_old_as_when_it_began(bases, saved, later):
    ((_, first),) = bases.live([saved])
    later(LOOK_S)

    ((_, second),) = bases.live([saved])

    assert second.monotonic_s - first.monotonic_s >= LOOK_S


def test_what_passes_during_a_look_makes_it_older(bases, saved, store, later, monkeypatch):
    before, sync = Moment.now(), store._catalog.sync
    monkeypatch.setattr(store._catalog, "sync", lambda path: (sync(path), later(1000.0)))

    ((_, looked),) = bases.live([saved])

    assert looked.monotonic_s - before.monotonic_s < 1000


@pytest.mark.parametrize("entry", [RETIRE, DAMAGE], ids=["retired", "damaged"])
def test_what_is_not_sound_is_not_built_upon(bases, saved, store, entry):
    journal(store, entry)

    assert bases.live([saved]) == []


def test_what_this_process_found_damaged_is_not_built_upon(bases, saved, store):
    store._catalog.pass_over(store.get("digits@1").head.save_id)

    assert bases.live([saved]) == []


def test_a_manifest_that_is_gone_or_damaged_is_not_built_upon(bases, saved, store):
    path = store._storage._path(version_key("digits", 1))
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    assert bases.live([saved]) == []

    path.write_bytes(data)
    assert len(bases.live([saved])) == 1


def test_a_storage_that_fails_is_not_taken_for_one_without_the_version(store, saved):
    failing = Failing(store._storage, 1, fault=lost, always=True, only={"read_start"})
    with store_on(failing) as broken:
        broken.history("digits")

        with pytest.raises(StorageError):
            Bases(failing, broken._catalog).live([saved])


def test_few_versions_are_remembered(bases, store):
    for number in range(MOST_REMEMBERED + 1):
        entry = store.save({"w": torch.full((9,), float(number))}, run="other")
        bases.remember(Basis(parent_of(entry.head), {}), Moment.now())

    assert len(bases._known) == MOST_REMEMBERED


def test_forgotten_is_read_anew(bases, saved, store):
    bases.live([saved])
    journal(store, RETIRE)

    bases.forget()

    assert bases.live([saved]) == []
