"""Undeletion: for half the grace period, by the storage's clock, and taken back when late."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from ckptstore.errors import (
    CollectionRefusedError,
    IntegrityError,
    LateCommitError,
    NotAStoreError,
    RetiredError,
    StorageError,
)
from ckptstore.format.facts import LATE, Facts
from ckptstore.format.journal import RetireEntry, UndeleteEntry, decode_entry, fold
from ckptstore.format.layout import STORE_KEY, journal_key, version_key
from ckptstore.upkeep import undeletion
from ckptstore.upkeep.inventory import Noted
from ckptstore.upkeep.undeletion import Since, retired_since, undelete
from tests.catalog.places import START
from tests.clocks import ProcessClocks
from tests.upkeep.histories import DAY, GRACE, RUN, Bucket, History

HALF = GRACE / 2
SECOND = timedelta(seconds=1)


@pytest.fixture
def history():
    """A retired version with a pack and a file."""
    history = History()
    history.commit(history.pack(), history.file())
    history.wait(DAY)
    history.retire(1, reason="beyond the last 3")
    return history


def back(history, append=None):
    return undelete(history.storage, "Digits", 1, append or history.append)


def is_retired(history):
    known = history.facts().versions.get(1)
    return known is not None and known.retired is not None


def test_within_half_the_grace_period_it_is_live_again(history, monkeypatch):
    ProcessClocks(monkeypatch)
    history.wait(HALF)
    assert back(history)
    assert not is_retired(history)
    assert isinstance(last_entry(history), UndeleteEntry)


def last_entry(history):
    keys = sorted(key for key in history.storage.objects if "/_journal/" in key)
    return decode_entry(history.storage.objects[keys[-1]], keys[-1])


def test_after_that_it_is_refused_and_says_until_when(history):
    history.wait(HALF + SECOND)
    before = dict(history.storage.objects)
    with pytest.raises(RetiredError) as raised:
        back(history)
    assert raised.value.ref == "Digits@1"
    for words in ("Digits@1", "beyond the last 3", "until 2026-02-05T12:00:00"):
        assert words in str(raised.value)
    assert history.storage.objects == before


def test_a_version_that_somebody_else_just_undeleted_is_left_as_it_is(history, monkeypatch):
    read = undeletion.read_journal

    def read_after_another(*args, **options):
        history.undelete(1)
        return read(*args, **options)

    monkeypatch.setattr(undeletion, "read_journal", read_after_another)

    assert not back(history)
    assert not is_retired(history)


def test_a_version_that_is_not_retired_is_left_as_it_is(history):
    history.undelete(1)
    before = dict(history.storage.objects)
    assert not back(history)
    assert history.storage.objects == before


def test_the_time_an_entry_states_does_not_count(history, monkeypatch):
    """All entries of these histories are dated START: a clock that is 100 days behind."""
    ProcessClocks(monkeypatch)
    history.undelete(1)
    history.wait(100 * DAY)
    history.retire(1)
    history.wait(HALF)
    assert back(history)


@pytest.mark.parametrize("change", ["gone", "shorter"])
@pytest.mark.parametrize("folder", ["packs", "files"])
def test_what_it_names_must_be_there(history, folder, change):
    (key,) = (key for key in history.storage.objects if key.startswith(folder))
    if change == "gone":
        del history.storage.objects[key]
    else:
        history.storage.objects[key] = b"x"
    with pytest.raises(IntegrityError, match=key) as raised:
        back(history)
    assert raised.value.ref == f"{RUN}@1"
    assert is_retired(history)


def test_a_version_whose_manifest_is_damaged_stays_retired(history):
    history.storage.objects[version_key(RUN, 1)] = b"{}"
    with pytest.raises(IntegrityError):
        back(history)
    assert is_retired(history)


def test_a_damaged_journal_is_refused(history):
    history.storage.objects[journal_key(RUN, 1)] = b"{}"
    retired = RetireEntry({1: "old"}, START, uuid.UUID(int=1))
    with pytest.raises(CollectionRefusedError, match="journal"):
        back(history, lambda decide: decide(fold(Facts(), [(1, retired)]), START, uuid.uuid4()))


def test_where_there_is_no_store_there_is_nothing_to_undelete(history):
    storage = Bucket()
    with pytest.raises(NotAStoreError):
        undelete(storage, RUN, 1, history.append)
    assert storage.objects == {}


def test_storage_without_times_is_refused(history, monkeypatch):
    monkeypatch.setattr(Bucket, "written_at", lambda *_: None)
    with pytest.raises(StorageError, match="does not say when"):
        back(history)
    assert is_retired(history)


def test_a_listing_that_lacks_the_retirement_is_refused(history, monkeypatch):
    monkeypatch.setattr(Bucket, "walk", lambda *_: iter(()))
    with pytest.raises(StorageError, match="lacks that entry"):
        back(history)
    assert is_retired(history)


# ------------------------------------------------------------------------------------ lateness


def late(history, pause):
    """Undelete, and let *pause* happen between the check and the entry."""

    def append(decide):
        def slowly(facts, time, writer):
            entry = decide(facts, time, writer)
            if isinstance(entry, UndeleteEntry):
                pause()
            return entry

        return history.append(slowly)

    return back(history, append)


def test_one_that_took_too_long_is_taken_back(history):
    history.wait(HALF)
    with pytest.raises(LateCommitError, match=r"until 2026-02-05T12:00:00.*retired again"):
        late(history, lambda: history.wait(SECOND))
    assert is_retired(history)
    assert last_entry(history).reasons[1].startswith(LATE)


@pytest.mark.parametrize("clock", ["wall_s", "monotonic_s"])
def test_it_is_late_by_this_process_clocks_too(history, monkeypatch, clock):
    """The storage's clock stood still; one of ours did not."""
    clocks = ProcessClocks(monkeypatch)
    history.wait(HALF - DAY)
    with pytest.raises(LateCommitError):
        late(
            history,
            lambda: setattr(clocks, clock, getattr(clocks, clock) + DAY.total_seconds() + 1),
        )
    assert is_retired(history)


def test_a_clock_of_ours_that_is_set_back_changes_nothing(history, monkeypatch):
    clocks = ProcessClocks(monkeypatch)
    history.wait(DAY)

    def set_back():
        clocks.wall_s -= 1000 * DAY.total_seconds()
        clocks.monotonic_s += 1

    assert late(history, set_back)
    assert not is_retired(history)


def test_what_came_too_late_cannot_be_undeleted_by_trying_again(history):
    """Else its second retirement would make it seem as if it had been live all the while."""
    history.wait(HALF)
    with pytest.raises(LateCommitError):
        late(history, lambda: history.wait(GRACE))
    with pytest.raises(RetiredError, match="too late"):
        back(history)


def test_it_is_taken_back_even_if_somebody_retired_it_meanwhile(history):
    history.wait(HALF)

    def append(decide):
        entry = history.append(decide)
        if isinstance(entry, UndeleteEntry):
            history.wait(SECOND)
            history.retire(1, reason="pruned by somebody else")
        return entry

    with pytest.raises(LateCommitError):
        back(history, append)
    with pytest.raises(RetiredError, match="too late"):
        back(history)


def test_one_that_died_before_it_was_taken_back_does_not_count_later(history):
    """Its late entry stands; yet what it names was deletable since the first retirement."""
    history.wait(HALF + DAY)
    history.undelete(1)
    history.wait(DAY)
    history.retire(1)
    with pytest.raises(RetiredError, match="until"):
        back(history)


def test_a_late_save_cannot_be_undeleted(history):
    history.undelete(1)
    history.retire(1, reason=f"{LATE}it took 9 days")
    with pytest.raises(RetiredError, match="too late"):
        back(history)


def test_one_that_cannot_be_taken_back_says_so(history):
    history.wait(HALF)

    def append(decide):
        if history.facts().versions[1].retired is None:
            raise StorageError("the connection broke")
        entry = history.append(decide)
        history.wait(SECOND)
        return entry

    with pytest.raises(StorageError, match="broke") as raised:
        back(history, append)
    assert "not retired again" in raised.value.__notes__[0]


def without_a_clock(history, error):
    """Let the storage tell its time once, and then fail."""
    create, asked = history.storage.create, []

    def failing(key, data):
        if key.startswith("clock/"):
            asked.append(key)
            if len(asked) > 1:
                raise error
        create(key, data)

    history.storage.create = failing


@pytest.mark.parametrize("took", [HALF - DAY, HALF - DAY + SECOND])
def test_where_the_storage_tells_no_time_afterwards_our_own_clocks_do(history, monkeypatch, took):
    clocks = ProcessClocks(monkeypatch)
    without_a_clock(history, StorageError("the connection broke"))
    history.wait(DAY)
    if took <= HALF - DAY:
        assert late(history, lambda: clocks.pass_by(took))
        assert not is_retired(history)
    else:
        with pytest.raises(LateCommitError, match="retired again"):
            late(history, lambda: clocks.pass_by(took))
        assert is_retired(history)


def test_one_that_was_interrupted_before_it_was_judged_says_so(history):
    without_a_clock(history, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) as raised:
        back(history)
    assert "Digits@1 is undeleted, and whether that was in time" in raised.value.__notes__[0]


def test_one_whose_entry_may_have_been_made_says_so(history):
    def append(decide):
        history.append(decide)
        raise StorageError("the connection broke")

    with pytest.raises(StorageError, match="broke") as raised:
        back(history, append)
    assert "Digits@1 may be undeleted, and whether" in raised.value.__notes__[0]


def test_one_that_was_refused_says_nothing_of_the_kind(history):
    history.wait(HALF + SECOND)
    with pytest.raises(RetiredError) as raised:
        back(history)
    assert not hasattr(raised.value, "__notes__")


def test_whoever_loses_the_race_for_the_entry_decides_again(history):
    """Undeleted and retired again meanwhile: the new retirement is the one that counts."""
    history.wait(HALF)

    def append(decide):
        first = decide(history.facts(), START, uuid.uuid4())
        assert isinstance(first, UndeleteEntry)
        history.undelete(1)
        assert decide(history.facts(), START, uuid.uuid4()) is None
        history.wait(SECOND)
        history.retire(1)
        return history.append(decide)

    assert back(history, append)
    assert not is_retired(history)


# ------------------------------------------------------------------------------------ since when


def journal(*entries):
    made = []
    for number, (kind, days) in enumerate(entries, 1):
        entry = (
            UndeleteEntry((1,), START, uuid.UUID(int=1))
            if kind == "undelete"
            else RetireEntry({1: kind}, START, uuid.UUID(int=1))
        )
        made.append(Noted(number, entry, START + days * DAY))
    return made


@pytest.mark.parametrize(
    ("entries", "days", "final"),
    [
        ([], None, False),
        ([("old", 1)], 1, False),
        ([("old", 1), ("old", 2)], 1, False),
        ([("old", 1), ("undelete", 5)], None, False),
        ([("old", 1), ("undelete", 5), ("old", 8)], 8, False),
        ([("old", 1), ("undelete", 5.1)], 1, False),
        ([("old", 1), ("undelete", 5.1), ("old", 8)], 1, False),
        ([(f"{LATE}a", 1)], 1, True),
        ([("old", 1), ("undelete", 2), (f"{LATE}a", 3)], 3, True),
        ([("old", 1), (f"{LATE}a", 3)], 1, True),
        ([(f"{LATE}a", 1), ("undelete", 2), ("old", 3)], 3, True),
        # A copy has times of its own, in any order.
        ([("old", 3), ("undelete", 1)], None, False),
    ],
)
def test_since_when(entries, days, final):
    found = retired_since(journal(*entries), 1, 4 * DAY)
    assert found == (None if days is None else Since(START + days * DAY, final))


def test_another_versions_entries_do_not_count():
    assert retired_since(journal(("old", 1)), 2, DAY) is None


def test_the_store_is_asked_for_its_grace_period(history):
    assert STORE_KEY in history.storage.objects
    short = History(grace=2 * DAY)
    short.commit(short.pack())
    short.retire(1)
    short.wait(DAY + SECOND)
    with pytest.raises(RetiredError):
        back(short)
