"""An entry changes the rows it is about, and whatever order things are met in, the rows agree."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from ckptstore.catalog.index import Catalog
from ckptstore.format.facts import Retired, Settings, VersionFacts
from ckptstore.format.journal import (
    ChildEntry,
    DamageEntry,
    LogEntry,
    NoteEntry,
    RetireEntry,
    SettingsEntry,
    TagEntry,
    UndeleteEntry,
    encode_entry,
)
from ckptstore.format.layout import journal_key, version_key
from ckptstore.format.manifest import encode_manifest
from tests.catalog.places import (
    NAN,
    START,
    DictStorage,
    commit,
    commit_many,
    found_store,
    make_head,
    newer,
    note,
    rows,
)

SIGNED = (START, UUID(int=7), "me@here")
MOST = 3
numbers = st.integers(1, MOST)
texts = st.sampled_from(["a", "b", None])
values = st.sampled_from([1, 1.0, 0.5, NAN, True, "no number", {"$int": "12"}])
metrics = st.dictionaries(st.sampled_from(["val_loss", "acc"]), values, max_size=2)
entries = st.one_of(
    st.builds(
        SettingsEntry,
        st.builds(
            Settings,
            st.sampled_from(["acc", "val_loss"]),
            st.sampled_from(["min", "max"]),
            st.sampled_from([None, {"lr": 1}]),
            st.sampled_from([None, {"last": 3}]),
        ),
        *map(st.just, SIGNED),
    ),
    st.builds(TagEntry, st.sampled_from("ab"), st.none() | numbers, *map(st.just, SIGNED)),
    st.builds(
        LogEntry,
        st.none() | numbers,
        st.none() | st.integers(0, 3),
        st.none(),
        metrics,
        *map(st.just, SIGNED),
    ),
    st.builds(NoteEntry, numbers, texts, *map(st.just, SIGNED)),
    st.builds(
        RetireEntry,
        st.dictionaries(numbers, st.sampled_from(["old", "worse"]), max_size=3),
        *map(st.just, SIGNED),
    ),
    st.builds(UndeleteEntry, st.lists(numbers, max_size=3).map(tuple), *map(st.just, SIGNED)),
    st.builds(DamageEntry, numbers, texts, *map(st.just, SIGNED)),
    st.builds(ChildEntry, numbers, st.sampled_from(["x", "y"]), st.uuids(), *map(st.just, SIGNED)),
)
versions = st.sampled_from(["whole", "package", "damaged", "newer", "torn"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("version"), versions),
        st.tuples(st.just("entry"), entries),
        st.tuples(st.just("entry"), entries),
        st.tuples(st.just("torn entry"), entries),
        st.tuples(st.just("finish"), st.none()),
        st.tuples(st.just("sync"), st.none()),
    ),
    min_size=8,
    max_size=25,
)


class Place:
    """A run on storage that creates in place, so that files may be seen half-written.

    What is torn or damaged may become whole later.
    """

    def __init__(self) -> None:
        self.storage = DictStorage()
        found_store(self.storage, in_place=True)
        self.catalog = Catalog("sqlite://", self.storage)
        self.versions = self.entries = 0
        self.unfinished: dict[str, bytes] = {}

    def version(self, kind: str) -> None:
        if self.versions == MOST:
            return
        self.versions += 1
        key = version_key("digits", self.versions)
        made = {"kind": "package"} if kind == "package" else {}
        name = "digits" if self.versions % 2 else "DIGITS"
        data = encode_manifest(make_head(name, self.versions, **made), [b"{}"])
        if kind == "torn":
            self.unfinished[key], data = data, data[:50]
        elif kind == "damaged":
            self.unfinished[key] = data
            data = data.replace(b'"epoch":', b'"epoch": ')
        elif kind == "newer":
            data = newer(self.versions)
        self.storage.create(key, data)

    def entry(self, entry: object, *, torn: bool = False) -> None:
        self.entries += 1
        key, data = journal_key("digits", self.entries), encode_entry(entry)
        if torn:
            self.unfinished[key], data = data, data[:20]
        self.storage.create(key, data)

    def finish(self) -> None:
        self.storage.objects |= self.unfinished
        self.unfinished.clear()

    def do(self, what: str, given: object) -> None:
        if what == "version":
            self.version(given)
        elif what == "sync":
            self.catalog.sync("digits")
        elif what == "finish":
            self.finish()
        else:
            self.entry(given, torn=what == "torn entry")


def told(catalog):
    versions = range(1, MOST + 1)
    facts = [catalog.version_facts("digits", version) for version in versions]
    return catalog.facts("digits"), facts, catalog.children("digits")


def agree(done) -> None:
    place = Place()
    for what, given_ in done:
        place.do(what, given_)
    place.catalog.sync("digits")
    anew = Catalog("sqlite://", place.storage)
    anew.sync("digits")

    assert repr(rows(place.catalog)) == repr(rows(anew))
    assert told(place.catalog) == told(anew)
    place.catalog.close()
    anew.close()


@settings(deadline=None, max_examples=100)
@given(steps)
def test_however_often_it_is_synced_the_rows_are_those_of_an_index_made_anew(done):
    agree(done)


LOG, OLD = LogEntry(1, None, None, {"val_loss": 9}, *SIGNED), RetireEntry({1: "old"}, *SIGNED)
WHOLE, TORN, DAMAGED, SYNC, FINISH = (
    ("version", "whole"),
    ("version", "torn"),
    ("version", "damaged"),
    ("sync", None),
    ("finish", None),
)


@pytest.mark.parametrize(
    "done",
    [
        [WHOLE, ("torn entry", NoteEntry(1, "a", *SIGNED)), ("entry", NoteEntry(1, "b", *SIGNED)),
         SYNC, FINISH],
        [WHOLE, ("torn entry", TagEntry("a", 1, *SIGNED)), ("entry", TagEntry("a", 2, *SIGNED)),
         SYNC, FINISH],
        [WHOLE, ("torn entry", OLD), ("entry", UndeleteEntry((1,), *SIGNED)), SYNC, FINISH],
        [("entry", OLD), SYNC, WHOLE],
        [("entry", LOG), ("entry", OLD), SYNC, WHOLE, SYNC, ("entry", LOG), SYNC,
         ("entry", UndeleteEntry((1,), *SIGNED))],
        [TORN, ("entry", LOG), SYNC, FINISH],
        [TORN, ("entry", OLD), SYNC, FINISH],
        [TORN, ("entry", OLD), SYNC, FINISH, SYNC, ("entry", UndeleteEntry((1,), *SIGNED))],
        [DAMAGED, WHOLE, SYNC, FINISH],
        [DAMAGED, ("entry", LOG), ("entry", OLD), SYNC, ("entry", UndeleteEntry((1,), *SIGNED)),
         SYNC, FINISH],
        [DAMAGED, ("entry", OLD), SYNC, FINISH, SYNC, ("entry", UndeleteEntry((1,), *SIGNED))],
        [WHOLE, ("entry", OLD), SYNC, ("entry", LOG)],
        [WHOLE, ("entry", LogEntry(1, None, None, {"val_loss": 1}, *SIGNED)), SYNC,
         ("entry", LogEntry(1, None, None, {"val_loss": True}, *SIGNED))],
        [WHOLE, ("entry", LOG), SYNC, ("entry", OLD), SYNC,
         ("entry", UndeleteEntry((1,), *SIGNED))],
        [("entry", RetireEntry({1: "old", 3: "early"}, *SIGNED)), WHOLE, SYNC, WHOLE, SYNC, WHOLE],
    ],
    ids=str,
)  # fmt: skip
def test_rows_agree_where_things_come_out_of_order(done):
    agree(done)


# ------------------------------------------------------------ what each entry does


@pytest.fixture
def run(storage, catalog):
    commit_many(storage, "digits", {1: {"val_loss": 3}, 2: {"val_loss": 1}, 3: {"val_loss": 2}})
    catalog.sync("digits")

    def add(*made):
        for entry in made:
            note(storage, "digits", catalog.next_numbers("digits")[1], entry)
            catalog.sync("digits")
        return catalog

    return add


def test_a_retired_version_has_its_facts_and_is_neither_best_nor_latest(run):
    catalog = run(RetireEntry({2: "worse", 3: "old"}, *SIGNED))

    assert catalog.version("digits", 2).facts == VersionFacts(retired=Retired(START, "worse", 1))
    assert catalog.best(["digits"], "val_loss", "min").version == 1
    assert catalog.latest("digits", "checkpoint").version == 1
    assert [each.version for each in catalog.live("digits")] == [1]
    assert [each.version for each in catalog.history(["digits"])] == [1, 2, 3]


def test_a_retired_version_has_no_rows_of_metrics_whatever_is_logged(run):
    catalog = run(RetireEntry({2: "worse"}, *SIGNED), LogEntry(2, None, None, {"acc": 5}, *SIGNED))

    assert [row[2:4] for row in rows(catalog)["metrics"]] == [("val_loss", 1), ("val_loss", 3)]
    assert catalog.version("digits", 2).facts.metrics == {"acc": 5}


def test_the_first_retirement_counts(run):
    catalog = run(RetireEntry({2: "worse"}, *SIGNED), RetireEntry({2: "old"}, *SIGNED))

    assert catalog.version_facts("digits", 2).retired == Retired(START, "worse", 1)


def test_what_is_undeleted_is_as_it_was(run):
    before = rows(run())
    catalog = run(
        RetireEntry({1: "old", 2: "worse"}, *SIGNED),
        LogEntry(2, None, None, {"acc": 5}, *SIGNED),
        UndeleteEntry((2,), *SIGNED),
        UndeleteEntry((1,), *SIGNED),
    )

    assert catalog.best(["digits"], "acc", "max").version == 2
    assert catalog.best(["digits"], "val_loss", "min").version == 2
    metrics = [row for row in rows(catalog)["metrics"] if row[2] != "acc"]
    assert metrics == before["metrics"]


def test_best_goes_by_metrics_that_came_later(run):
    catalog = run(
        LogEntry(1, None, None, {"val_loss": 0.5, "acc": NAN}, *SIGNED),
        LogEntry(3, None, None, {"acc": 1}, *SIGNED),
    )

    assert catalog.best(["digits"], "val_loss", "min").version == 1
    assert catalog.best(["digits"], "acc", "min").version == 3
    assert catalog.metric_names(["digits"], None) == ["acc", "val_loss"]
    (first, *_) = catalog.live("digits")
    assert repr(first.metrics) == repr({"acc": float("nan"), "val_loss": 0.5})


def test_a_later_metric_that_is_no_number_takes_the_number_away(run):
    catalog = run(LogEntry(2, None, None, {"val_loss": "broken"}, *SIGNED))

    assert catalog.best(["digits"], "val_loss", "min").version == 3


def test_damage_is_known_until_it_is_mended(run):
    catalog = run(DamageEntry(3, "a pack is short", *SIGNED))
    assert catalog.latest("digits", "checkpoint").version == 2
    assert [each[:2] for each in catalog.damaged(["digits"])] == [("digits", 3)]
    assert [each.intact for each in catalog.live("digits")] == [True, True, False]

    run(DamageEntry(3, None, *SIGNED))

    assert catalog.latest("digits", "checkpoint").version == 3
    assert catalog.damaged(["digits"]) == []


def test_a_note_is_of_its_version_and_a_child_is_no_fact_about_it(run):
    catalog = run(NoteEntry(2, "good", *SIGNED), ChildEntry(2, "other", UUID(int=5), *SIGNED))

    assert catalog.version("digits", 2).facts == VersionFacts(note="good")
    assert catalog.children("digits") == {2: [("other", UUID(int=5), 2)]}
    assert catalog.version("digits", 1).facts == VersionFacts()


def test_an_entry_about_a_version_that_comes_after_it_counts_once_that_is_there(storage, catalog):
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, RetireEntry({1: "old", 3: "early"}, *SIGNED))
    note(storage, "digits", 2, LogEntry(2, None, None, {"val_loss": 0}, *SIGNED))
    catalog.sync("digits")
    assert catalog.version_facts("digits", 1).retired.reason == "old"
    assert catalog.version_facts("digits", 2) is None

    for version in (2, 3):
        head = make_head("digits", version)
        catalog.add(commit(storage, head), head)

    assert catalog.best(["digits"], "val_loss", "min").version == 2
    assert catalog.version_facts("digits", 3).retired == Retired(START, "early", 1)


# ------------------------------------------------------------ what it costs


def statements(catalog, work):
    """Return how many statements, and rows of them, a sync takes."""
    said = []
    engine = catalog._opened()._engine

    def listen(_connection, _cursor, statement, parameters, _context, is_many):
        said.append((statement, len(parameters) if is_many else 1))

    event.listen(engine, "before_cursor_execute", listen)
    work()
    event.remove(engine, "before_cursor_execute", listen)
    return said


@pytest.mark.parametrize("length", [1, 300])
def test_an_entry_costs_the_same_however_long_the_journal_is(storage, catalog, length):
    commit_many(storage, "digits", {version: {"m": version} for version in range(1, 4)})
    for number in range(1, length + 1):
        note(storage, "digits", number, NoteEntry(1, str(number), *SIGNED))
    catalog.sync("digits")
    note(storage, "digits", length + 1, RetireEntry({2: "old"}, *SIGNED))

    said = statements(catalog, lambda: catalog.sync("digits"))

    assert not any("journal.entry" in statement and "SELECT" in statement for statement, _ in said)
    # The rows of the store and the run, which are there; the entry, the version, its metrics.
    assert sum(1 for statement, _ in said if not statement.startswith("SELECT")) == 5
    assert all(count == 1 for _, count in said)
