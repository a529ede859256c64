"""Stores as clean-up sees them, written line by line into a dictionary with a clock of its own."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ckptstore.errors import StorageError
from ckptstore.format.facts import Facts
from ckptstore.format.journal import Entry, RetireEntry, UndeleteEntry, decode_entry, fold
from ckptstore.format.layout import STORE_KEY, file_key, journal_key, pack_key, version_key
from ckptstore.format.manifest import File, Head, Pack
from ckptstore.format.store_facts import StoreFacts, encode_store
from ckptstore.storage.base import Leftover
from ckptstore.upkeep.collected import Collected
from ckptstore.upkeep.collection import collect
from tests.catalog.places import START, DictStorage, commit, make_head, note

DAY = timedelta(days=1)
GRACE = 8 * DAY
RUN = "digits"


class Bucket(DictStorage):
    """A dictionary that also has leftovers, deletes that fail, and a hook before each request."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Leftover] = []
        self.stuck: set[str] = set()
        self.before: Callable[[str, str], None] = lambda _doing, _key: None
        """Called with the request's name and its key or folder."""

    def walk(self, folder: str) -> Any:
        self.before("walk", folder)
        return super().walk(folder)

    def read_many(self, keys: Any, length: int) -> list[bytes | None]:
        for key in keys:
            self.before("read_many", key)
        return super().read_many(keys, length)

    def leftovers(self) -> Any:
        self.before("leftovers", "")
        return iter(list(self.left))

    def clear(self, leftover: Leftover) -> None:
        if leftover.key in self.stuck:
            raise StorageError(f"{leftover.key} is locked")
        if leftover in self.left:
            self.left.remove(leftover)

    def delete(self, keys: Any) -> Mapping[str, StorageError]:
        for key in keys:
            self.before("delete", key)
        super().delete([key for key in keys if key not in self.stuck])
        return {key: StorageError(f"{key} is locked") for key in keys if key in self.stuck}


class History:
    """A store with one run or several, and the verbs that change it, told apart by nothing else."""

    def __init__(self, grace: timedelta = GRACE, *, in_place: bool = False) -> None:
        self.storage = Bucket()
        facts = StoreFacts(UUID(int=1), round(grace.total_seconds()), in_place)
        self.storage.create(STORE_KEY, encode_store(facts))
        self._saves = itertools.count(1)

    def through(self, storage: Any) -> History:
        """The same store, seen through another storage."""
        view = copy.copy(self)
        view.storage = storage
        return view

    def wait(self, time: timedelta) -> datetime:
        """Let the storage's time pass."""
        self.storage.now += time
        return self.storage.now

    def pack(self, size_bytes: int = 8) -> str:
        """Write a pack; return its key."""
        key = pack_key(UUID(int=next(self._saves)), 0)
        self.storage.create(key, bytes(size_bytes))
        return key

    def file(self) -> str:
        """Write an opaque file; return its key."""
        key = file_key(UUID(int=next(self._saves)), 0)
        self.storage.create(key, b"file")
        return key

    def next_version(self, run: str = RUN) -> int:
        number = 1
        while version_key(run, number) in self.storage.objects:
            number += 1
        return number

    def commit(self, *keys: str, run: str = RUN) -> int:
        """Create the manifest that names these packs and files; return its number."""
        number = self.next_version(run)
        commit(self.storage, self.head(keys, run, number))
        return number

    def head(self, keys: Iterable[str], run: str, number: int) -> Head:
        packs = [Pack(_save_of(key), 0, 8, 8, "0" * 64) for key in keys if key.startswith("packs")]
        files = [File(_save_of(key), 0, 4, "0" * 64) for key in keys if key.startswith("files")]
        return make_head(run, number, packs=tuple(packs), files=tuple(files))

    def save(self, *reused: str, run: str = RUN) -> tuple[int, str]:
        """Write a pack and commit a version that names it; return its number and the pack."""
        key = self.pack()
        return self.commit(key, *reused, run=run), key

    def retire(self, *versions: int, run: str = RUN, reason: str = "old") -> None:
        reasons = dict.fromkeys(versions, reason)
        self.note(RetireEntry(reasons, START, UUID(int=9)), run=run)

    def undelete(self, *versions: int, run: str = RUN) -> None:
        self.note(UndeleteEntry(versions, START, UUID(int=9)), run=run)

    def note(self, entry: Entry, run: str = RUN) -> None:
        note(self.storage, run, self.next_entry(run), entry)

    def next_entry(self, run: str = RUN) -> int:
        number = 1
        while journal_key(run, number) in self.storage.objects:
            number += 1
        return number

    def facts(self, run: str = RUN) -> Facts:
        entries = []
        while (key := journal_key(run, len(entries) + 1)) in self.storage.objects:
            entries.append((len(entries) + 1, decode_entry(self.storage.objects[key], key)))
        return fold(Facts(), entries)

    def append(self, decide: Any, run: str = RUN) -> Entry | None:
        """Append what is decided, as :func:`ckptstore.saving.journaling.append` does."""
        while True:
            number, facts = self.next_entry(run), self.facts(run)
            entry: Entry | None = decide(facts, START, UUID(int=10))
            if entry is None:
                return None
            try:
                note(self.storage, run, number, entry)
            except FileExistsError:
                continue
            return entry

    def known(self) -> dict[str, tuple[int, int]]:
        """What a catalog that is up to date knows."""
        paths = {
            key.split("/_")[0].removeprefix("runs/")
            for key in self.storage.objects
            if key.startswith("runs/")
        }
        return {path: (self.next_version(path) - 1, self.next_entry(path) - 1) for path in paths}

    def live(self, run: str = RUN) -> dict[int, set[str]]:
        """What each version that is not retired names, as an independent reader finds it."""
        facts, found = self.facts(run), {}
        for number in range(1, self.next_version(run)):
            known = facts.versions.get(number)
            if known is None or known.retired is None:
                head = json.loads(self.storage.objects[version_key(run, number)].split(b"\n")[0])
                found[number] = {
                    f"packs/{pack['save'][-2:]}/{pack['save']}-{pack['number']}.safetensors"
                    for pack in head["packs"]
                } | {
                    f"files/{file['save'][-2:]}/{file['save']}-{file['number']}"
                    for file in head["files"]
                }
        return found

    def lost(self) -> list[str]:
        """What live versions name and is gone. There must never be any."""
        return [
            f"{path}@{number}: {key}"
            for path in self.known()
            for number, keys in self.live(path).items()
            for key in keys
            if not self.has(key)
        ]

    def collect(self, known: Any = None, **options: Any) -> Collected:
        return collect(
            self.storage,
            single_writer=False,
            known=self.known if known is None else known,
            **options,
        )

    def has(self, key: str) -> bool:
        return key in self.storage.objects


def _save_of(key: str) -> UUID:
    return UUID(key.rpartition("/")[2].removesuffix(".safetensors").rpartition("-")[0])
