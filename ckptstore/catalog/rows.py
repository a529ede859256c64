"""What a manifest or a journal entry becomes in the tables. Pure: touches no storage and no SQL."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ckptstore.catalog.tables import VersionKind
from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.format.facts import Retired, VersionFacts
from ckptstore.format.fields import format_time
from ckptstore.format.journal import KINDS, ChildEntry, Entry, changes_of
from ckptstore.format.manifest import Head, decode_head

LARGEST = 2**63 - 1
INTEGER = re.compile(r"-?[0-9]+")
FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Version:
    """A manifest as the tables hold it."""

    number: int
    kind: VersionKind
    name: str | None = None
    """The run's spelling."""
    columns: Mapping[str, object] = field(default_factory=dict)
    """The other columns of its row."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """None for NaN."""


@dataclass(frozen=True)
class JournalEntry:
    """A journal entry as the tables hold it; None where it is void."""

    number: int
    entry: Entry | None = None
    text: str | None = None

    @property
    def kind(self) -> str:
        """The kind of entry it is, or ``void``."""
        return "void" if self.entry is None else KINDS[type(self.entry)]

    @property
    def changed(self) -> tuple[int, ...]:
        """The versions in whose rows it changes something."""
        if self.entry is None or isinstance(self.entry, ChildEntry):
            return ()
        return tuple(changes_of(self.number, self.entry))


@dataclass(frozen=True)
class Batch:
    """What one look at the storage found, each ascending by number."""

    versions: Sequence[Version] = ()
    entries: Sequence[JournalEntry] = ()


def damaged(number: int, reason: str) -> Version:
    """Return the row of a manifest that is not what was saved."""
    return Version(number, "damaged", columns={"damage": reason})


def read_head(line: bytes, path: str, number: int, where: str) -> Version:
    """Return the row of the manifest of version *number* whose first line, checked, is *line*."""
    try:
        head = decode_head(line, where)
    except NewerFormatError:
        return Version(number, "newer", columns={"head": line.decode()})
    except IntegrityError as error:
        return damaged(number, str(error))
    if head.run.lower() != path or head.version != number:
        return damaged(number, f"{where}: it is the manifest of {head.ref}, put in another's place")
    return from_head(head, line, where)


def from_head(head: Head, line: bytes, where: str) -> Version:
    """Return the row of a version with that *head*, which was read from *line*."""
    size_bytes = head.size_bytes
    if size_bytes > LARGEST:
        return damaged(head.version, f"{where}: its parts and files have {size_bytes} bytes in all")
    torch_version = head.environment.get("torch")
    return Version(
        head.version,
        "package" if head.kind == "package" else "checkpoint",
        name=head.run,
        columns={
            "save_id": str(head.save_id),
            "created_at": format_time(head.created_at),
            "epoch": head.epoch,
            "step": head.step,
            "size_bytes": size_bytes,
            "torch_version": torch_version if isinstance(torch_version, str) else None,
            "parent_path": None if head.parent is None else head.parent.run.lower(),
            "parent_version": None if head.parent is None else head.parent.version,
            "config": head.config,
            "head": line.decode(),
        },
        metrics=metric_values(head.metrics),
    )


def metric_values(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics that are numbers, as doubles; NaN is None.

    Besides JSON's own numbers these are ``{"$float": "nan" | "inf" | "-inf"}`` and
    ``{"$int": "…"}``; an integer beyond a double's range becomes infinite.
    """
    values = {}
    for name, encoded in metrics.items():
        value = _number(encoded)
        if value is not None:
            values[name] = None if math.isnan(value) else value
    return values


def _number(encoded: object) -> float | None:
    if isinstance(encoded, int | float) and not isinstance(encoded, bool):
        return float(encoded)
    if isinstance(encoded, dict) and len(encoded) == 1:
        special, digits = encoded.get("$float"), encoded.get("$int")
        if isinstance(special, str):
            return FLOATS.get(special)
        if isinstance(digits, str) and INTEGER.fullmatch(digits):
            return float(digits)
    return None


def fact_columns(facts: VersionFacts) -> dict[str, object]:
    """Return the columns of a version's row that its journal decides."""
    retired = facts.retired
    return {
        "retired_at": None if retired is None else format_time(retired.time),
        "retired_by": None if retired is None else retired.reason,
        "retired_entry": None if retired is None else retired.entry,
        "note": facts.note,
        "damage_found": facts.damage,
        "late_metrics": dict(facts.metrics) or None,
    }


def read_facts(row: Any, tags: Sequence[str] = ()) -> VersionFacts:
    """Return what is known of a version.

    Args:
        row: Has the columns of :func:`fact_columns`.
        tags: The tags that point at it.
    """
    retired = None
    if row.retired_at is not None:
        time = datetime.fromisoformat(row.retired_at)
        retired = Retired(time, row.retired_by, row.retired_entry)
    return VersionFacts(tuple(tags), row.late_metrics or {}, row.note, retired, row.damage_found)
