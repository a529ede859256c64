"""A store in a dictionary, and what the tests of the catalog put into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import create_engine, text

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.tables import Base
from ckptstore.errors import StorageError
from ckptstore.format.digest import digest, dump_line
from ckptstore.format.facts import Settings
from ckptstore.format.journal import Entry, SettingsEntry, TagEntry, encode_entry
from ckptstore.format.layout import STORE_KEY, journal_key, version_key
from ckptstore.format.manifest import Head, PartInfo, encode_head, encode_manifest
from ckptstore.format.store_facts import StoreFacts, encode_store
from ckptstore.storage.base import Leftover, Listing, Storage, Stored, Writer

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
NAN, INF, MINUS_INF = ({"$float": name} for name in ("nan", "inf", "-inf"))


class DictStorage:
    """Objects in a dictionary. Counts requests, and fails when told to."""

    def __init__(self, url: str = "bucket://place", folder: str | None = None) -> None:
        self.url = url
        self.exclusive = True
        self.in_place = False
        self.local_folder = folder
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, datetime] = {}
        self.now = START
        self.requests: list[str] = []
        self.is_down = False

    def prepare(self) -> None:
        pass

    def read(self, key: str) -> bytes:
        self._ask(key)
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key]

    def read_start(self, key: str, length: int) -> bytes:
        return self.read(key)[:length]

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        self._ask(*keys)
        return [self.objects[key][:length] if key in self.objects else None for key in keys]

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        raise NotImplementedError

    def size_bytes(self, key: str) -> int:
        return len(self.read(key))

    def list_folder(self, key: str) -> Listing:
        self._ask(key)
        below = [
            name.removeprefix(f"{key}/").split("/")
            for name in self.objects
            if name.startswith(f"{key}/")
        ]
        folders = {names[0] for names in below if len(names) > 1}
        return Listing(
            tuple(sorted(folders)), tuple(sorted(names[0] for names in below if len(names) == 1))
        )

    def walk(self, folder: str) -> Iterator[Stored]:
        self._ask(folder)
        for key in sorted(self.objects):
            if not folder or key.startswith(f"{folder}/"):
                yield Stored(key, len(self.objects[key]), self.written.get(key))

    def written_at(self, key: str) -> datetime | None:
        self.read(key)
        return self.written.get(key)

    def leftovers(self) -> Iterator[Leftover]:
        self._ask("")
        return iter(())

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        self._ask(*keys)
        for key in keys:
            self.objects.pop(key, None)
            self.written.pop(key, None)
        return {}

    def clear(self, leftover: Leftover) -> None:
        raise NotImplementedError

    def create(self, key: str, data: bytes) -> None:
        self._ask(key)
        if key in self.objects:
            raise FileExistsError(key)
        self.objects[key] = data
        self.written[key] = self.now

    def open_writer(self, key: str) -> Writer:
        raise NotImplementedError

    def map(self, key: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _ask(self, *keys: str) -> None:
        if self.is_down:
            raise StorageError("the bucket does not answer")
        self.requests += keys


def found_store(storage: Storage, number: int = 1, *, in_place: bool = False) -> None:
    storage.create(STORE_KEY, encode_store(StoreFacts(UUID(int=number), 604_800, in_place)))


def make_head(run: str, version: int, **changes: Any) -> Head:
    """Return a head that is the same in every process, so that rows can be compared."""
    minute = START + timedelta(minutes=version)
    values: dict[str, Any] = {
        "save_id": UUID(int=version),
        "kind": "checkpoint",
        "started_at": minute,
        "created_at": minute,
        "epoch": version,
        "metrics": {"val_loss": 1 / version},
        "environment": {"torch": "2.13.0"},
        "parts": (PartInfo("model", "module", 1000 * version, 2, "0" * 64),),
    }
    return Head(run=run, version=version, **{**values, **changes})


def commit(storage: Storage, head: Head) -> bytes:
    """Create a manifest. Return its first line."""
    line = encode_head(head)
    key = version_key(head.run.lower(), head.version)
    storage.create(key, encode_manifest(head, [b"{}"]))
    return line


def newer(version: int) -> bytes:
    """Return a manifest that needs a feature only a newer ckptstore knows."""
    head = encode_head(make_head("digits", version))
    line = head.replace(b'"requires":[]', b'"requires":["warp"]')
    return b"".join(part + b"\n" for part in (line, dump_line(digest(line)), b"{}"))


def commit_many(storage: Storage, run: str, metrics: Mapping[int, Mapping[str, Any]]) -> None:
    """Create versions with these metrics, by number."""
    for version, values in metrics.items():
        commit(storage, make_head(run, version, metrics=values))


def note(storage: Storage, path: str, number: int, entry: Entry) -> None:
    storage.create(journal_key(path, number), encode_entry(entry))


def tag_entry(tag: str, version: int | None) -> TagEntry:
    return TagEntry(tag, version, START, UUID(int=7))


def settings_entry(monitor: str, mode: Any, config: object = None) -> SettingsEntry:
    return SettingsEntry(Settings(monitor, mode, config), START, UUID(int=8))


def rows(catalog: Catalog) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables of a catalog, sorted."""
    with catalog._opened().reading() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(table.select())), key=repr)
            for table in Base.metadata.sorted_tables
        }


def rows_of_file(path: object) -> dict[str, list[tuple[Any, ...]]]:
    """Return the same of a database's file, without ckptstore."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = {
            name: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}"))), key=repr)  # noqa: S608 - our own tables
            for name in Base.metadata.tables
        }
    engine.dispose()
    return found


def versions_of(records: Sequence[Any]) -> list[int]:
    return [record.version for record in records]
