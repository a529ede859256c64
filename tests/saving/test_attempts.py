"""A save that finds no room leaves nothing, and is made again as a fresh one."""

from __future__ import annotations

import errno

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import (
    CkptStoreWarning,
    DurabilityError,
    OutcomeUnknownError,
    RoomWarning,
    StorageError,
)
from ckptstore.saving import on_full
from ckptstore.saving.on_full import WARN_S
from ckptstore.storage.local import LocalStorage
from tests.clocks import WaitingClock
from tests.faults import Failing, store_on
from tests.loading.trainings import Training, frozen

STATE = {"weight": torch.arange(50_000.0)}
OPERATIONS = ["open_writer", "write", "finish", "create", "prepare"]


def full(kind=StorageError, code=errno.ENOSPC):
    def fault():
        error = kind("no room")
        error.errno = code
        return error

    return fault


@pytest.fixture
def clock(monkeypatch):
    return WaitingClock(monkeypatch, "ckptstore.saving.on_full")


@pytest.fixture
def storage(tmp_path):
    return Failing(LocalStorage(tmp_path / "store"))


def fill(storage, only, fault=None, at=1, **how):
    storage.at, storage.count, storage.only = at, 0, set(only)
    storage.fault, storage.always = fault or full(), True
    for name, value in how.items():
        setattr(storage, name, value)


def files(storage):
    root = storage.storage._root
    return {str(each.relative_to(root)) for each in root.rglob("*") if each.is_file()}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_it_waits_wherever_the_room_ends(storage, clock, operation, code):
    store = store_on(storage, on_full="wait")
    fill(storage, [operation], full(code=code))
    clock.then = lambda passed_s: passed_s > WARN_S and storage.rest()

    with pytest.warns(RoomWarning, match="no room for a version of run 'default'"):
        saved = store.save(STATE, rng=False)

    assert saved.ref == "default@1"
    assert frozen(dict(saved.state("model"))) == frozen(STATE)
    assert len([name for name in files(storage) if name.startswith("packs/")]) == 1
    assert store.verify().ok


@pytest.mark.parametrize("operation", ["write", "create"])
def test_what_fills_the_disk_is_removed_also_where_it_raises(storage, operation):
    store = store_on(storage)
    store.save(STATE, rng=False, epoch=0)
    before = files(storage)
    fill(storage, [operation])

    with pytest.raises(StorageError, match="no room") as caught:
        store.save({"weight": torch.rand(50_000), "more": torch.rand(9)}, rng=False, epoch=1)

    assert files(storage) == before
    assert caught.value.needed_bytes >= 200_036
    assert store.latest().epoch == 0
    storage.rest()
    assert store.save(STATE, rng=False, epoch=1).ref == "default@2"


def test_what_was_written_before_the_room_ended_is_removed(storage):
    store = store_on(storage)
    fill(storage, ["open_writer"], at=2)  # the optimizer's pack is the second

    training = Training()
    training.epoch()

    with pytest.raises(StorageError):
        training.save(store)

    assert not [name for name in files(storage) if name.startswith("packs/")]


def test_each_attempt_is_a_fresh_save(storage, clock):
    store = store_on(storage, on_full="wait")
    fill(storage, ["finish"])
    asked = []

    def make_room(passed_s):
        if passed_s > 3 * WARN_S:
            asked.extend(storage.done)
            storage.rest()

    clock.then = make_room

    with pytest.warns(RoomWarning):
        saved = store.save(STATE, rng=False)

    keys = [key for operation, key in asked + storage.done if operation == "open_writer"]
    assert len(keys) == len(set(keys)) == 5  # at once, after each of three minutes, and at last
    assert str(saved.head.save_id) in keys[-1]
    assert {pack.save_id for pack in saved.head.packs} == {saved.head.save_id}


def test_the_half_grace_period_counts_from_the_attempt_that_came_through(storage, clock):
    store = store_on(storage, on_full="wait")
    store.save(STATE, rng=False, epoch=0)
    fill(storage, ["create"])
    clock.then = lambda passed_s: passed_s > WARN_S and storage.rest()
    waited = {"weight": torch.rand(50_000)}

    with pytest.warns(RoomWarning):
        saved = store.save(waited, rng=False, epoch=1)

    assert saved.head.started_at > store.get("default@1").head.created_at
    assert saved.ref == "default@2"


def test_a_manifest_whose_fsync_found_no_room_and_that_is_not_there_is_made_again(storage, clock):
    store = store_on(storage, on_full="wait")
    store.save(STATE, rng=False, epoch=0)
    fill(storage, ["create"], full(DurabilityError))
    clock.then = lambda passed_s: passed_s > WARN_S and storage.rest()

    with pytest.warns(RoomWarning):
        assert store.save({"weight": torch.rand(9)}, rng=False).ref == "default@2"


def test_a_manifest_that_is_there_and_may_not_survive_is_not_made_twice(storage, clock):
    store = store_on(storage, on_full="wait")
    store.save(STATE, rng=False, epoch=0)
    fill(storage, ["create"], full(DurabilityError), after=True)

    with pytest.raises(DurabilityError):
        store.save({"weight": torch.rand(50_000)}, rng=False, epoch=1)

    assert clock.passed_s == 0
    storage.rest()
    assert len([name for name in files(storage) if name.startswith("packs/")]) == 2
    assert Store(storage.url, catalog="sqlite://").verify().ok


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("policy", ["wait", "raise"])
def test_what_is_committed_is_not_made_again_for_want_of_room_in_the_journal(storage, policy):
    """A parent that is named is recorded to stay, once its child is there."""
    store = store_on(storage, on_full=policy)
    store.save(STATE, rng=False, step=1)
    store.save({"weight": torch.rand(9)}, rng=False, step=2)
    writer = store._writer("default")
    make_live, asked, no_room = writer.make_live, [], full()()

    def no_room_at_first(*args):
        asked.append(args)
        if len(asked) == 1:
            raise no_room
        return make_live(*args)

    writer.make_live = no_room_at_first

    if policy == "wait":
        with pytest.warns(RoomWarning, match="no room for a record that default@1 stays"):
            assert store.save({"weight": torch.rand(9)}, rng=False, parent="default@1").version == 3
    else:
        with pytest.raises(StorageError) as caught:
            store.save({"weight": torch.rand(9)}, rng=False, parent="default@1")
        assert "default@3 is saved" in caught.value.__notes__[0]
    assert [each.version for each in store.history()] == [1, 2, 3]
    assert store.verify().ok


def test_an_unknown_outcome_is_not_tried_again(storage, clock):
    store = store_on(storage, on_full="wait")
    store.save(STATE, rng=False)
    fill(storage, ["create", "read"])

    with pytest.raises(OutcomeUnknownError):
        store.save({"weight": torch.rand(9)}, rng=False)

    assert clock.passed_s == 0


def test_what_can_not_be_removed_is_said(storage):
    store = store_on(storage)
    store.save(STATE, rng=False)
    fill(storage, ["finish", "list_folder"])

    with pytest.raises(StorageError) as caught:
        store.save({"weight": torch.rand(9)}, rng=False)

    assert "a collection will" in caught.value.__notes__[0]


def test_a_package_waits_too(storage, clock):
    store = store_on(storage, on_full="wait")
    model = torch.nn.Linear(2, 2)
    fill(storage, ["write"])
    clock.then = lambda passed_s: passed_s > WARN_S and storage.rest()

    with pytest.warns(RoomWarning):
        assert store.save_package(model, model_config={}).ref == "default@1"


def test_what_is_recorded_later_waits_too(storage, clock):
    store = store_on(storage, on_full="wait")
    run = store.run("digits")
    saved = run.save(STATE, rng=False)
    for record, said in [
        (lambda: run.tag(saved, "prod"), "tag 'prod' of run 'digits'"),
        (lambda: saved.log(test_acc=0.5), "metrics of run 'digits'"),
        (lambda: run.log(epoch=1, train_loss=0.5), "metrics of run 'digits'"),
        (lambda: run.note(saved, "fine"), "a note of run 'digits'"),
        (lambda: run.save({"w": torch.rand(9)}, tags=["new"]), "of run 'digits'"),
    ]:
        fill(storage, ["create"])
        clock.then = lambda _: storage.rest()
        with pytest.warns(RoomWarning, match=said):
            record()

    assert store.tags() == {"new": "digits@2", "prod": "digits@1"}
    assert store.get("digits@1").metrics == {"test_acc": 0.5}
    assert [each.metrics for each in run.history().logged] == [{"train_loss": 0.5}]


def test_pruning_after_a_save_waits_for_nothing(storage, clock):
    store = store_on(storage, on_full="wait")
    run = store.run("digits", keep=Keep(last=1))
    run.save(STATE, rng=False, epoch=0, val_loss=1)
    run.save({"weight": torch.rand(9)}, rng=False, epoch=1, val_loss=0)
    fill(storage, ["create"], at=2)  # the manifest is the first

    with pytest.warns(CkptStoreWarning, match="could not be pruned"):
        run.save({"weight": torch.rand(9)}, rng=False, epoch=2, val_loss=-1)

    assert clock.passed_s == 0


def test_a_run_may_have_a_policy_of_its_own(storage, clock):
    store = store_on(storage, on_full="wait")
    run = store.run("digits", on_full="raise")
    fill(storage, ["write"])

    with pytest.raises(StorageError):
        run.save(STATE, rng=False)
    assert clock.passed_s == 0

    clock.then = lambda _: storage.rest()
    with pytest.warns(RoomWarning):
        store.save(STATE, rng=False, run="other")


def test_room_is_made_of_what_the_run_does_not_keep(storage, clock, monkeypatch):
    store = store_on(storage, on_full="retire")
    run = store.run("digits", keep=Keep(last=1))
    run.save(STATE, rng=False, epoch=0, val_loss=1)
    run.save({"weight": torch.rand(50_000)}, rng=False, epoch=1, val_loss=0)
    monkeypatch.setattr(on_full, "free_bytes", lambda _: 0 if storage.at else 10**9)
    fill(storage, ["write"])
    clock.then = lambda _: storage.rest()

    with pytest.warns(RoomWarning) as caught:
        run.save({"weight": torch.rand(50_000)}, rng=False, epoch=2, val_loss=-1)

    (said,) = map(str, [each.message for each in caught])
    assert "0 version(s) were retired" in said  # each save prunes
    assert "0 B were collected; 204.1 kB more were retired" in said
    assert "7 days ago" in said
    assert [each.version for each in run.history() if each.retired is None] == [3]


def test_without_a_policy_nothing_is_retired_to_make_room(storage, clock):
    store = store_on(storage, on_full="retire")
    store.save(STATE, rng=False)
    fill(storage, ["write"])
    clock.then = lambda _: storage.rest()

    with pytest.warns(RoomWarning, match="nothing was retired, as run 'default' has no keep="):
        store.save({"weight": torch.rand(9)}, rng=False)


def test_if_no_room_can_be_made_the_warning_says_why(storage, clock):
    store = store_on(storage, on_full="retire")
    run = store.run("digits", keep=Keep(last=1))
    run.save(STATE, rng=False)
    fill(storage, ["write", "create"])
    clock.then = lambda _: storage.rest()

    with pytest.warns(RoomWarning, match="nothing could be collected: no room"):
        run.save({"weight": torch.rand(9)}, rng=False)


def test_where_there_is_no_store_yet_there_is_nothing_to_retire(storage, clock):
    store = store_on(storage, on_full="retire")
    fill(storage, ["create"])
    clock.then = lambda _: storage.rest()

    with pytest.warns(RoomWarning, match="there is nothing to retire yet"):
        assert store.save(STATE, rng=False).ref == "default@1"
