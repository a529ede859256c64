"""What became known later, told again in the journal of the run's copy.

An entry that is told again keeps its time, who wrote it and its ``writer``: by that UUID it is
known again, so nothing is told twice, not even back to where it came from. What the other store
decided itself stays: its own tag, note or settings are left, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from ckptstore.catalog.index import Catalog
from ckptstore.errors import NotAStoreError
from ckptstore.format.facts import Facts
from ckptstore.format.journal import Entry, LogEntry, NoteEntry, SettingsEntry, TagEntry
from ckptstore.saving.run_writer import RunWriter

Told = SettingsEntry | TagEntry | LogEntry | NoteEntry
KINDS = ("settings", "tag", "log", "note")


@dataclass
class Retold:
    """What came of it."""

    entries: int = 0
    left: list[str] = field(default_factory=list)
    """What was left as the other store has it, one sentence each."""


def retell(
    source: Catalog,
    path: str,
    target: Catalog,
    writer: RunWriter,
    versions: Mapping[int, int],
    *,
    is_whole: bool,
) -> Retold:
    """Bring the later facts about copied versions along, and the run's settings.

    Of tags, notes and settings it is the last word that counts; metrics are added one entry after
    the other.

    Args:
        source: Knows the run's journal.
        path: The run's path there.
        target: The other store's catalog.
        writer: The run in the other store.
        versions: The numbers of the copied versions there, by their numbers here.
        is_whole: Whether the whole run is copied: then epochs without weights come along too.

    Raises:
        IntegrityError: A journal is damaged.
        StorageError: A storage failed; a rerun goes on from there.
    """
    entries = [entry for _, entry in source.journal(path, KINDS)]
    known = _Known(target, writer, {entry.writer for entry in entries})
    retold = Retold()
    for entry in _last_words(entries):
        moved = _moved(entry, versions, is_whole=is_whole)
        if moved is not None and not known.has(moved):
            decision = _Decision(moved, known, f"{writer.run}@", retold.left)
            retold.entries += writer.append(decision.decide) is not None
    return retold


def _last_words(entries: Iterable[Entry]) -> list[Told]:
    """Return what counts, in the journal's order: of each subject the last, of metrics all."""
    last: dict[object, Told] = {}
    for entry in entries:
        if isinstance(entry, Told):
            subject = _subject(entry)
            last.pop(subject, None)
            last[subject] = entry
    return list(last.values())


def _subject(entry: Told) -> object:
    """Return what an entry is about: a later one about the same takes its place."""
    match entry:
        case SettingsEntry():
            return "settings"
        case TagEntry(tag):
            return ("tag", tag)
        case NoteEntry(version):
            return ("note", version)
        case LogEntry():
            return entry.writer


def _moved(entry: Told, versions: Mapping[int, int], *, is_whole: bool) -> Told | None:
    """Return an entry as it reads in the other store, None if it is not about what was copied."""
    if isinstance(entry, SettingsEntry):
        return entry
    if isinstance(entry, LogEntry) and entry.version is None:
        return entry if is_whole else None
    if isinstance(entry, TagEntry) and entry.version is None:
        return entry
    version = versions.get(entry.version or 0)
    return None if version is None else replace(entry, version=version)


class _Known:
    """The other store's journal, as far as it matters here; kept up with as it grows."""

    def __init__(self, catalog: Catalog, writer: RunWriter, ours: set[UUID]) -> None:
        self._catalog = catalog
        self._path = writer.path
        self._ours = ours
        self._writers: set[UUID] = set()
        self._last: dict[object, Told] = {}
        self._seen = 0
        self.look()

    def look(self) -> None:
        """Read what was indexed since."""
        try:
            entries = self._catalog.journal(self._path, KINDS, self._seen)
        except NotAStoreError:
            return  # nothing was copied into it yet
        for number, entry in entries:
            self._seen = number
            self._writers.add(entry.writer)
            if isinstance(entry, Told):
                self._last[_subject(entry)] = entry

    def has(self, entry: Told) -> bool:
        """Say whether an entry was told already."""
        return entry.writer in self._writers

    def own(self, entry: Told) -> Told | None:
        """Return the other store's own last word on an entry's subject, None if it has none."""
        last = self._last.get(_subject(entry))
        return None if last is None or last.writer in self._ours else last


@dataclass(frozen=True)
class _Decision:
    """Whether one entry is told, decided against the other store's journal as it stands."""

    entry: Told
    known: _Known
    run: str
    left: list[str]

    def decide(self, facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        del time, writer  # it keeps its own
        self.known.look()
        if self.known.has(self.entry) or self._is_so(facts):
            return None
        why = self._why_not(facts)
        if why is None:
            return self.entry
        if why not in self.left:
            self.left.append(why)
        return None

    def _is_so(self, facts: Facts) -> bool:
        """Say whether the other store says the same already."""
        match self.entry:
            case SettingsEntry(settings):
                return facts.settings == settings
            case TagEntry(tag, version):
                return facts.tags.get(tag) == version
            case NoteEntry(version, text):
                known = facts.versions.get(version)
                return known is not None and known.note == text
            case LogEntry():
                return False

    def _why_not(self, facts: Facts) -> str | None:
        """Say why an entry is not told, None if it is."""
        own = self.known.own(self.entry)
        match self.entry, own:
            case SettingsEntry(), SettingsEntry():
                return f"run {self.run[:-1]!r} keeps its own settings"
            case TagEntry(tag), TagEntry():
                at = facts.tags.get(tag)
                where = f"stays on {self.run}{at}" if at is not None else "stays removed"
                return f"tag {tag!r} of run {self.run[:-1]!r} {where}, where it was put there"
            case NoteEntry(version), NoteEntry():
                return f"{self.run}{version} keeps its own note"
        if isinstance(self.entry, TagEntry) and self.entry.version is not None:
            known = facts.versions.get(self.entry.version)
            if known is not None and known.retired is not None:
                ref = f"{self.run}{self.entry.version}"
                return f"tag {self.entry.tag!r} was not set, as {ref} is retired there"
        return None
