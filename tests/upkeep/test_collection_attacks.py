"""Attacks on the weakest steps of the argument in docs/explanation/clean-up.md, one a test."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
import torch

from ckptstore.errors import LateCommitError, RetiredError
from ckptstore.format.journal import RetireEntry
from ckptstore.format.layout import STORE_KEY, version_key
from ckptstore.format.store_facts import StoreFacts, encode_store
from ckptstore.storage.opening import open_storage
from ckptstore.upkeep import collection
from ckptstore.upkeep.collection import collect
from ckptstore.upkeep.undeletion import undelete
from tests.clocks import Clock, Clocked, ProcessClocks, pass_by
from tests.faults import store_on
from tests.upkeep.actors import Actor
from tests.upkeep.histories import DAY, GRACE, RUN, History

HALF = GRACE / 2
SECOND = timedelta(seconds=1)


@pytest.fixture
def history(monkeypatch):
    """A store whose storage and whose processes have the same time, and what the tests end with."""
    made = History()
    clocks = ProcessClocks(monkeypatch)
    wait = made.wait

    def wait_both(time):
        clocks.pass_by(time)
        return wait(time)

    made.wait = wait_both
    # The argument does not lean on looking again.
    monkeypatch.setattr(collection, "LOOK_S", float("inf"))
    yield made
    assert made.lost() == []


def collector(history, to="delete", start="packs/"):
    """A collection that has listed and decided, and is about to delete."""
    actor = Actor(
        history.storage,
        lambda storage: collect(storage, single_writer=False, known=history.known),
    )
    actor.step_to(to, start)
    return actor


def undeleter(history, version=1):
    """An undeletion that has found that it is in time, and is about to append its entry."""

    def work(storage):
        return undelete(storage, RUN, version, history.through(storage).append)

    actor = Actor(history.storage, work)
    actor.step_to("create", "runs/")
    return actor


def deleted(actor):
    actor.finish()
    assert actor.error is None
    return [stored.key for stored in actor.result.deleted]


def garbage(history):
    """A version that was retired for longer than the grace period, and its pack."""
    version, key = history.save()
    history.retire(version)
    history.wait(GRACE + SECOND)
    return version, key


# -------------------------------------------------------- suspended between listing and deleting


def test_a_version_can_not_be_undeleted_once_a_collection_may_have_found_it(history):
    version, key = garbage(history)
    sleeping = collector(history)
    with pytest.raises(RetiredError):
        undelete(history.storage, RUN, version, history.append)
    history.wait(7 * DAY)
    assert deleted(sleeping) == [key]


def test_what_can_be_undeleted_no_collection_has_found(history):
    """The latest undeletion in time, beside a collection that listed just before it."""
    orphan = history.pack()
    version, key = history.save()
    history.wait(GRACE + SECOND)
    history.retire(version)
    history.wait(HALF - SECOND)
    sleeping = collector(history)
    assert undelete(history.storage, RUN, version, history.append)
    history.wait(7 * DAY)
    assert deleted(sleeping) == [orphan]
    assert history.has(key)


def test_everything_happens_while_a_collection_sleeps(history):
    version, key = garbage(history)
    waiting, _ = history.save()
    history.retire(waiting)
    sleeping = collector(history)
    for _ in range(20):
        history.wait(DAY)
        live = history.live()
        number, _ = history.save(*(live[max(live)] if live else ()))
        history.retire(number - 1)
        if number % 3 == 0:
            undelete(history.storage, RUN, number - 1, history.append)
        if number % 5 == 0:
            history.collect()
    assert deleted(sleeping) == [key]
    assert version not in history.live()


def test_collections_overlap(history):
    keys = [garbage(history)[1] for _ in range(3)]
    first, second = collector(history), collector(history)
    history.save()
    third = collector(history)
    assert deleted(second) == keys
    assert deleted(first) == keys
    assert deleted(third) == keys
    assert history.collect().deleted == ()


def test_a_collection_that_is_killed_is_finished_by_the_next(history, monkeypatch):
    monkeypatch.setattr(collection, "DELETE_BATCH", 1)
    keys = [garbage(history)[1] for _ in range(3)]

    def killed(doing, key):
        if doing == "delete" and key == keys[1]:
            raise KeyboardInterrupt

    history.storage.before = killed
    with pytest.raises(KeyboardInterrupt):
        history.collect()
    history.storage.before = lambda _doing, _key: None
    assert [stored.key for stored in history.collect().deleted] == keys[1:]


def test_one_that_is_killed_with_its_clock_written_leaves_no_trace_for_long(history):
    history.save()

    def killed(doing, _key):
        if doing == "delete":
            raise KeyboardInterrupt

    history.storage.before = killed
    with pytest.raises(KeyboardInterrupt):
        history.collect()
    history.storage.before = lambda _doing, _key: None
    history.wait(GRACE + SECOND)
    history.collect()
    assert not [key for key in history.storage.objects if key.startswith("clock/")]


@pytest.mark.parametrize("place", ["packs", "files", "clock", "runs"])
def test_a_save_between_two_listings_of_a_collection(history, place):
    """Whatever of it the listings saw: a pack without its manifest, or both, or neither."""
    _, orphan = garbage(history)
    actor = collector(history, "walk", place)
    _, key = history.save()
    history.wait(HALF)
    assert deleted(actor) == [orphan]
    assert history.has(key)


def test_a_retirement_after_the_collections_time_does_not_count(history):
    """Its storage time is later than the collection's, however long the listing takes."""
    version, key = history.save()
    history.wait(2 * GRACE)
    actor = collector(history, "walk", "packs")
    history.retire(version)
    history.wait(2 * GRACE)
    assert deleted(actor) == []
    assert history.has(key)


# -------------------------------------------------------- undeletion, at its edges and late


def test_an_undeletion_that_sleeps_before_its_entry_is_taken_back(history):
    version, key = history.save()
    history.retire(version)
    history.wait(HALF - SECOND)
    sleeper = undeleter(history)
    history.wait(HALF + 2 * SECOND)
    sleeping = collector(history)
    sleeper.finish()
    assert isinstance(sleeper.error, LateCommitError)
    assert deleted(sleeping) == [key]
    assert history.live() == {}


def test_one_that_was_late_gets_no_second_chance_by_its_own_retirement(history):
    """It retires the version again just now; the collection found it deletable long before."""
    version, key = history.save()
    history.retire(version)
    history.wait(HALF - SECOND)
    sleeper = undeleter(history)
    history.wait(HALF + 2 * SECOND)
    sleeping = collector(history)
    sleeper.finish()
    with pytest.raises(RetiredError):
        undelete(history.storage, RUN, version, history.append)
    assert deleted(sleeping) == [key]


def test_a_late_entry_whose_writer_died_gives_no_second_chance_either(history):
    version, key = garbage(history)
    sleeping = collector(history)
    history.undelete(version)
    history.retire(version)
    with pytest.raises(RetiredError):
        undelete(history.storage, RUN, version, history.append)
    assert deleted(sleeping) == [key]


def test_a_collection_during_an_undeletion_keeps_what_it_can(history):
    version, key = history.save()
    history.wait(GRACE)
    history.retire(version)
    history.wait(HALF - SECOND)
    sleeper = undeleter(history)
    assert history.collect().deleted == ()
    sleeper.finish()
    assert sleeper.result is True
    history.wait(3 * GRACE)
    assert history.collect().deleted == ()
    assert history.has(key)


# -------------------------------------------------------- a real store's saves


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def clocks(monkeypatch, clock):
    """The storage's clock and this process's, which differ by weeks."""
    return clock, ProcessClocks(monkeypatch)


@pytest.fixture
def storage(memory_url, clock):
    made = Clocked(open_storage(memory_url), clock)
    facts = StoreFacts(UUID(int=1), round(GRACE.total_seconds()), in_place=False)
    made.create(STORE_KEY, encode_store(facts))
    return made


@pytest.fixture
def store(storage):
    with store_on(storage) as made:
        yield made


def collected(store, storage):
    done = collect(
        storage,
        single_writer=False,
        known=lambda: {
            path: tuple(counts) for path, counts in store._catalog.indexed_counts().items()
        },
    )
    return [stored.key for stored in done.deleted]


def retire(store, *versions, run="default"):
    def decide(_facts, time, writer):
        return RetireEntry(dict.fromkeys(versions, "old"), time, writer)

    store._writer(run).append(decide)


def packs(storage):
    return sorted(stored.key for stored in storage.walk("packs"))


W = torch.arange(3000.0)


def weights(store, version):
    return store.get(f"default@{version}").state("model")["w"]


def test_a_save_that_reuses_at_the_edge_of_its_half_grace_is_safe(store, storage, clocks):
    """It looked just before what it builds upon was retired, and commits half a grace later."""
    store.save({"w": W}, rng=False)
    pass_by(clocks, GRACE)
    names = packs(storage)
    writer = store._writer("default")
    commit = writer.commit

    def slowly(*args, **options):
        retire(store, 1)
        pass_by(clocks, HALF - SECOND)
        assert collected(store, storage) == []
        return commit(*args, **options)

    writer.commit = slowly
    saved = store.save({"w": W}, rng=False)
    assert saved.new_bytes == 0
    pass_by(clocks, 5 * GRACE)
    assert collected(store, storage) == []
    assert packs(storage) == names
    assert torch.equal(weights(store, 2), W)


@pytest.mark.parametrize("clock_of_ours", ["wall_s", "monotonic_s"])
@pytest.mark.parametrize("when", ["before the commit", "during it"])
def test_a_save_beyond_its_half_grace_is_no_version(store, storage, clocks, when, clock_of_ours):
    """Whichever of its clocks shows it, and even if what it builds upon is gone by then."""
    store.save({"w": W}, rng=False)
    slept = []

    def sleep(*_):
        if slept:
            return
        slept.append(True)
        retire(store, 1)
        storage_clock, ours = clocks
        storage_clock.pass_by(GRACE + SECOND)
        setattr(ours, clock_of_ours, getattr(ours, clock_of_ours) + GRACE.total_seconds())
        assert len(collected(store, storage)) == 1

    if when == "before the commit":
        writer = store._writer("default")
        commit = writer.commit
        writer.commit = lambda *args, **options: (sleep(), commit(*args, **options))[1]
    else:
        create = storage.create

        def create_slowly(key, data):
            if key.endswith("00000002.jsonl"):
                sleep()
            create(key, data)

        storage.create = create_slowly

    with pytest.raises(LateCommitError):
        store.save({"w": W}, rng=False)

    assert packs(storage) == []
    manifests = {stored.key for stored in storage.walk("runs/default/_versions")}
    assert (version_key("default", 2) in manifests) == (when == "during it")
    assert store._catalog.live("default") == []
    saved = store.save({"w": W}, rng=False)
    assert saved.new_bytes > 0
    assert torch.equal(weights(store, saved.version), W)


def test_a_save_that_was_late_can_not_be_undeleted(store, storage, clocks):
    create = storage.create

    def create_slowly(key, data):
        if key.endswith("00000001.jsonl"):
            pass_by(clocks, HALF + SECOND)
        create(key, data)

    storage.create = create_slowly
    with pytest.raises(LateCommitError):
        store.save({"w": W}, rng=False)
    with pytest.raises(RetiredError, match="too late"):
        undelete(storage, "default", 1, store._writer("default").append)


@pytest.mark.parametrize(("days", "is_late"), [(3, False), (5, True)])
def test_packs_of_a_slow_upload(store, storage, clocks, days, is_late):
    """They are as old as the upload's beginning; collections go on all the while."""
    open_writer = storage.open_writer

    def open_slowly(key):
        writer = open_writer(key)
        pass_by(clocks, days * DAY)
        collected(store, storage)
        return writer

    storage.open_writer = open_slowly
    if is_late:
        with pytest.raises(LateCommitError):
            store.save({"w": W}, rng=False)
    else:
        store.save({"w": W}, rng=False)
        pass_by(clocks, 5 * GRACE)
        assert collected(store, storage) == []
        assert torch.equal(weights(store, 1), W)


@pytest.mark.parametrize("days", [-1, 1])
def test_machines_that_disagree_by_a_day_do_no_harm(store, storage, clocks, days):
    _, ours = clocks
    store.save({"w": W}, rng=False)
    store.save({"w": W + 1}, rng=False)
    retire(store, 1)
    ours.wall_s += days * DAY.total_seconds()
    pass_by(clocks, GRACE)
    assert collected(store, storage) == []
    pass_by(clocks, SECOND)
    assert len(collected(store, storage)) == 1
    assert torch.equal(weights(store, 2), W + 1)


def test_a_store_undeletes_what_it_retired(store, storage, clocks):
    store.save({"w": W}, rng=False)
    retire(store, 1)
    pass_by(clocks, HALF - SECOND)
    assert undelete(storage, "default", 1, store._writer("default").append)
    pass_by(clocks, 5 * GRACE)
    assert collected(store, storage) == []
    assert torch.equal(weights(store, 1), W)
