"""Reading what is new in a run's folder: the next numbers, until there is none.

Nothing is listed: numbers have no holes, so asking for the next one costs a single request and
finds whatever there is. What is found is handed on in batches, in order, so that version n is
never indexed before n-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from ckptstore.catalog.rows import Batch, JournalEntry, Version, damaged, read_head
from ckptstore.errors import CkptStoreError, IntegrityError, JournalDamagedError
from ckptstore.format.journal import Place, decode_entry
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
    version_key,
    versions_folder,
)
from ckptstore.format.manifest import head_line
from ckptstore.format.sealed import is_torn
from ckptstore.storage.base import Storage

# Holds the head of nearly every manifest, and is one small request.
START_BYTES = 32 * 1024
GROWTH = 4
LARGEST_BATCH = 64
TRANSACTION = 512
"""So many rows are indexed at once: a transaction takes as long as twenty of them."""
ADVICE = (
    "restore that file from a copy, or delete it and let verify(repair=True) write it again from "
    "this machine's catalog"
)


@dataclass(frozen=True)
class Known:
    """What of a run is indexed already."""

    next_version: int = 1
    next_entry: int = 1
    newer: Sequence[tuple[int, str]] = ()
    """Versions made by a newer ckptstore, with their first lines: this one may know better."""
    unread: Mapping[int, str | None] = field(default_factory=dict)
    """Torn manifests (None), which whoever was writing them may have finished since, and damaged
    ones with what is wrong: they may have been brought back from a copy."""
    void_entries: Sequence[int] = ()
    last_head: str | None = None
    """The first line of the last version indexed, None where that has none."""

    def is_last(self, start: bytes) -> bool:
        """Say whether a manifest that begins so is that of the last version indexed."""
        line = (self.last_head or "").encode()[:START_BYTES]
        return start[: len(line)] == line


class RunReader:
    """Reads the manifests and the journal of one run.

    Args:
        storage: Where they are.
        path: The run's path.
        in_place: Whether a file without its digest may be one that was interrupted or is still
            being written, because the storage can't create whole files.
    """

    def __init__(self, storage: Storage, path: str, *, in_place: bool) -> None:
        self._storage = storage
        self._path = path
        self._in_place = in_place
        self._broken: JournalDamagedError | None = None
        self._up_to = 0

    def is_there(self, known: Known) -> bool:
        """Say whether the last version indexed is still the one that lies in the storage.

        Manifests never change; but a run can be deleted, rolled back or put in another's place.
        """
        if known.last_head is None:
            return True
        length = min(START_BYTES, len(known.last_head.encode()))
        key = version_key(self._path, known.next_version - 1)
        start = self._storage.read_many([key], length)[0]
        return start is not None and known.is_last(start)

    def batches(self, known: Known, *, looks_far: bool = False, up_to: int = 0) -> Iterator[Batch]:
        """Yield what is not known yet, in order; nothing if nothing is new.

        An entry comes no earlier than the versions it says something of.

        Args:
            known: What is indexed already.
            looks_far: Ask for many numbers at once from the start, as a hole was found before.
            up_to: A version that is known to be there: those before it that are not are missing.

        Raises:
            JournalDamagedError: A journal entry is damaged or missing. All versions, and the
                entries before it, have been yielded by then.
            NewerFormatError: A journal entry was made by a newer ckptstore.
            StorageError: The storage failed.
        """
        last, entry, size = (
            known.next_version - 1,
            known.next_entry,
            LARGEST_BATCH if looks_far else 1,
        )
        self._broken, self._up_to = None, up_to
        batch = self._settled(known)
        held: list[JournalEntry] = []
        versions_end = entries_end = looked_again = False
        while not (versions_end and entries_end):
            versions = [] if versions_end else list(range(last + 1, last + 1 + size))
            entries = [] if entries_end else list(range(entry, entry + size))
            starts = self._starts(versions, entries)
            found = self._versions(versions, starts[: len(versions)])
            noted = self._entries(entries, starts[len(versions) :])
            versions_end, last = len(found) < size, last + len(found)
            entries_end, entry = len(noted) < size, entry + len(noted)
            held += noted
            ready = list(takewhile(lambda one: max(one.changed, default=0) <= last, held))  # noqa: B023 - used at once
            if len(ready) < len(held) and versions_end and entries_end:
                # It was committed after the last look, or its manifest was never brought here.
                versions_end, ready = looked_again, held if looked_again else ready
                looked_again = True
            held = held[len(ready) :]
            batch = Batch([*batch.versions, *found], [*batch.entries, *ready])
            if batch.versions or batch.entries:
                yield batch
            batch = Batch()
            size = min(size * GROWTH, LARGEST_BATCH)
        if self._broken is not None:
            raise self._broken

    def _settled(self, known: Known) -> Batch:
        """Look again at what was not settled; return only what is something else by now."""
        promoted = [
            read_head(line.encode(), self._path, number, self._where_version(number))
            for number, line in known.newer
        ]
        entries = self._entries(known.void_entries, self._starts([], known.void_entries))
        return Batch(
            [
                *(version for version in promoted if version.kind != "newer"),
                *self._brought_back(known),
            ],
            [entry for entry in entries if entry.entry is not None],
        )

    def _brought_back(self, known: Known) -> Iterator[Version]:
        """Yield the manifests that could not be read, where they are something else by now."""
        numbers = sorted(known.unread)
        for at in range(0, len(numbers), LARGEST_BATCH):
            some = numbers[at : at + LARGEST_BATCH]
            for number, start in zip(some, self._starts(some, []), strict=True):
                if start is not None:
                    found = self._version(number, start)
                elif number < known.next_version - 1:
                    found = self._missing(number)
                else:
                    continue  # its number is spent, whoever took the file away
                damage = None if found.kind == "void" else found.columns.get("damage", "")
                if damage != known.unread[number]:
                    yield found

    def _missing(self, number: int) -> Version:
        where = self._where_version(number)
        return damaged(number, f"{where} is missing, and later versions exist")

    def _starts(self, versions: Sequence[int], entries: Sequence[int]) -> list[bytes | None]:
        keys = [version_key(self._path, number) for number in versions]
        keys += [journal_key(self._path, number) for number in entries]
        return self._storage.read_many(keys, START_BYTES) if keys else []

    def _versions(self, numbers: Sequence[int], starts: Sequence[bytes | None]) -> list[Version]:
        """Return the versions up to the last that is there."""
        found = []
        last = max(self._up_to, self._last(numbers, starts))
        for number, start in zip(numbers, starts, strict=True):
            if start is None and number < last:
                # It was created after the others of this batch were asked for, or it is gone.
                start = self._storage.read_many([version_key(self._path, number)], START_BYTES)[0]  # noqa: PLW2901 - asked for again
                if start is None:
                    found.append(self._missing(number))
                    continue
            if start is None:
                break
            found.append(self._version(number, start))
        return found

    def _version(self, number: int, start: bytes) -> Version:
        where = self._where_version(number)
        try:
            line = self._whole_head(version_key(self._path, number), start, where)
        except IntegrityError as error:
            return damaged(number, str(error))
        if line is not None:
            return read_head(line, self._path, number, where)
        if self._in_place:
            return Version(number, "void")
        return damaged(number, f"{where}: it was cut short, its head has no digest")

    def _whole_head(self, key: str, start: bytes, where: str) -> bytes | None:
        """Return the head's line, or None where the file ends before its digest."""
        length = START_BYTES
        while (line := head_line(start, where)) is None and len(start) >= length:
            length *= 8
            start = self._storage.read_start(key, length)
        return line

    def _entries(
        self, numbers: Sequence[int], starts: Sequence[bytes | None]
    ) -> list[JournalEntry]:
        """Return the journal entries up to the last that is there, or the first that is broken."""
        found: list[JournalEntry] = []
        for number, start in zip(numbers, starts, strict=True):
            key = journal_key(self._path, number)
            if start is None and number < self._last(numbers, starts):
                start = self._storage.read_many([key], START_BYTES)[0]  # noqa: PLW2901 - asked for again
                if start is None:
                    self._broken = JournalDamagedError(
                        f"{self._where_entry(number)} is missing, and later entries exist: the "
                        f"journal of run {self._path!r} is damaged; {ADVICE}"
                    )
                    break
            if start is None:
                break
            data = start if len(start) < START_BYTES else self._storage.read(key)
            try:
                found.append(self._entry(number, data))
            except JournalDamagedError as error:
                self._broken = error
                break
        return found

    def _entry(self, number: int, data: bytes) -> JournalEntry:
        where = self._where_entry(number)
        if self._in_place and is_torn(data):
            return JournalEntry(number)
        try:
            entry = decode_entry(data, where, Place(self._path, number))
            return JournalEntry(number, entry, data.decode())
        except (IntegrityError, UnicodeDecodeError) as error:
            raise JournalDamagedError(
                f"{error}; the journal of run {self._path!r} is damaged: {ADVICE}"
            ) from error

    @staticmethod
    def _last(numbers: Sequence[int], starts: Sequence[bytes | None]) -> int:
        pairs = zip(numbers, starts, strict=True)
        return max((number for number, start in pairs if start is not None), default=0)

    def _where_version(self, number: int) -> str:
        return f"{self._storage.url}/{version_key(self._path, number)}"

    def _where_entry(self, number: int) -> str:
        return f"{self._storage.url}/{journal_key(self._path, number)}"


def unchanged(storage: Storage, known: Mapping[str, Known]) -> list[str]:
    """Return the runs that have nothing new; all are asked for at once.

    Of many runs few change, and going through them one by one waits as often as there are runs.

    Args:
        storage: Where the runs are.
        known: What is indexed already, by path; nothing in it is worth another look.
    """
    keys = [
        key
        for path, each in known.items()
        for key in (
            version_key(path, each.next_version - 1),
            version_key(path, each.next_version),
            journal_key(path, each.next_entry),
        )
    ]
    starts = iter(storage.read_many(keys, START_BYTES) if keys else [])
    found = zip(known.items(), zip(starts, starts, starts, strict=True), strict=True)
    return [
        path
        for (path, each), (last, version, entry) in found
        if version is entry is None and last is not None and each.is_last(last)
    ]


def gathered(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Put batches together to larger ones, each worth a transaction of its own.

    Raises:
        CkptStoreError: What getting the next batch raised, once all before it were yielded.
    """
    versions: list[Version] = []
    entries: list[JournalEntry] = []
    try:
        for batch in batches:
            versions += batch.versions
            entries += batch.entries
            if len(versions) + len(entries) >= TRANSACTION:
                yield Batch(versions, entries)
                versions, entries = [], []
    except CkptStoreError:
        if versions or entries:
            yield Batch(versions, entries)
        raise
    if versions or entries:
        yield Batch(versions, entries)


def listed_end(storage: Storage, path: str) -> tuple[int, JournalDamagedError | None]:
    """Return the last entry of a run's journal, and what is wrong if one before it is gone."""
    listed = numbered(storage.list_folder(journal_folder(path)).files, JOURNAL_FILE)
    last = max(listed, default=0)
    for number in sorted(set(range(1, last)) - set(listed)):
        key = journal_key(path, number)
        # A listing may lack what was made while it was under way.
        if storage.read_many([key], 1) == [None]:
            return last, JournalDamagedError(
                f"{storage.url}/{key} is missing, and later entries exist: the journal "
                f"of run {path!r} is damaged; {ADVICE}"
            )
    return last, None


def last_listed(storage: Storage, path: str) -> int:
    """Return a run's last version as a listing of its folder has it, 0 if there is none."""
    files = storage.list_folder(versions_folder(path)).files
    return max(numbered(files, VERSION_FILE), default=0)


def walk(storage: Storage) -> list[str]:
    """Return the paths of all runs that have a folder of versions or a journal, sorted.

    What lies among them and can't be a run is left alone.
    """
    found, pending = [], [""]
    while pending:
        path = pending.pop()
        folders = storage.list_folder(f"{RUNS_FOLDER}/{path}" if path else RUNS_FOLDER).folders
        if path and not {VERSIONS_FOLDER, JOURNAL_FOLDER}.isdisjoint(folders):
            found.append(path)
        pending += [child for name in folders if is_run_path(child := f"{path}/{name}".lstrip("/"))]
    return sorted(found)
