"""A worse ckptstore is caught, every operation is seen, and the reader complains of all it must."""

from __future__ import annotations

import os
import sqlite3

import pytest

from tests.prove.independent import Found, TornError, orphans, read_store
from tests.prove.kill.__main__ import strided
from tests.prove.kill.harness import (
    Point,
    check,
    distinct_points,
    every_point,
    rig,
    run,
)
from tests.prove.kill.operations import OPERATIONS
from tests.prove.kill.places import FolderPlace, write
from tests.prove.kill.points import AFTER, BEFORE, TORN, Points
from tests.prove.kill.points import Operation as Seen

SAVE = OPERATIONS["save, a new process"]


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    with rig("local", tmp_path_factory.mktemp("harness")) as made:
        yield made


def broken(killing, fault, wanted, operation=SAVE):
    """What killing shows at the points that are *wanted*, where ckptstore has a fault."""
    killing.fault = fault
    try:
        start = killing.start(operation)
        points = [
            each for each in distinct_points(killing.points(operation, start)) if wanted(each)
        ]
        assert points, "the fault took the operation away that it is about"
        return run(killing, operation, start, points).violations
    finally:
        killing.fault = None


def test_a_manifest_written_in_place_is_caught(killing):
    violations = broken(
        killing, "manifests_in_place", lambda point: point.when == TORN and "jsonl" in point.what
    )

    assert any("00000002.jsonl: " in each for each in violations)


def test_an_acknowledgement_before_the_commit_is_caught(killing):
    violations = broken(
        killing, "acknowledged_before_the_commit", lambda point: "-0.safetensors" in point.what
    )

    assert violations
    assert all("digits@2 was saved and is gone" in each for each in violations)


def test_a_manifest_before_its_packs_is_caught(killing):
    violations = broken(
        killing, "manifest_before_its_packs", lambda point: "00000002.jsonl" in point.what
    )

    assert violations
    assert all("00000002.jsonl" in each for each in violations)


def test_a_catalog_that_says_something_else_is_caught(killing):
    violations = broken(killing, "rows_forgotten", lambda point: "COMMIT" in point.what)

    assert any("made anew it has" in each for each in violations)


def test_a_point_that_is_not_reached_is_no_success(killing):
    result = run(killing, SAVE, killing.start(SAVE), [Point(100_000, AFTER, "nothing")])

    assert result.violations == ["after 100000 (nothing): it was to be killed and ended with 0"]


# ------------------------------------------------------------------------------------- the points


def test_points_stand_before_and_after_each_operation_and_within_a_write():
    seen = [Seen("stat a", changes=False), Seen("write", changes=True, tears=True)]

    assert [(each.number, each.when) for each in every_point(seen)] == [
        (0, BEFORE),
        (0, AFTER),
        (1, BEFORE),
        (1, TORN),
        (1, AFTER),
    ]
    assert [(each.number, each.when) for each in distinct_points(seen)] == [
        (0, BEFORE),
        (1, TORN),
        (1, AFTER),
    ]


def test_every_nth_point_is_taken_and_the_last():
    points = [Point(number, AFTER, "write") for number in range(6)]

    assert [each.number for each in strided(points, 2, 0)] == [0, 2, 4, 5]
    assert [each.number for each in strided(points, 2, 5)] == [1, 3, 5]
    assert strided(points, 1, 3) == points


def in_a_child(work):
    """Run *work* in a fork and return what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, "\n".join(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said.split("\n")


def test_files_and_statements_below_the_folder_are_counted_and_others_not(tmp_path):
    def work():
        points = Points()
        points.install(str(tmp_path))
        file = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
        os.write(file, b"data")
        os.close(file)
        (tmp_path / "b").mkdir()
        os.stat("/")  # noqa: PTH116 - what is counted are the calls of os
        connection = sqlite3.connect(tmp_path / "c")
        connection.execute("CREATE TABLE t (x)")
        return [each.name for each in points.seen]

    assert in_a_child(work) == [
        "open a",
        "write a",
        "close a",
        "mkdir b",
        "sql connect",
        "sql CREATE TABLE t",
    ]


def test_a_change_that_goes_past_the_seams_is_noted(tmp_path):
    def work():
        points = Points()
        points.install(str(tmp_path))
        with open(tmp_path / "a", "w"):  # noqa: PTH123 - the builtin is what goes past os
            pass
        return points.unseen

    assert in_a_child(work) == [f"open {tmp_path / 'a'}"]


# ------------------------------------------------------------------------------------ the readers


@pytest.fixture(scope="module")
def files(killing):
    """A store of two versions and a tag."""
    return killing.start(OPERATIONS["tag"]).store


@pytest.fixture
def store(tmp_path, files):
    write(tmp_path / "store", files)
    return tmp_path / "store"


def test_a_whole_store_is_read(store):
    found = read_store(store)

    assert list(found.heads) == list(found.states) == [("digits", 1), ("digits", 2)]
    assert found.tag("digits", "prod") == 1
    assert orphans(store, found) == []


@pytest.mark.parametrize("length", [0, 10, -1])
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("_versions", "_versions"),
        ("_journal", "_journal"),
        ("packs", "_versions"),
        ("ckptstore.json", "ckptstore.json"),
    ],
)
def test_a_torn_file_is_found(store, kind, named, length):
    path = max(path for path in store.rglob("*") if path.is_file() and kind in str(path))
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(TornError, match=named):
        read_store(store)


@pytest.mark.parametrize("kind", ["_versions", "_journal"])
def test_a_hole_is_found(store, kind):
    min((store / "runs" / "digits" / kind).iterdir()).unlink()

    with pytest.raises(TornError, match="holes"):
        read_store(store)


def test_what_nobody_names_is_found(store):
    stray = "packs/aa/01a20d4a-0aae-7350-aa1b-ed6268b3faaa-0.safetensors"
    write(store, {stray: b"", "runs/digits/_versions/.tmp-0011": b"", "clock/1": b""})

    assert orphans(store, read_store(store)) == [
        "clock/1",
        stray,
        "runs/digits/_versions/.tmp-0011",
    ]


def test_the_temporary_name_that_a_manifest_kept_is_no_orphan(store):
    """Whoever gave it its name was killed before it could remove the other."""
    manifest = store / "runs" / "digits" / "_versions" / "00000001.jsonl"
    manifest.with_name(".tmp-0011").hardlink_to(manifest)
    assert orphans(store, read_store(store)) == []
    manifest.with_name(".tmp-0012").write_bytes(manifest.read_bytes())
    assert orphans(store, read_store(store)) == ["runs/digits/_versions/.tmp-0012"]


def test_what_was_acknowledged_is_held_against_what_is_there(store):
    found = read_store(store)
    check(found, [("version", "digits", 1, 1.0), ("tag", "digits", "prod", 1)], settled=True)

    for broken_promise in (
        ("version", "digits", 3, 1.0),
        ("version", "digits", 1, 2.0),
        ("tag", "digits", "prod", 2),
        ("metric", "digits", 1, "test_acc", 0.5),
        ("retired", "digits", 1),
        ("live", "digits", 1),
    ):
        with pytest.raises(AssertionError):
            check(found, [broken_promise], settled=False)


def test_the_last_word_on_a_tag_counts_once_nothing_is_under_way():
    entries = [{"kind": "tag", "tag": "prod", "version": number} for number in (1, 2)]
    found = Found(journals={"digits": entries})
    check(found, [("tag", "digits", "prod", 1)], settled=False)

    with pytest.raises(AssertionError, match="last word"):
        check(found, [("tag", "digits", "prod", 1)], settled=True)


def test_a_place_holds_what_it_is_filled_with_and_nothing_else(tmp_path):
    place = FolderPlace(tmp_path / "store")
    place.fill({"a/b": b"1", "c": b"2"})
    place.fill({"a/d": b"3"})

    assert place.files() == {"a/d": b"3"}
