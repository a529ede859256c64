"""What journal entries change in the tables. Every function works in the caller's transaction.

An entry changes only the rows it is about, so that it costs the same however long a journal is.
Where entries don't come in order (a torn one was finished later, or an entry says something of a
version that appears after it) what they change is worked out from the whole journal again. Either
way the rows are those of an index that is built anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, delete, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from ckptstore.catalog.rows import JournalEntry, fact_columns, metric_values, read_facts
from ckptstore.catalog.tables import (
    UNSETTLED_ENTRY,
    Base,
    ChildRow,
    JournalRow,
    MetricRow,
    RunRow,
    TagRow,
    VersionRow,
)
from ckptstore.format.facts import Facts, Settings, VersionFacts
from ckptstore.format.fields import format_time
from ckptstore.format.journal import (
    ChildEntry,
    TagEntry,
    decode_entry,
    fold,
)
from ckptstore.format.manifest import KINDS, decode_head

TABLES = Base.metadata.tables
FACT_COLUMNS = tuple(fact_columns(VersionFacts()))
VERSIONS_AT_ONCE = 1000

# Built once: a statement's text is compiled at its first use and kept.
FACTS_OF = select(VersionRow.version, *(TABLES["versions"].c[name] for name in FACT_COLUMNS)).where(
    VersionRow.store == bindparam("store"),
    VersionRow.path == bindparam("path"),
    VersionRow.version.in_(bindparam("versions", expanding=True)),
)
WRITE_FACTS = (
    update(TABLES["versions"])
    .where(
        VersionRow.store == bindparam("of_store"),
        VersionRow.path == bindparam("of_path"),
        VersionRow.version == bindparam("of_version"),
    )
    .values({name: bindparam(name) for name in FACT_COLUMNS})
)
REMOVE_METRIC = delete(MetricRow).where(
    MetricRow.store == bindparam("store"),
    MetricRow.path == bindparam("path"),
    MetricRow.version == bindparam("version"),
    MetricRow.name == bindparam("name"),
)
ENTRIES = (
    select(JournalRow.number, JournalRow.entry)
    .where(
        JournalRow.store == bindparam("store"),
        JournalRow.path == bindparam("path"),
        JournalRow.entry.is_not(None),
    )
    .order_by(JournalRow.number)
)


def add_entries(
    connection: Connection,
    store: str,
    path: str,
    entries: Sequence[JournalEntry],
    *,
    following: int,
    last_version: int,
) -> None:
    """Add journal entries and what they change. Those that are there already are left.

    Args:
        connection: A transaction.
        store: The store's key.
        path: The run's path; it has its row.
        entries: Without holes from *following* on; lower numbers are of entries that were void.
        following: The number that follows those indexed.
        last_version: The last version indexed.
    """
    new = [entry for entry in entries if entry.number >= following]
    finished = [
        entry
        for entry in entries
        if entry.number < following and _remove_void(connection, store, path, entry.number)
    ]
    added = [*finished, *new]
    if not added:
        return
    connection.execute(
        insert(JournalRow), [_row(store, path, entry, last_version) for entry in added]
    )
    changed = {version for entry in added for version in entry.changed}
    before = dict(_facts_of(connection, store, path, sorted(changed)))
    facts = _fold_journal(connection, store, path) if finished else _fold_onto(before, added)
    _write_versions(connection, store, path, before, facts.versions)
    _write_settings(connection, store, path, facts.settings)
    _write_tags(connection, store, path, added, facts.tags)
    _write_children(connection, store, path, added)


def catch_up(
    connection: Connection, store: str, path: str, versions: Sequence[int], last_version: int
) -> None:
    """Apply to versions that were just added what earlier entries say of them.

    Args:
        connection: A transaction.
        store: The store's key.
        path: The run's path.
        versions: The versions.
        last_version: The last version indexed now.
    """
    before = dict(_facts_of(connection, store, path, versions))
    facts = _fold_journal(connection, store, path)
    _write_versions(connection, store, path, before, facts.versions)
    connection.execute(
        update(JournalRow)
        .where(
            JournalRow.store == store,
            JournalRow.path == path,
            text(UNSETTLED_ENTRY),
            JournalRow.awaits <= last_version,
        )
        .values(awaits=None)
    )


def _row(store: str, path: str, entry: JournalEntry, last_version: int) -> dict[str, object]:
    highest = max(entry.changed, default=0)
    return {
        "store": store,
        "path": path,
        "number": entry.number,
        "kind": entry.kind,
        "time": None if entry.entry is None else format_time(entry.entry.time),
        "entry": entry.text,
        "awaits": highest if highest > last_version else None,
    }


def _remove_void(connection: Connection, store: str, path: str, number: int) -> bool:
    removed = connection.execute(
        delete(JournalRow).where(
            JournalRow.store == store,
            JournalRow.path == path,
            JournalRow.number == number,
            JournalRow.kind == "void",
        )
    )
    return removed.rowcount > 0


def _fold_onto(before: Mapping[int, VersionFacts], added: Iterable[JournalEntry]) -> Facts:
    """Return what is known of these versions after entries that come next in the journal."""
    entries = [(entry.number, entry.entry) for entry in added if entry.entry is not None]
    return fold(Facts(versions=before), entries)


def _fold_journal(connection: Connection, store: str, path: str) -> Facts:
    found = connection.execute(ENTRIES, {"store": store, "path": path}).all()
    where = f"the catalog's journal of run {path!r}"
    return fold(Facts(), ((row.number, decode_entry(row.entry.encode(), where)) for row in found))


def _facts_of(
    connection: Connection, store: str, path: str, versions: Sequence[int]
) -> Iterator[tuple[int, VersionFacts]]:
    """Yield what the rows of these versions say; versions that have none are left out."""
    for some in _chunks(versions):
        key = {"store": store, "path": path, "versions": some}
        for row in connection.execute(FACTS_OF, key):
            yield row.version, read_facts(row)


def _write_versions(
    connection: Connection,
    store: str,
    path: str,
    before: Mapping[int, VersionFacts],
    after: Mapping[int, VersionFacts],
) -> None:
    """Write what is known of versions that have a row. An entry about none changes nothing."""
    facts = {version: after.get(version, VersionFacts()) for version in before}
    rows = [
        {"of_store": store, "of_path": path, "of_version": version, **fact_columns(facts[version])}
        for version in before
        if facts[version] is not before[version]
    ]
    if rows:
        connection.execute(WRITE_FACTS, rows)
    _write_metrics(connection, store, path, before, facts)


def _write_metrics(
    connection: Connection,
    store: str,
    path: str,
    before: Mapping[int, VersionFacts],
    after: Mapping[int, VersionFacts],
) -> None:
    """Write later metrics. A version that is retired has no rows of metrics while it is.

    So the best of a run, and what retention decides on, cost by the number of live versions.
    """
    retired = [at for at in after if after[at].retired and not before[at].retired]
    for some in _chunks(retired):
        connection.execute(
            delete(MetricRow).where(
                MetricRow.store == store, MetricRow.path == path, MetricRow.version.in_(some)
            )
        )
    undeleted = [at for at in after if before[at].retired and not after[at].retired]
    upserted, removed = [], []
    for version, saved in _saved_metrics(connection, store, path, undeleted):
        values = metric_values({**saved, **after[version].metrics})
        upserted += [(version, name, value) for name, value in values.items()]
    for version in after:
        encoded = after[version].metrics
        if version in undeleted or after[version].retired or encoded is before[version].metrics:
            continue
        values = metric_values(encoded)
        upserted += [(version, name, value) for name, value in values.items()]
        removed += [(version, name) for name in encoded if name not in values]
    key = {"store": store, "path": path}
    if upserted:
        connection.execute(
            _upsert(connection, "metrics", "value"),
            [{**key, "version": at, "name": name, "value": value} for at, name, value in upserted],
        )
    if removed:
        connection.execute(
            REMOVE_METRIC, [{**key, "version": at, "name": name} for at, name in removed]
        )


def _saved_metrics(
    connection: Connection, store: str, path: str, versions: Sequence[int]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the metrics, encoded, that versions were saved with."""
    for some in _chunks(versions):
        for version, kind, head in connection.execute(
            select(VersionRow.version, VersionRow.kind, VersionRow.head).where(
                VersionRow.store == store, VersionRow.path == path, VersionRow.version.in_(some)
            )
        ):
            if head is None or kind not in KINDS:
                yield version, {}
            else:
                yield version, decode_head(head.encode(), f"{path}@{version}").metrics


def _chunks(versions: Sequence[int]) -> Iterator[Sequence[int]]:
    return (
        versions[at : at + VERSIONS_AT_ONCE] for at in range(0, len(versions), VERSIONS_AT_ONCE)
    )


def _write_settings(
    connection: Connection, store: str, path: str, settings: Settings | None
) -> None:
    if settings is None:
        return
    connection.execute(
        update(RunRow)
        .where(RunRow.store == store, RunRow.path == path)
        .values(
            monitor=settings.monitor,
            mode=settings.mode,
            config=settings.config,
            keep=None if settings.keep is None else dict(settings.keep),
        )
    )


def _write_tags(
    connection: Connection,
    store: str,
    path: str,
    added: Iterable[JournalEntry],
    tags: Mapping[str, int],
) -> None:
    """Write where the tags that *added* moved point now."""
    key = {"store": store, "path": path}
    for tag in sorted({entry.entry.tag for entry in added if isinstance(entry.entry, TagEntry)}):
        if tag in tags:
            values = {**key, "tag": tag, "version": tags[tag]}
            connection.execute(_upsert(connection, "tags", "version"), values)
        else:
            connection.execute(
                delete(TagRow).where(TagRow.store == store, TagRow.path == path, TagRow.tag == tag)
            )


def _write_children(
    connection: Connection, store: str, path: str, added: Iterable[JournalEntry]
) -> None:
    rows = [
        {
            "store": store,
            "path": path,
            "version": entry.entry.version,
            "number": entry.number,
            "run": entry.entry.run,
            "save_id": str(entry.entry.save_id),
        }
        for entry in added
        if isinstance(entry.entry, ChildEntry)
    ]
    if rows:
        connection.execute(insert(ChildRow), rows)


def _upsert(connection: Connection, table: str, column: str) -> Insert:
    """Return an insert that writes *column* where a row with the same key is there."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(TABLES[table])
    upsert: Insert = statement.on_conflict_do_update(
        index_elements=list(TABLES[table].primary_key),
        set_={column: statement.excluded[column]},
    )
    return upsert
