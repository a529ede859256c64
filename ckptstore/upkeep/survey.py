"""What lies in a store's runs: which manifests and journal entries there are, and what they say.

Everything is read from the storage, past the catalog. Damage is written down and passed over, so
that one bad file hides nothing else.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ckptstore.errors import (
    CkptStoreError,
    IntegrityError,
    NewerFormatError,
    StorageError,
)
from ckptstore.format.facts import Facts, VersionFacts
from ckptstore.format.journal import Entry, TagEntry, changes_of, decode_entry, fold
from ckptstore.format.layout import (
    JOURNAL_FILE,
    JOURNAL_FOLDER,
    RUNS_FOLDER,
    VERSION_FILE,
    VERSIONS_FOLDER,
    is_run_path,
    journal_folder,
    journal_key,
    numbered,
    run_path,
    version_key,
    versions_folder,
)
from ckptstore.format.manifest import File, Pack, decode_head, head_line
from ckptstore.format.sealed import is_torn
from ckptstore.manifest import FIRST_READ_BYTES, OpenManifest
from ckptstore.storage.base import Storage
from ckptstore.upkeep.findings import Finding, Kind, Severity

BATCH = 16
"""Manifests that are asked for at once: 1 MiB of their beginnings."""
PLACE = re.compile(
    rf"{RUNS_FOLDER}/(.+)/(?:{VERSIONS_FOLDER}/{VERSION_FILE.pattern}"
    rf"|{JOURNAL_FOLDER}/{JOURNAL_FILE.pattern})"
)


@dataclass
class Surveyed:
    """A version: what its head names."""

    ref: str
    path: str
    number: int
    save_id: UUID
    packs: Sequence[Pack]
    files: Sequence[File]


@dataclass
class Survey:
    """What is known of one run."""

    path: str
    name: str
    """As its first readable manifest spells it; the path where there is none."""
    last: int = 0
    """The highest number of a manifest that is there, readable or not."""
    versions: dict[int, Surveyed] = field(default_factory=dict)
    """Those whose heads are readable."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Those whose heads are damaged, and how."""
    facts: Facts = field(default_factory=Facts)
    """What the readable part of its journal adds up to."""
    journal: dict[int, Entry | None] = field(default_factory=dict)
    """Its journal entries; None where one can't be read or is void."""

    def of(self, number: int) -> VersionFacts:
        """Return what the journal says of a version."""
        return self.facts.versions.get(number, VersionFacts())

    def is_retired(self, number: int) -> bool:
        """Say whether a version is retired."""
        return self.of(number).retired is not None


class Surveyor:
    """Reads runs, and writes down what is wrong with them.

    Args:
        storage: Where the store is.
        in_place: Whether a file without its digest may be one that was interrupted.
        note: Takes each finding.
    """

    def __init__(
        self, storage: Storage, *, in_place: bool, note: Callable[[Finding], object]
    ) -> None:
        self._storage = storage
        self._in_place = in_place
        self._note = note

    def paths(self) -> list[str]:
        """Return the paths of all runs, sorted; whatever else lies below ``runs`` is noted."""
        found = set()
        for stored in self._storage.walk(RUNS_FOLDER):
            match = PLACE.fullmatch(stored.key)
            if match and is_run_path(match[1]) and int(match[2] or match[3]) > 0:
                found.add(match[1])
            else:
                self._say(
                    "unknown",
                    "note",
                    None,
                    stored.key,
                    "is no manifest or journal entry by its name; ckptstore leaves it alone",
                )
        return sorted(found)

    def run(self, path: str, only: int | None = None) -> Survey:
        """Read a run's journal and the heads of its manifests, or of version *only* alone."""
        # The journal first: what it is about was committed before, so it is there by now.
        entries = self._journal(path)
        files = self._storage.list_folder(versions_folder(path)).files
        numbers = numbered(files, VERSION_FILE)
        survey = Survey(path, path, last=max(numbers, default=0))
        survey.journal = entries
        survey.facts = _folded(entries)
        for number in sorted(set(range(1, survey.last)) - set(numbers)):
            self._hole(survey, number, version_key(path, number), "manifest of version")
        wanted = numbers if only is None else [number for number in numbers if number == only]
        for number, opened in self.opened(path, wanted):
            self._take(survey, number, opened)
        self._unreadable(survey)
        self._check_subjects(survey)
        return survey

    def opened(
        self, path: str, numbers: Sequence[int]
    ) -> Iterator[tuple[int, OpenManifest | CkptStoreError | None]]:
        """Yield manifests in order, or why one can't be read; None where it is void."""
        for some, starts in self._starts(numbers, lambda number: version_key(path, number)):
            for number, start in zip(some, starts, strict=True):
                if isinstance(start, CkptStoreError):
                    yield number, start
                elif start is not None:
                    try:
                        opened = self._open(path, number, start)
                    except (IntegrityError, NewerFormatError) as error:
                        yield number, error
                    else:
                        yield number, opened

    def facts(self, path: str) -> Facts:
        """Return what a run's journal adds up to right now; damage was noted before."""
        silent = Surveyor(self._storage, in_place=self._in_place, note=lambda _: None)
        return _folded(silent._journal(path))

    def _starts(
        self, numbers: Sequence[int], key: Callable[[int], str]
    ) -> Iterator[tuple[Sequence[int], Sequence[bytes | IntegrityError | None]]]:
        """Yield the first bytes of numbered files, some at a time; None where one is gone."""
        for at in range(0, len(numbers), BATCH):
            some = numbers[at : at + BATCH]
            try:
                yield some, self._storage.read_many([key(n) for n in some], FIRST_READ_BYTES)
            except StorageError as error:
                if error.errno != errno.EIO:
                    raise
                yield some, [self._start(key(number)) for number in some]

    def _start(self, key: str) -> bytes | IntegrityError | None:
        """Return a file's first bytes where one of several lies on a bad sector."""
        try:
            return self._storage.read_many([key], FIRST_READ_BYTES)[0]
        except StorageError as error:
            if error.errno != errno.EIO:
                raise
            return IntegrityError(f"{self._storage.url}/{key} can't be read: {error}")

    def _open(self, path: str, number: int, start: bytes) -> OpenManifest | None:
        """Return a manifest, None where it is void."""
        key = version_key(path, number)
        where, length = f"{self._storage.url}/{key}", FIRST_READ_BYTES
        while (line := head_line(start, where)) is None:
            if len(start) < length:
                if self._in_place:
                    return None
                raise IntegrityError(f"{where} is cut short: its head has no digest line")
            length *= 8
            start = self._storage.read_start(key, length)
        head = decode_head(line, where)
        if run_path(head.run) != path or head.version != number:
            raise IntegrityError(
                f"{where} should be {path}@{number}, and is the manifest of {head.ref}"
            )
        return OpenManifest(self._storage, key, head, len(line), start)

    def _take(
        self, survey: Survey, number: int, opened: OpenManifest | CkptStoreError | None
    ) -> None:
        ref, key = f"{survey.path}@{number}", version_key(survey.path, number)
        if opened is None:
            message = "was cut short while it was written, in place: it is no version, and its "
            self._say("void", "note", ref, key, message + "number is spent")
        elif isinstance(opened, NewerFormatError):
            self._say("newer", "note", ref, key, str(opened))
        elif isinstance(opened, CkptStoreError):
            survey.unreadable[number] = str(opened)
        else:
            head = opened.head
            survey.name = head.run if survey.name == survey.path else survey.name
            survey.versions[number] = Surveyed(
                head.ref, survey.path, number, head.save_id, head.packs, head.files
            )

    def _unreadable(self, survey: Survey) -> None:
        for number, damage in survey.unreadable.items():
            tags = [tag for tag, version in survey.facts.tags.items() if version == number]
            tagged = f"; the tags {', '.join(sorted(tags))} point at it" if tags else ""
            ref, key = f"{survey.name}@{number}", version_key(survey.path, number)
            if survey.is_retired(number):
                self._say("manifest", "note", ref, key, f"{damage}; the version is retired")
                continue
            self._say(
                "manifest",
                "damage",
                ref,
                key,
                f"{damage}{tagged}. Nobody can load the version, and nothing is collected while "
                "it is so: bring that file back from a copy, or let verify(repair=True) retire it",
            )

    def _journal(self, path: str) -> dict[int, Entry | None]:
        files = self._storage.list_folder(journal_folder(path)).files
        numbers = numbered(files, JOURNAL_FILE)
        entries: dict[int, Entry | None] = {}
        for number in sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
            self._hole(Survey(path, path), number, journal_key(path, number), "journal entry")
        for some, starts in self._starts(numbers, lambda number: journal_key(path, number)):
            for number, start in zip(some, starts, strict=True):
                if start is not None:
                    entries[number] = self._entry(path, journal_key(path, number), start)
        return entries

    def _entry(self, path: str, key: str, start: bytes | IntegrityError) -> Entry | None:
        try:
            if isinstance(start, IntegrityError):
                raise start
            data = start if len(start) < FIRST_READ_BYTES else self._storage.read(key)
            if not (self._in_place and is_torn(data)):
                return decode_entry(data, f"{self._storage.url}/{key}")
            message = "was cut short while it was written, in place: it is no entry"
            self._say("void", "note", path, key, message)
        except NewerFormatError as error:
            self._say("newer", "note", path, key, str(error))
        except IntegrityError as error:
            self._say(
                "journal",
                "damage",
                path,
                key,
                f"{error}. What it said is unknown (a tag, a metric, a retirement or an undelete), "
                "and no process can write to the run or read its journal from the beginning: bring "
                "that file back from a copy",
            )
        return None

    def _hole(self, survey: Survey, number: int, key: str, what: str) -> None:
        self._say(
            "hole",
            "damage",
            f"{survey.name}@{number}" if what.endswith("version") else survey.path,
            key,
            f"there is no {what} {number}, and a later one is there: it was deleted, or copied in "
            "part. Bring that file back from a copy; nobody can make it again. Without it no "
            "process begins to write to this run, and nothing is collected: copy the other "
            "versions into a new store with copy_to to go on",
        )

    def _check_subjects(self, survey: Survey) -> None:
        """Notice entries about versions that are not there: the newest ones may have been lost."""
        beyond: dict[int, int] = {}
        for number, entry in sorted(survey.journal.items()):
            for version in _subjects(number, entry):
                if version > survey.last:
                    beyond.setdefault(version, number)
        for version, number in sorted(beyond.items()):
            self._say(
                "hole",
                "damage",
                f"{survey.name}@{version}",
                version_key(survey.path, version),
                f"journal entry {number} is about version {version}, and the last one there is "
                f"{survey.last}: newer versions were deleted or not copied. Bring them back from a "
                "copy",
            )

    def _say(
        self, kind: Kind, severity: Severity, ref: str | None, key: str | None, message: str
    ) -> None:
        self._note(Finding(kind, severity, ref, key, message))


def _folded(entries: dict[int, Entry | None]) -> Facts:
    return fold(
        Facts(), [(number, entry) for number, entry in sorted(entries.items()) if entry is not None]
    )


def _subjects(number: int, entry: Entry | None) -> set[int]:
    if entry is None:
        return set()
    if isinstance(entry, TagEntry):
        return set() if entry.version is None else {entry.version}
    return set(changes_of(number, entry))
