"""What retention decides on."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import event

from ckptstore.catalog.live import Descent, LiveVersion, SaveState, save_state
from ckptstore.errors import NewerFormatError
from ckptstore.format.journal import RetireEntry
from ckptstore.format.layout import version_key
from ckptstore.format.manifest import Parent
from tests.catalog.places import START, commit, make_head, newer, note, tag_entry

RETIRED = RetireEntry({1: "old"}, START, UUID(int=7))


def test_live_versions_are_told_without_their_heads(storage, catalog, monkeypatch):
    commit(storage, make_head("digits", 1))
    parent = Parent("Base", 7, UUID(int=7))
    commit(storage, make_head("digits", 2, kind="package", parent=parent, metrics={}))
    storage.create(version_key("digits", 3), b"torn")
    note(storage, "digits", 1, RETIRED)
    note(storage, "digits", 2, tag_entry("b", 2))
    note(storage, "digits", 3, tag_entry("a", 2))
    catalog.sync("digits")
    monkeypatch.setattr("ckptstore.catalog.queries.decode_head", None)

    assert catalog.live("digits") == [
        LiveVersion(
            2,
            "package",
            str(UUID(int=2)),
            2,
            START + timedelta(minutes=2),
            {},
            ("a", "b"),
            ("base", 7),
            intact=True,
        )
    ]


def test_what_this_process_found_damaged_is_not_intact(storage, catalog):
    commit(storage, make_head("digits", 1))
    catalog.sync("digits")
    catalog.pass_over(UUID(int=1))

    assert [each.intact for each in catalog.live("digits")] == [False]


def test_a_live_version_of_a_newer_ckptstore_is_refused_and_a_retired_one_is_not(storage, catalog):
    storage.create(version_key("digits", 1), newer(1))
    catalog.sync("digits")
    with pytest.raises(NewerFormatError):
        catalog.live("digits")

    note(storage, "digits", 1, RETIRED)
    catalog.sync("digits")

    assert catalog.live("digits") == []


def test_what_became_of_a_save(storage, catalog):
    for version in (1, 2):
        commit(storage, make_head("digits", version))
    note(storage, "digits", 1, RETIRED)
    catalog.sync("digits")

    assert catalog.save_state("digits", UUID(int=1)) == SaveState(1, is_live=False)
    assert catalog.save_state("digits", UUID(int=2)) == SaveState(2, is_live=True)
    assert catalog.save_state("digits", UUID(int=3)) is None


@pytest.mark.parametrize("catalog_url", ["sqlite://"])
def test_what_became_of_a_save_is_told_without_reading_the_runs_other_versions(storage, catalog):
    commit(storage, make_head("digits", 1))
    catalog.sync("digits")
    with catalog._opened().reading() as connection:
        asked = []
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        save_state(connection, catalog._key(), "digits", str(UUID(int=1)))
        ((statement, values),) = asked
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()

    assert "ix_versions_save_id (save_id=? AND store=? AND path=?)" in str(plan)


def test_what_a_version_comes_from_and_after_is_told_whether_live_or_not(
    storage, catalog, monkeypatch
):
    monkeypatch.setattr("ckptstore.catalog.live.AT_ONCE", 2)
    commit(storage, make_head("digits", 1))
    commit(storage, make_head("digits", 2, kind="package", parent=Parent("a", 1, UUID(int=71))))
    commit(storage, make_head("digits", 3, parent=Parent("digits", 1, UUID(int=1))))
    commit(storage, make_head("digits", 4, kind="package"))
    storage.create(version_key("digits", 5), b"torn")
    commit(storage, make_head("digits", 6))
    commit(storage, make_head("other", 5))
    note(storage, "digits", 1, RETIRED)
    catalog.sync("digits")
    catalog.sync("other")
    assert catalog.descent("digits", [1, 2, 3, 4, 5, 6]) == {
        1: Descent(None, None),
        2: Descent(str(UUID(int=71)), None),
        3: Descent(str(UUID(int=1)), 1),
        4: Descent(None, 2),
        5: Descent(None, None),
        6: Descent(None, 3),
    }
    assert catalog.descent("digits", []) == {}
