"""What a journal says beside its versions' rows."""

from __future__ import annotations

from uuid import UUID

from ckptstore.catalog.later import Child, TagMove
from ckptstore.format.journal import ChildEntry, LogEntry, TagEntry
from tests.catalog.places import START, commit, make_head, note

SIGNED = (START, UUID(int=7), "me@here")


def noted(storage, catalog, *entries):
    for number, entry in enumerate(entries, 1):
        note(storage, "digits", number, entry)
    catalog.sync("digits")


def test_a_tags_moves_are_told_in_order(storage, catalog):
    moves = [("prod", 1), ("test", 1), ("prod", 2), ("prod", None), ("prod", 1)]
    noted(storage, catalog, *(TagEntry(tag, version, *SIGNED) for tag, version in moves))

    assert catalog.tag_history("digits", "prod") == [
        TagMove("prod", 1, None, START, "me@here"),
        TagMove("prod", 2, 1, START, "me@here"),
        TagMove("prod", None, 2, START, "me@here"),
        TagMove("prod", 1, None, START, "me@here"),
    ]
    assert [move.tag for move in catalog.tag_history("digits")] == [tag for tag, _ in moves]


def test_epochs_without_weights_are_told_and_metrics_of_versions_are_not(storage, catalog):
    epoch = LogEntry(None, 3, None, {"train_loss": 0.5}, *SIGNED)
    noted(storage, catalog, LogEntry(1, None, None, {"acc": 1}, *SIGNED), epoch)

    assert catalog.logged(["digits"]) == [("digits", epoch)]


def test_children_are_listed_by_their_parent(storage, catalog):
    entries = [ChildEntry(2, run, UUID(int=5), *SIGNED) for run in ("a", "b")]
    noted(storage, catalog, *entries)

    assert catalog.children("digits") == {
        2: [Child("a", UUID(int=5), 1), Child("b", UUID(int=5), 2)]
    }


def test_what_is_indexed_is_counted_run_by_run(storage, catalog):
    commit(storage, make_head("digits", 1))
    commit(storage, make_head("other", 1))
    noted(storage, catalog, TagEntry("prod", 1, *SIGNED), TagEntry("prod", None, *SIGNED))
    catalog.sync("other")

    assert catalog.indexed_counts() == {"digits": (1, 2), "other": (1, 0)}
