"""What the runs of a store name and have retired, read from the storage itself as plain data.

The SQL catalog is not asked: what is deleted by a wrong row could not be brought back. Nor is one
listing believed. Numbers have no holes, so the numbers that follow a run's last are asked for one
by one; the runs are looked for in a second way; and what the catalog knows must be among it all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TypeVar

from ckptstore.catalog import sync
from ckptstore.errors import CollectionRefusedError, IntegrityError
from ckptstore.format.facts import Facts
from ckptstore.format.journal import Entry, decode_entry, fold
from ckptstore.format.layout import (
    JOURNAL_FILE,
    JOURNAL_FOLDER,
    RUNS_FOLDER,
    VERSION_FILE,
    VERSIONS_FOLDER,
    file_key,
    is_run_path,
    journal_folder,
    journal_key,
    numbered,
    pack_key,
    run_folder,
    version_key,
)
from ckptstore.format.manifest import Head, decode_head, head_line
from ckptstore.format.sealed import is_torn
from ckptstore.storage.base import Storage
from ckptstore.upkeep.progress import Progress

Known = Mapping[str, tuple[int, int]]
"""The last version and the last journal entry that the catalog has of each run, by path."""

Item = TypeVar("Item")

# Holds the head of nearly every manifest and nearly every journal entry.
START_BYTES = 32 * 1024
# So many are read at a time: at most 16 MiB lie in memory, and S3 is asked in parallel.
BATCH = 512
GROWTH = 8
# What a listing may lack because it was created while the listing was made.
MOST_HOLES = 1000


@dataclass(frozen=True)
class Version:
    """What clean-up needs to know of a version."""

    names: tuple[str, ...] = ()
    """The keys of the packs and files that its manifest names; none where it is torn in place."""
    damage: str | None = None
    """Why its manifest can't be read, so that nobody knows what it names."""
    is_missing: bool = False
    """Whether there is none, though later versions are there."""


@dataclass(frozen=True)
class Noted:
    """A journal entry, its number, and when it was written by the storage's clock."""

    number: int
    entry: Entry
    written_at: datetime | None


@dataclass(frozen=True)
class RunContents:
    """All that a run's manifests and journal say."""

    path: str
    versions: Mapping[int, Version]
    journal: Sequence[Noted]

    def retired(self) -> dict[int, datetime | None]:
        """Return since when each version that is retired now is, by the storage's clock."""
        facts = fold(Facts(), ((noted.number, noted.entry) for noted in self.journal))
        times = {noted.number: noted.written_at for noted in self.journal}
        return {
            version: times[known.retired.entry]
            for version, known in facts.versions.items()
            if known.retired is not None
        }


@dataclass
class _Listed:
    """The numbers that a listing found in one run."""

    versions: set[int] = field(default_factory=set)
    entries: dict[int, datetime | None] = field(default_factory=dict)


def read_runs(
    storage: Storage,
    now: datetime,
    known: Known,
    *,
    in_place: bool,
    progress: Progress,
) -> list[RunContents]:
    """List and read every manifest's head and every journal entry there is.

    Args:
        storage: Where they are.
        now: The storage's time before anything was listed.
        known: What the catalog knew before anything was listed.
        in_place: Whether a file without its digest is one that was interrupted, and void.
        progress: Told how far it is.

    Raises:
        CollectionRefusedError: Something is missing or can't be read, so that it can't be told what
            is needed. A manifest that can't be read is no error here: it may be retired.
        NewerFormatError: A newer ckptstore made one of the objects.
        StorageError: The storage failed.
    """
    runs = _listed(storage, progress)
    _check_known(storage, runs, known)
    for path in sync.walk(storage):
        runs.setdefault(path, _Listed())
    _check_following(storage, runs, now)
    reader = _Reader(storage, in_place=in_place)
    total = sum(len(listed.versions) + len(listed.entries) for listed in runs.values())
    versions: dict[str, dict[int, Version]] = {path: {} for path in runs}
    journals: dict[str, list[Noted]] = {path: [] for path in runs}
    done = 0
    for batch in _batches(
        (p, n) for p in sorted(runs) for n in _numbers(storage, p, runs[p].versions)
    ):
        for (path, number), version in zip(batch, reader.versions(batch), strict=True):
            versions[path][number] = version
        done += len(batch)
        progress(done, total, "reading")
    for batch in _batches(
        (p, n) for p in sorted(runs) for n in _numbers(storage, p, runs[p].entries)
    ):
        times = {(path, number): runs[path].entries.get(number) for path, number in batch}
        for (path, _), noted in zip(batch, reader.entries(batch, times), strict=True):
            if noted is not None:
                journals[path].append(noted)
        done += len(batch)
        progress(done, total, "reading")
    return [RunContents(path, versions[path], journals[path]) for path in sorted(runs)]


def read_journal(storage: Storage, path: str, *, in_place: bool) -> list[Noted]:
    """Read one run's journal with the storage time of each entry.

    Raises:
        CollectionRefusedError: An entry is missing or damaged.
        NewerFormatError: A newer ckptstore made one of the entries.
        StorageError: The storage failed.
    """
    times = {}
    for stored in storage.walk(journal_folder(path)):
        folder, _, name = stored.key.rpartition("/")
        if folder != journal_folder(path):
            continue  # whatever lies deeper is no entry
        for number in numbered((name,), JOURNAL_FILE):
            times[path, number] = stored.written_at
    reader = _Reader(storage, in_place=in_place)
    wanted = ((path, number) for number in _numbers(storage, path, [each for _, each in times]))
    return [
        noted
        for batch in _batches(wanted)
        for noted in reader.entries(batch, times)
        if noted is not None
    ]


def _listed(storage: Storage, progress: Progress) -> dict[str, _Listed]:
    """List all manifests and journal entries; what has another name is not ours."""
    runs: dict[str, _Listed] = {}
    for count, stored in enumerate(storage.walk(RUNS_FOLDER), 1):
        if count % BATCH == 0:
            progress(count, None, "listing runs")
        folder, _, name = stored.key.rpartition("/")
        path, _, kind = folder.removeprefix(f"{RUNS_FOLDER}/").rpartition("/")
        pattern = {VERSIONS_FOLDER: VERSION_FILE, JOURNAL_FOLDER: JOURNAL_FILE}.get(kind)
        if pattern is None or not (numbers := numbered((name,), pattern)):
            continue
        if not is_run_path(path):
            raise CollectionRefusedError(
                f"{storage.url}/{stored.key} looks like a run's, but {path!r} can't be a run's "
                "path: was it renamed, or copied by a tool that changes case? Move it back or "
                "away"
            )
        listed = runs.setdefault(path, _Listed())
        if kind == VERSIONS_FOLDER:
            listed.versions.update(numbers)
        else:
            listed.entries[numbers[0]] = stored.written_at
    return runs


def _check_known(storage: Storage, runs: Mapping[str, _Listed], known: Known) -> None:
    """Hold the listing against what the catalog knew before it.

    Raises:
        CollectionRefusedError: The listing lacks something.
    """
    for path, (version, entry) in sorted(known.items()):
        listed = runs.get(path, _Listed())
        if max(listed.versions, default=0) < version:
            lacking = version_key(path, version)
        elif max(listed.entries, default=0) < entry:
            lacking = journal_key(path, entry)
        else:
            continue
        raise CollectionRefusedError(
            f"{storage.url}: the catalog knows {lacking}, and the listing lacks it, so it is not "
            "known what is needed. Try again; if the file was deleted, bring "
            "it back from a copy, or, if the run was meant to go, call store.reindex()"
        )


def _check_following(storage: Storage, runs: Mapping[str, _Listed], now: datetime) -> None:
    """Ask for the number that follows each run's last: a listing cut short ends before it.

    Raises:
        CollectionRefusedError: It is there, and older than the listing.
    """
    keys = []
    for path, listed in sorted(runs.items()):
        keys.append(version_key(path, max(listed.versions, default=0) + 1))
        keys.append(journal_key(path, max(listed.entries, default=0) + 1))
    for batch in _batches(keys):
        for key, start in zip(batch, storage.read_many(batch, 1), strict=True):
            if start is None:
                continue
            written_at = storage.written_at(key)
            if written_at is None or written_at < now:
                raise CollectionRefusedError(
                    f"{storage.url}/{key} is there, and the listing lacks it though it is older: "
                    "the storage's listings can't be relied on. Try again, "
                    "or use another storage"
                )


def _numbers(storage: Storage, path: str, found: Collection[int]) -> range:
    """Return all numbers up to the last, holes too: what a listing missed is asked for.

    Raises:
        CollectionRefusedError: There are very many holes, as a stray name makes.
    """
    last = max(found, default=0)
    if last - len(found) > MOST_HOLES:
        raise CollectionRefusedError(
            f"{storage.url}: run {path!r} has {len(found)} objects numbered up to {last} in "
            f"{run_folder(path)}: was a file put there, or were most of them deleted? Move it "
            "away, or bring them back from a copy"
        )
    return range(1, last + 1)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


class _Reader:
    """Reads manifests' heads and journal entries, and says what is wrong with one."""

    def __init__(self, storage: Storage, *, in_place: bool) -> None:
        self._storage = storage
        self._in_place = in_place

    def versions(self, wanted: Sequence[tuple[str, int]]) -> list[Version]:
        """Read the heads of versions, each given by its run's path and its number."""
        keys = [version_key(path, number) for path, number in wanted]
        starts = self._storage.read_many(keys, START_BYTES)
        return [
            self._version(path, number, key, start)
            for (path, number), key, start in zip(wanted, keys, starts, strict=True)
        ]

    def _version(self, path: str, number: int, key: str, start: bytes | None) -> Version:
        where = f"{self._storage.url}/{key}"
        if start is None:
            return Version(
                damage=f"{where} is missing, and later versions are there", is_missing=True
            )
        try:
            line = self._head_line(key, start, where)
            if line is None:
                torn = f"{where} was cut short: its head has no digest"
                return Version() if self._in_place else Version(damage=torn)
            head = decode_head(line, where)
        except IntegrityError as error:
            return Version(damage=str(error))
        if head.run.lower() != path or head.version != number:
            return Version(damage=f"{where} is the manifest of {head.ref}, in another's place")
        return Version(names_of(head))

    def _head_line(self, key: str, start: bytes, where: str) -> bytes | None:
        length = START_BYTES
        while (line := head_line(start, where)) is None and len(start) >= length:
            length *= GROWTH
            start = self._storage.read_start(key, length)
        return line

    def entries(
        self,
        wanted: Sequence[tuple[str, int]],
        times: Mapping[tuple[str, int], datetime | None],
    ) -> list[Noted | None]:
        """Read journal entries, each given by its run's path and its number; None if void.

        Args:
            wanted: Which.
            times: When they were written, as far as a listing said.

        Raises:
            CollectionRefusedError: One is missing or damaged.
        """
        keys = [journal_key(path, number) for path, number in wanted]
        starts = self._storage.read_many(keys, START_BYTES)
        found: list[Noted | None] = []
        for place, key, start in zip(wanted, keys, starts, strict=True):
            entry = self._entry(key, start)
            if entry is None:
                found.append(None)
                continue
            written_at = times.get(place) or self._storage.written_at(key)
            found.append(Noted(place[1], entry, written_at))
        return found

    def _entry(self, key: str, start: bytes | None) -> Entry | None:
        where = f"{self._storage.url}/{key}"
        if start is None:
            raise self._unreadable(f"{where} is missing, and later entries are there")
        data = start if len(start) < START_BYTES else self._storage.read(key)
        if self._in_place and is_torn(data):
            return None
        try:
            return decode_entry(data, where)
        except IntegrityError as error:
            raise self._unreadable(str(error)) from error

    @staticmethod
    def _unreadable(why: str) -> CollectionRefusedError:
        return CollectionRefusedError(
            f"{why}, so it is not known which versions are retired. Bring "
            "that file back from a copy"
        )


def names_of(head: Head) -> tuple[str, ...]:
    """Return the keys of the packs and files that a version needs."""
    return (
        *(pack_key(pack.save_id, pack.number) for pack in head.packs),
        *(file_key(file.save_id, file.number) for file in head.files),
    )
