"""What made ``format-1-journal``: a golden store with every kind of journal entry of format 1.

Committed and never made again, as ``format-1`` is::

    python -m tests.data.make_format_1_journal tests/data/format-1-journal
"""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ckptstore.format.facts import Settings
from ckptstore.format.journal import (
    ChildEntry,
    DamageEntry,
    Entry,
    LogEntry,
    NoteEntry,
    RetireEntry,
    SettingsEntry,
    TagEntry,
    UndeleteEntry,
    encode_entry,
)
from ckptstore.format.layout import STORE_KEY, journal_key, version_key
from ckptstore.format.manifest import Head, encode_manifest
from ckptstore.format.store_facts import StoreFacts, encode_store
from ckptstore.storage.local import LocalStorage

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
STORE_ID = uuid.UUID("00000000-0000-4000-8000-000000000002")
VERSIONS = 5


def signed(number: int) -> tuple[datetime, uuid.UUID, str | None]:
    """Return when, under which UUID and by whom an entry was written."""
    by = None if number == 1 else "me@golden"
    return STARTED + timedelta(hours=number), uuid.UUID(int=number), by


def entries() -> list[Entry]:
    """Return the journal of ``digits``, in order."""
    made = [
        lambda *by: SettingsEntry(Settings("acc", "max", {"lr": 0.1}, {"last": 3}), *by),
        lambda *by: TagEntry("prod", 1, *by),
        lambda *by: TagEntry("prod", 3, *by),
        lambda *by: TagEntry("old", 1, *by),
        lambda *by: TagEntry("old", None, *by),
        lambda *by: LogEntry(3, None, None, {"test_acc": 0.5, "f1": {"$float": "nan"}}, *by),
        lambda *by: LogEntry(None, 9, 90, {"train_loss": 0.25}, *by),
        lambda *by: NoteEntry(3, "größer ☃", *by),
        lambda *by: RetireEntry({1: "not kept: last=3", 2: "not kept: last=3"}, *by),
        lambda *by: UndeleteEntry((2,), *by),
        lambda *by: DamageEntry(4, "a pack is cut short", *by),
        lambda *by: DamageEntry(5, "a pack is gone", *by),
        lambda *by: DamageEntry(5, None, *by),
        lambda *by: ChildEntry(3, "Fine/tuned", uuid.UUID(int=77), *by),
    ]
    return [entry(*signed(number)) for number, entry in enumerate(made, 1)]


def make(folder: Path) -> None:
    """Write the store: manifests without parts, as nothing but the journal is looked at."""
    storage = LocalStorage(folder)
    storage.prepare()
    storage.create(STORE_KEY, encode_store(StoreFacts(STORE_ID, 604_800, in_place=False)))
    for version in range(1, VERSIONS + 1):
        time = STARTED + timedelta(minutes=version)
        head = Head(
            save_id=uuid.UUID(int=version),
            run="digits",
            version=version,
            kind="checkpoint",
            started_at=time,
            created_at=time,
            epoch=version,
            metrics={"acc": version / 8},
        )
        storage.create(version_key("digits", version), encode_manifest(head, []))
    for number, entry in enumerate(entries(), 1):
        storage.create(journal_key("digits", number), encode_entry(entry))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
