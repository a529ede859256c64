"""Reading rows. Every function works in the caller's transaction and returns plain data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    text,
)

from ckptstore.catalog.applying import FACT_COLUMNS
from ckptstore.catalog.rows import read_facts
from ckptstore.catalog.sync import Known
from ckptstore.catalog.tables import (
    LIVE,
    UNSETTLED,
    UNSETTLED_ENTRY,
    JournalRow,
    RunRow,
    TagRow,
    VersionRow,
)
from ckptstore.entry import Record
from ckptstore.format.facts import Facts, Settings, VersionFacts
from ckptstore.format.layout import version_key
from ckptstore.format.manifest import decode_head

if TYPE_CHECKING:
    RecordRow = Row[str, int, str | None, str | None]

# A statement takes at most 32,766 parameters in SQLite and 65,535 in PostgreSQL.
PATHS_AT_ONCE = 1000

LAST = select(
    select(func.max(VersionRow.version))
    .where(VersionRow.store == bindparam("store"), VersionRow.path == bindparam("path"))
    .scalar_subquery(),
    select(func.max(JournalRow.number))
    .where(JournalRow.store == bindparam("store"), JournalRow.path == bindparam("path"))
    .scalar_subquery(),
    exists()
    .where(
        VersionRow.store == bindparam("store"),
        VersionRow.path == bindparam("path"),
        text(UNSETTLED),
    )
    .select_from(VersionRow),
    exists()
    .where(
        JournalRow.store == bindparam("store"),
        JournalRow.path == bindparam("path"),
        text(UNSETTLED_ENTRY),
    )
    .select_from(JournalRow),
)
"""The last version and journal entry of a run, and whether any of either is not settled."""

OF_RUN = (VersionRow.store == RunRow.store, VersionRow.path == RunRow.path)
ENTRY_OF_RUN = (JournalRow.store == RunRow.store, JournalRow.path == RunRow.path)
SETTLED = select(
    RunRow.path,
    select(func.max(VersionRow.version)).where(*OF_RUN).scalar_subquery().label("version"),
    select(func.max(JournalRow.number)).where(*ENTRY_OF_RUN).scalar_subquery().label("entry"),
    select(VersionRow.head)
    .where(*OF_RUN)
    .order_by(VersionRow.version.desc())
    .limit(1)
    .scalar_subquery()
    .label("head"),
).where(
    ~exists().where(*OF_RUN, text(UNSETTLED)).select_from(VersionRow),
    ~exists().where(*ENTRY_OF_RUN, text(UNSETTLED_ENTRY)).select_from(JournalRow),
)
"""The same of many runs, with the last version's head, where all is settled."""

NEWER = and_(text(UNSETTLED), VersionRow.kind == "newer")
HEAD_OF = select(VersionRow.head).where(
    VersionRow.store == bindparam("store"),
    VersionRow.path == bindparam("path"),
    VersionRow.version == bindparam("version"),
)
RECORDS = select(
    VersionRow.path,
    VersionRow.version,
    VersionRow.head,
    VersionRow.damage,
    *(VersionRow.__table__.c[name] for name in FACT_COLUMNS),
).where(VersionRow.kind != "void")


class Reader:
    """Reads the rows of one store.

    Args:
        connection: A transaction.
        store: The store's key.
        url: Where the store is, for messages.
    """

    def __init__(self, connection: Connection, store: str, url: str) -> None:
        self.connection = connection
        self.store = store
        self._url = url

    def next_numbers(self, path: str) -> tuple[int, int]:
        """Return the version and the journal entry that follow those indexed."""
        version, entry, *_ = self._last(path)
        return version + 1, entry + 1

    def known(self, path: str) -> Known:
        """Return what of a run is indexed, and what of that is worth another look."""
        version, entry, is_unsettled, has_torn_entry = self._last(path)
        key = {"store": self.store, "path": path, "version": version}
        head = self.connection.execute(HEAD_OF, key).scalar() if version else None
        newer: list[tuple[int, str]] = []
        unread: dict[int, str | None] = {}
        if is_unsettled:
            rows = self.connection.execute(
                select(VersionRow.version, VersionRow.head, VersionRow.damage)
                .where(VersionRow.store == self.store, VersionRow.path == path, text(UNSETTLED))
                .order_by(VersionRow.version)
            ).all()
            newer = [(row.version, row.head) for row in rows if row.head is not None]
            unread = {row.version: row.damage for row in rows if row.head is None}
        void_entries: Sequence[int] = ()
        if has_torn_entry:
            void_entries = self.connection.scalars(
                select(JournalRow.number)
                .where(
                    JournalRow.store == self.store,
                    JournalRow.path == path,
                    text(UNSETTLED_ENTRY),
                    JournalRow.kind == "void",
                )
                .order_by(JournalRow.number)
            ).all()
        return Known(version + 1, entry + 1, newer, unread, void_entries, head)

    def settled(self, paths: Sequence[str]) -> dict[str, Known]:
        """Return what is indexed of those runs of which only new numbers can change that."""
        return {
            row.path: Known(row.version + 1, (row.entry or 0) + 1, last_head=row.head)
            for some in chunks(paths)
            for row in self.connection.execute(
                SETTLED.where(RunRow.store == self.store, RunRow.path.in_(some))
            )
            if row.head is not None
        }

    def present(self, paths: Sequence[str]) -> list[str]:
        """Return those of *paths* that have a version or a journal entry, sorted."""
        anything = [
            exists()
            .where(table.store == RunRow.store, table.path == RunRow.path, table.kind != "void")
            .correlate(RunRow)
            for table in (VersionRow, JournalRow)
        ]
        found: list[str] = []
        for some in chunks(paths):
            found += self.connection.scalars(
                select(RunRow.path).where(
                    RunRow.store == self.store, RunRow.path.in_(some), or_(*anything)
                )
            )
        return sorted(found)

    def run_name(self, path: str) -> str | None:
        """Return a run's spelling, None if it has no intact version."""
        return self.connection.scalar(
            select(RunRow.name).where(RunRow.store == self.store, RunRow.path == path)
        )

    def run_names(self, paths: Sequence[str]) -> list[str]:
        """Return the spellings of runs, in the same order; the path of one that has none."""
        names: dict[str, str | None] = {}
        for some in chunks(paths):
            rows = self.connection.execute(
                select(RunRow.path, RunRow.name).where(
                    RunRow.store == self.store, RunRow.path.in_(some)
                )
            )
            names |= {row.path: row.name for row in rows}
        return [names.get(path) or path for path in paths]

    def settings(self, paths: Sequence[str]) -> dict[str, Settings]:
        """Return the recorded settings of those runs that have some, by path."""
        found: dict[str, Settings] = {}
        for some in chunks(paths):
            rows = self.connection.execute(
                select(RunRow.path, RunRow.monitor, RunRow.mode, RunRow.config, RunRow.keep).where(
                    RunRow.store == self.store,
                    RunRow.path.in_(some),
                    RunRow.monitor.is_not(None),
                )
            )
            for path, monitor, mode, config, keep in rows:
                found[path] = Settings(monitor, "max" if mode == "max" else "min", config, keep)
        return found

    def facts(self, path: str) -> Facts:
        """Return what a run's journal adds up to, without what it says of single versions."""
        tags = {tag: version for _, tag, version in self._tags([path])}
        return Facts(self.settings([path]).get(path), tags)

    def about(self, path: str, version: int) -> VersionFacts | None:
        """Return what was recorded about a version later, None if there is no such version."""
        row = self.connection.execute(
            self._records([path]).where(VersionRow.version == version)
        ).one_or_none()
        return None if row is None else self._facts([row])[0]

    def version(self, path: str, number: int) -> Record | None:
        """Return a version; damaged ones too."""
        row = self.connection.execute(
            self._records([path]).where(VersionRow.version == number)
        ).one_or_none()
        return None if row is None else self._decode([row])[0]

    def tagged(self, path: str, tag: str) -> Record | None:
        """Return the version a tag points at."""
        number = self.connection.scalar(
            select(TagRow.version).where(
                TagRow.store == self.store, TagRow.path == path, TagRow.tag == tag
            )
        )
        return None if number is None else self.version(path, number)

    def newest(
        self,
        path: str,
        kind: str | None,
        *,
        before: int,
        limit: int,
        without: Collection[str] | None = (),
    ) -> list[Record]:
        """Return the newest live versions with numbers below *before*, the newest first.

        What one with an unreadable manifest was is unknown, so it counts as any kind.

        Args:
            path: The run.
            kind: Only these; None for all.
            before: A version's number.
            limit: At most so many.
            without: Save ids of versions that are left out, beside those whose data are known to be
                damaged; None leaves out neither.
        """
        chosen = [text(LIVE)] if without is None else intact(without)
        rows = self.connection.execute(
            self._records([path])
            .where(VersionRow.version < before, *_of_kind(kind), *chosen)
            .order_by(VersionRow.version.desc())
            .limit(limit)
        ).all()
        return self._decode(rows)

    def history(self, paths: Sequence[str], *, kind: str | None, limit: int | None) -> list[Record]:
        """Return versions, retired and damaged ones too, ascending by path and number.

        Args:
            paths: The runs.
            kind: Only these, and damaged ones; None for all.
            limit: At most so many, the newest: by number in one run, by ``created_at`` in several.
        """
        self.refuse_newer(paths)
        rows: list[RecordRow] = []
        for some in chunks(paths):
            query = self._records(some).where(*_of_kind(kind))
            if limit is not None:
                if len(paths) > 1:
                    query = query.order_by(VersionRow.created_at.desc().nulls_last())
                query = query.order_by(VersionRow.path, VersionRow.version.desc()).limit(limit)
            rows += self.connection.execute(query).all()
        records = self._decode(rows)
        if limit is not None and len(paths) > PATHS_AT_ONCE:
            records = sorted(records, key=_age, reverse=True)[:limit]
        return sorted(records, key=lambda record: (record.path, record.version))

    def _last(self, path: str) -> tuple[int, int, bool, bool]:
        values = {"store": self.store, "path": path}
        version, entry, *unsettled = self.connection.execute(LAST, values).one()
        return version or 0, entry or 0, bool(unsettled[0]), bool(unsettled[1])

    def _records(self, paths: Sequence[str]) -> Select[str, int, str | None, str | None]:
        return RECORDS.where(VersionRow.store == self.store, VersionRow.path.in_(paths))

    def _decode(self, rows: Sequence[RecordRow]) -> list[Record]:
        """Turn rows into records.

        Raises:
            NewerFormatError: One of them was made by a newer ckptstore.
        """
        return [
            Record(
                row.path,
                row.version,
                None
                if row.head is None
                else decode_head(row.head.encode(), self._where(row.path, row.version)),
                row.damage,
                facts,
            )
            for row, facts in zip(rows, self._facts(rows), strict=True)
        ]

    def _facts(self, rows: Sequence[RecordRow]) -> list[VersionFacts]:
        """Return what was recorded later about the version of each row."""
        tags: dict[tuple[str, int], list[str]] = {}
        for some in chunks(sorted({row.path for row in rows})):
            for path, tag, version in self._tags(some):
                tags.setdefault((path, version), []).append(tag)
        return [read_facts(row, sorted(tags.get((row.path, row.version), ()))) for row in rows]

    def _tags(self, paths: Sequence[str]) -> Sequence[Row[str, str, int]]:
        return self.connection.execute(
            select(TagRow.path, TagRow.tag, TagRow.version)
            .where(TagRow.store == self.store, TagRow.path.in_(paths))
            .order_by(TagRow.path, TagRow.tag)
        ).all()

    def refuse_newer(self, paths: Sequence[str]) -> None:
        """Raise if a live version was made by a newer ckptstore: nobody can say what it holds."""
        for some in chunks(paths):
            rows = self.connection.execute(self._records(some).where(NEWER)).all()
            self._decode([row for row in rows if row.retired_at is None])

    def _where(self, path: str, version: int) -> str:
        return f"{self._url}/{version_key(path, version)}"


def intact(without: Collection[str] = ()) -> list[ColumnElement[bool]]:
    """Return the conditions for versions that are live and not known to be damaged."""
    return [
        text(LIVE),
        VersionRow.damage_found.is_(None),
        *(
            [or_(VersionRow.save_id.is_(None), VersionRow.save_id.not_in(without))]
            if without
            else ()
        ),
    ]


def _of_kind(kind: str | None) -> list[ColumnElement[bool]]:
    return [] if kind is None else [VersionRow.kind.in_((kind, "damaged", "newer"))]


def chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a list of runs into as many as one statement takes."""
    return (paths[at : at + PATHS_AT_ONCE] for at in range(0, len(paths), PATHS_AT_ONCE))


def _age(record: Record) -> tuple[float, str, int]:
    created = 0.0 if record.head is None else record.head.created_at.timestamp()
    return created, record.path, record.version
