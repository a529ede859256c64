"""What another thread of this process writes between two looks at one catalog."""

from __future__ import annotations

from ckptstore.catalog.index import Catalog
from ckptstore.format.journal import TagEntry
from ckptstore.saving.founding import found
from ckptstore.saving.journaling import append, set_tag
from ckptstore.storage.local import LocalStorage


def test_facts_are_no_older_than_the_number_they_are_decided_for(tmp_path, monkeypatch):
    storage = LocalStorage(tmp_path / "store")
    found(storage, single_writer=False)
    catalog = Catalog("sqlite://", storage)
    facts, seen = catalog.facts, []

    def facts_then_another(path):
        known = facts(path)
        monkeypatch.undo()
        append(storage, catalog, "a", set_tag("prod", 7))
        return known

    def decide(known, time, writer):
        seen.append(dict(known.tags))
        return TagEntry("prod", known.tags.get("prod", 0) + 1, time, writer)

    monkeypatch.setattr(catalog, "facts", facts_then_another)
    append(storage, catalog, "a", decide)

    assert seen[-1] == {"prod": 7}
    assert catalog.facts("a").tags == {"prod": 8}
