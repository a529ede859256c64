"""What lies in a store's runs: which manifests and journal entries there are, and what they say.

Everything is read from the storage, past the catalog. Damage is written down and passed over, so
that one bad file hides nothing else.
"""

from __future__ import annotations

import errno
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
from ckptstore.format.journal import Entry, Place, TagEntry, changes_of, decode_entry, fold
from ckptstore.format.layout import (
    JOURNAL_FILE,
    VERSION_FILE,
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

OF_ONE_FILE = frozenset({errno.EIO, errno.ELOOP})
"""What fails for one file alone: a bad sector, a link that leads to itself."""
MOST_HOLES = 1000
"""More in one run is a file with a stray number, and not so many findings."""
BATCH = 16
"""Manifests that are asked for at once: 1 MiB of their beginnings."""
UNKNOWN_ENTRY = (
    "What it said is unknown (a tag, a metric, a retirement or an undelete). A training resumes "
    "and saves all the same, with a warning, and versions are loaded by their numbers; but nothing "
    "more can be recorded in this journal, what it decides (best, tags) raises, and nothing is "
    "collected. Bring that file back from a copy; without one, copy_to copies the run, with a "
    "warning, and what its journal says up to there"
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
    misplaced: set[int] = field(default_factory=set)
    """Those of the unreadable that are whole manifests of other versions."""
    void: set[int] = field(default_factory=set)
    """Those that were cut short in place: numbers that are spent, and no versions."""
    unknown: dict[int, str] = field(default_factory=dict)
    """Versions of which nobody knows here which data they name, and what their manifests are."""
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


class MisplacedError(IntegrityError):
    """A manifest is what was saved, and lies in another's place."""


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

    def run(self, path: str, only: int | None = None) -> Survey:
        """Read a run's journal and the heads of its manifests, or of version *only* alone."""
        # The journal first: what it is about was committed before, so it is there by now.
        entries = self._journal(path)
        files = self._storage.list_folder(versions_folder(path)).files
        numbers = numbered(files, VERSION_FILE)
        survey = Survey(path, path, last=max(numbers, default=0))
        survey.journal = entries
        survey.facts = _folded(entries)
        numbers = self._numbers(survey, numbers, version_key, self._hole)
        wanted = numbers if only is None else [number for number in numbers if number == only]
        for number, opened in self.opened(path, wanted):
            self._take(survey, number, opened)
        self._unreadable(survey)
        self._check_subjects(survey)
        return survey

    def _numbers(
        self,
        survey: Survey,
        listed: Sequence[int],
        key: Callable[[str, int], str],
        hole: Callable[[Survey, int, str], object],
    ) -> list[int]:
        """Return the numbers that are there; whatever a listing lacks is asked for by name."""
        last = max(listed, default=0)
        if last - len(listed) > MOST_HOLES:
            place = key(survey.path, last)
            message = (
                f"is there, and more than {MOST_HOLES} before it are not: was a file put there, or "
                "were most of them deleted? Move it away, or bring them back from a copy"
            )
            self._say("hole", "damage", survey.path, place, message)
            return list(listed)
        found, lacking = set(listed), sorted(set(range(1, last)) - set(listed))
        for some, starts in self._starts(lacking, lambda number: key(survey.path, number)):
            for number, start in zip(some, starts, strict=True):
                if start is None:
                    hole(survey, number, key(survey.path, number))
                else:
                    found.add(number)
        return sorted(found)

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
                if error.errno not in OF_ONE_FILE:
                    raise
                yield some, [self._start(key(number)) for number in some]

    def _start(self, key: str) -> bytes | IntegrityError | None:
        """Return a file's first bytes where one of several lies on a bad sector."""
        try:
            return self._storage.read_many([key], FIRST_READ_BYTES)[0]
        except StorageError as error:
            if error.errno not in OF_ONE_FILE:
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
            raise MisplacedError(
                f"{where} should be {path}@{number}, and is the manifest of {head.ref}"
            )
        return OpenManifest(self._storage, key, head, len(line), start)

    def _take(
        self, survey: Survey, number: int, opened: OpenManifest | CkptStoreError | None
    ) -> None:
        ref, key = f"{survey.path}@{number}", version_key(survey.path, number)
        if opened is None:
            message = "was cut short while it was written, in place: it is no version, and its "
            survey.void.add(number)
            self._say("void", "note", ref, key, message + "number is spent")
        elif isinstance(opened, NewerFormatError):
            survey.unknown[number] = "was made by a newer ckptstore"
            self._say("newer", "note", ref, key, str(opened))
        elif isinstance(opened, CkptStoreError):
            survey.unreadable[number] = str(opened)
            survey.unknown[number] = "can't be read"
            if isinstance(opened, MisplacedError):
                survey.misplaced.add(number)
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
            advice = (
                "put the right one in its place, from a copy; if the run's folder was renamed, "
                "give it its name again. It is not retired: it may belong somewhere else"
                if number in survey.misplaced
                else "bring that file back from a copy, or let verify(repair=True) retire it"
            )
            self._say(
                "manifest",
                "damage",
                ref,
                key,
                f"{damage}{tagged}. Nobody can load the version, and nothing is collected while "
                f"it is so: {advice}",
            )

    def _journal(self, path: str) -> dict[int, Entry | None]:
        files = self._storage.list_folder(journal_folder(path)).files
        listed = numbered(files, JOURNAL_FILE)
        numbers = self._numbers(Survey(path, path), listed, journal_key, self._journal_hole)
        entries: dict[int, Entry | None] = {}
        for some, starts in self._starts(numbers, lambda number: journal_key(path, number)):
            for number, start in zip(some, starts, strict=True):
                if start is not None:
                    entries[number] = self._entry(Place(path, number), start)
        self._check_writers(path, entries)
        return entries

    def _entry(self, place: Place, start: bytes | IntegrityError) -> Entry | None:
        key = journal_key(*place)
        try:
            if isinstance(start, IntegrityError):
                raise start
            data = start if len(start) < FIRST_READ_BYTES else self._storage.read(key)
            if not (self._in_place and is_torn(data)):
                return decode_entry(data, f"{self._storage.url}/{key}", place)
            message = "was cut short while it was written, in place: it is no entry"
            self._say("void", "note", place.path, key, message)
        except NewerFormatError as error:
            self._say("newer", "note", place.path, key, str(error))
        except IntegrityError as error:
            self._say("journal", "damage", place.path, key, f"{error}. {UNKNOWN_ENTRY}")
        return None

    def _check_writers(self, path: str, entries: dict[int, Entry | None]) -> None:
        """Notice an entry that lies there twice: each has a writer of its own."""
        first: dict[UUID, int] = {}
        for number, entry in sorted(entries.items()):
            if entry is not None and (known := first.setdefault(entry.writer, number)) != number:
                message = (
                    f"is the same entry as {known}: one of the two was put in another's place. "
                    f"{UNKNOWN_ENTRY}"
                )
                self._say("journal", "damage", path, journal_key(path, number), message)

    def _hole(self, survey: Survey, number: int, key: str) -> None:
        survey.unknown[number] = "is missing"
        self._say(
            "hole",
            "damage",
            f"{survey.name}@{number}",
            key,
            f"there is no manifest of version {number}, and a later one is there: it was deleted, "
            "or copied in part. Bring that file back from a copy; nobody can make it again. "
            "Without it no process begins to save into this run, and nothing is collected: copy "
            "the other versions into a new store with copy_to to go on",
        )

    def _journal_hole(self, survey: Survey, number: int, key: str) -> None:
        self._say(
            "hole",
            "damage",
            survey.path,
            key,
            f"there is no journal entry {number}, and a later one is there: it was deleted, or "
            f"copied in part. {UNKNOWN_ENTRY}",
        )

    def _check_subjects(self, survey: Survey) -> None:
        """Notice entries about versions that are not there: the newest ones may have been lost."""
        beyond: dict[int, int] = {}
        for number, entry in sorted(survey.journal.items()):
            for version in _subjects(number, entry):
                if version > survey.last:
                    beyond.setdefault(version, number)
        keys = [version_key(survey.path, version) for version in beyond]
        # A listing may lack what is there.
        starts = self._storage.read_many(keys, 1) if keys else []
        lost = [one for one, start in zip(beyond.items(), starts, strict=True) if start is None]
        for version, number in sorted(lost):
            survey.unknown[version] = "is missing"
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
