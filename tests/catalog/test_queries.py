from __future__ import annotations

import math
from contextlib import contextmanager
from datetime import timedelta

import pytest

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.queries import Reader
from ckptstore.catalog.ranking import Best, best, metric_names
from ckptstore.catalog.sync import Known
from ckptstore.format.facts import Facts
from ckptstore.format.layout import version_key
from tests.catalog.places import (
    INF,
    MINUS_INF,
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
    tag_entry,
    versions_of,
)


@pytest.fixture
def reader(storage, catalog):
    """What reads the rows of the catalog in one transaction."""

    @contextmanager
    def read():
        catalog.discover()
        with catalog._opened().reading() as connection:
            yield Reader(connection, catalog._key(), storage.url)

    return read


# ------------------------------------------------------------ best


@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([3, 1, 2], 2, 1),
        ([2.0, 1.0, 1, 2], 2, 1),
        ([NAN, 5, NAN], 2, 2),
        ([INF, 5, MINUS_INF], 3, 1),
        ([INF, NAN], 1, 1),
        ([{"$int": "9" * 30}, 1e29], 2, 1),
        ([{"$int": "9" * 400}, 1], 2, 1),
        ([-0.0, 0.0], 1, 1),
        ([True, "1", None, {"$int": "x"}, {"$list": [1]}, 7], 6, 6),
        ([NAN], None, None),
    ],
)
def test_best_ignores_nan_and_breaks_ties_toward_the_earlier(
    storage, catalog, values, lowest, highest
):
    commit_many(storage, "digits", {at: {"m": value} for at, value in enumerate(values, 1)})
    catalog.sync("digits")

    found = [catalog.best(["digits"], "m", mode) for mode in ("min", "max")]

    assert [None if best is None else best.version for best in found] == [lowest, highest]


def test_nan_is_null_and_infinities_are_themselves(storage, catalog):
    commit(storage, make_head("digits", 1, metrics={"a": NAN, "b": INF, "c": MINUS_INF, "d": 2}))
    catalog.sync("digits")

    assert {row[2]: row[4] for row in rows(catalog)["metrics"]} == {
        "a": None,
        "b": math.inf,
        "c": -math.inf,
        "d": 2.0,
    }


def test_best_of_several_runs_prefers_the_earlier_among_equals(storage, catalog):
    hour = timedelta(hours=1)
    commit(storage, make_head("a", 1, created_at=START + 3 * hour, metrics={"m": 1}))
    # Within a run the number counts, even if a clock went backwards.
    commit(storage, make_head("b", 1, created_at=START + 2 * hour, metrics={"m": 1}))
    commit(storage, make_head("b", 2, created_at=START, metrics={"m": 1}))
    commit(storage, make_head("d", 1, created_at=START + 2 * hour, metrics={"m": 1}))
    commit(storage, make_head("e", 1, created_at=START, metrics={"m": 2}))
    for path in "abde":
        catalog.sync(path)

    def best(*paths):
        found = catalog.best(paths, "m", "min")
        return found.path, found.version

    assert best("a", "b", "d", "e") == ("b", 1)
    assert best("d", "b") == ("b", 1)
    assert best("a", "d") == ("d", 1)
    assert best("e") == ("e", 1)


def test_best_looks_at_one_kind(storage, catalog):
    commit(storage, make_head("digits", 1, metrics={"m": 2, "only": 1}))
    commit(storage, make_head("digits", 2, kind="package", metrics={"m": 1, "other": 1}))
    catalog.sync("digits")

    assert catalog.best(["digits"], "m", "min").version == 1
    assert catalog.best(["digits"], "m", "min", kind="package").version == 2
    assert catalog.best(["digits"], "m", "min", kind=None).version == 2
    assert catalog.metric_names(["digits"], "checkpoint") == ["m", "only"]
    assert catalog.metric_names(["digits"], None) == ["m", "only", "other"]


def test_best_says_what_decided(storage, reader):
    commit_many(storage, "digits", {1: {"m": 4}, 2: {"m": 2}, 3: {"m": 2}, 4: {"m": NAN}})

    with reader() as read:
        assert best(read, ["digits"], "m", "min", kind="checkpoint") == Best(
            2.0, "2026-01-31T12:02:00.000000Z", "digits", 2
        )
        assert best(read, ["digits"], "M", "min", kind="checkpoint") is None


def test_best_passes_over_versions_of_no_kind(storage, reader):
    """Damaged ones have no metrics, but a row could be left of what they once were."""
    commit_many(storage, "digits", {1: {"m": 1}, 2: {"m": 2}})

    with reader() as read:
        read.connection.exec_driver_sql("UPDATE versions SET kind = 'damaged' WHERE version = 1")

        assert best(read, ["digits"], "m", "min", kind=None).version == 2
        assert best(read, ["digits"], "m", "min", kind="checkpoint").version == 2


def test_more_runs_than_a_statement_takes_are_compared(storage, catalog, monkeypatch):
    monkeypatch.setattr("ckptstore.catalog.queries.PATHS_AT_ONCE", 2)
    paths = [f"run{number}" for number in range(5)]
    for number, path in enumerate(paths):
        commit(
            storage,
            make_head(
                path, 1, created_at=START + timedelta(hours=number), metrics={"m": -number, path: 1}
            ),
        )

    assert catalog.discover() == paths
    assert catalog.best(paths, "m", "min").path == "run4"
    assert catalog.best(paths, "m", "max").path == "run0"
    assert catalog.metric_names(paths, None) == ["m", *paths]
    assert [record.path for record in catalog.history(paths)] == paths
    assert [record.path for record in catalog.history(paths, limit=3)] == paths[2:]


# ------------------------------------------------------------ newest, history


def test_newest_first_goes_through_all_pages(storage, catalog):
    for version in range(1, 51):
        kind = "package" if version % 10 == 0 else "checkpoint"
        commit(storage, make_head("digits", version, kind=kind))
    catalog.sync("digits")

    assert versions_of(catalog.newest_first("digits", None)) == list(range(50, 0, -1))
    assert versions_of(catalog.newest_first("digits", "package")) == [50, 40, 30, 20, 10]
    assert catalog.latest("digits", "checkpoint").version == 49


def test_newest_gives_a_page_below_a_number(storage, reader):
    for version in range(1, 8):
        commit(storage, make_head("digits", version))

    with reader() as read:
        assert versions_of(read.newest("digits", None, before=6, limit=3)) == [5, 4, 3]
        assert versions_of(read.newest("digits", None, before=1, limit=3)) == []


def test_history_ascends_and_a_limit_keeps_the_newest(storage, catalog):
    for version in (1, 2, 3):
        commit(storage, make_head("b", version))
        commit(storage, make_head("a", version, created_at=START + timedelta(hours=version)))
    storage.create(version_key("b", 4), b"torn")
    catalog.discover()

    def history(*paths, **options):
        return [(record.path, record.version) for record in catalog.history(paths, **options)]

    assert history("b", "a") == [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("b", 1),
        ("b", 2),
        ("b", 3),
        ("b", 4),
    ]
    assert history("b", limit=2) == [("b", 3), ("b", 4)]
    assert history("a", "b", limit=4) == [("a", 1), ("a", 2), ("a", 3), ("b", 3)]
    assert history("a", "b", limit=0) == []


def test_records_carry_their_tags_sorted(storage, reader):
    commit_many(storage, "digits", {1: {}, 2: {}})
    commit(storage, make_head("other", 1))
    for number, (tag, version) in enumerate([("b", 1), ("a", 1), ("prod", 2)], 1):
        note(storage, "digits", number, tag_entry(tag, version))

    with reader() as read:
        found = read.history(["digits", "other"], kind=None, limit=None)
        assert [record.tags for record in found] == [("a", "b"), ("prod",), ()]
        assert read.tagged("digits", "a").version == 1
        assert read.tagged("other", "a") is None
        assert read.facts("digits") == Facts(None, {"a": 1, "b": 1, "prod": 2})


# ------------------------------------------------------------ what is indexed


def test_known_says_what_follows_and_what_is_worth_another_look():
    storage = DictStorage("bucket://in-place")
    found_store(storage, in_place=True)
    commit(storage, make_head("digits", 1))
    storage.create(version_key("digits", 2), newer(2))
    storage.create(version_key("digits", 3), b"")
    storage.create("runs/digits/_journal/00000001.json", b"{")
    note(storage, "digits", 2, tag_entry("prod", 1))
    catalog = Catalog("sqlite://", storage)
    catalog.sync("digits")
    with catalog._opened().reading() as connection:
        read = Reader(connection, catalog._key(), storage.url)

        assert read.next_numbers("digits") == (4, 3)
        assert read.known("digits") == Known(
            4, 3, [(2, newer(2).partition(b"\n")[0].decode())], {3: None}, [1]
        )
        assert read.known("other") == Known(1, 1, [], {}, ())
    catalog.close()


def test_present_leaves_out_runs_without_anything(storage, reader):
    commit(storage, make_head("b", 1))
    note(storage, "a", 1, tag_entry("prod", 1))

    with reader() as read:
        assert read.present(["a", "b", "c"]) == ["a", "b"]
        assert read.present(["b"]) == ["b"]
        assert read.present([]) == []


def test_a_reader_sees_one_store_only(storage, reader):
    commit(storage, make_head("digits", 1, metrics={"m": 1}))
    note(storage, "digits", 1, tag_entry("prod", 1))

    with reader() as read:
        stranger = Reader(read.connection, "0" * 32, storage.url)

        assert stranger.next_numbers("digits") == (1, 1)
        assert stranger.present(["digits"]) == []
        assert stranger.run_name("digits") is None
        assert stranger.facts("digits") == Facts()
        assert stranger.version("digits", 1) is None
        assert stranger.tagged("digits", "prod") is None
        assert best(stranger, ["digits"], "m", "min", kind=None) is None
        assert metric_names(stranger, ["digits"], None) == []
        assert stranger.history(["digits"], kind=None, limit=None) == []
