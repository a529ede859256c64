"""What copying between two stores did, as plain data and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.text import aligned, plain, size

JSON_FORMAT = 1


@dataclass(frozen=True)
class CopiedVersion:
    """A version, and what it is in the other store."""

    ref: str
    copy: str
    """Its ref in the other store."""
    kind: str
    """``checkpoint`` or ``package``."""
    is_new: bool
    """Whether it was copied now. Else it was there already."""
    bytes_written: int = 0
    """Of packs and files that were written for it."""
    bytes_shared: int = 0
    """Of its tensors and files, those that lay in the other store already."""


@dataclass(frozen=True, repr=False)
class Copied:
    """What was copied from one store to another, and what was there already."""

    source: str
    """Where the one store is, without credentials."""
    target: str
    """Where the other is."""
    versions: tuple[CopiedVersion, ...]
    """In the order in which they were looked at: within a run by number."""
    retired: tuple[str, ...] = ()
    """Refs of versions that were not copied because they are retired."""
    entries: int = 0
    """How many journal entries (tags, metrics, notes, settings) were added."""
    left: tuple[str, ...] = ()
    """What was left as the other store has it, one sentence each."""

    @property
    def copied(self) -> list[tuple[str, str]]:
        """The refs of what was copied now, each with that of its copy."""
        return [(each.ref, each.copy) for each in self.versions if each.is_new]

    @property
    def there(self) -> list[tuple[str, str]]:
        """The refs of what was there already, each with what it is there."""
        return [(each.ref, each.copy) for each in self.versions if not each.is_new]

    @property
    def bytes_written(self) -> int:
        """Bytes of packs and files that were written."""
        return sum(each.bytes_written for each in self.versions)

    @property
    def bytes_shared(self) -> int:
        """Bytes of tensors of copied versions that lay in the other store already."""
        return sum(each.bytes_shared for each in self.versions)

    def __repr__(self) -> str:
        lines = aligned(*self.table()) if self.versions else []
        return "\n".join([*lines, *map(plain, self.left), self.summary()])

    def table(self) -> tuple[Sequence[str], list[list[str]]]:
        """Return the header and one row a version; every cell is safe to print."""
        rows = [
            [
                plain(each.ref),
                each.kind,
                size(each.bytes_written) if each.is_new else "",
                size(each.bytes_shared) if each.is_new else "",
                plain(each.copy) if each.is_new else f"{plain(each.copy)} (there already)",
            ]
            for each in self.versions
        ]
        return ("ref", "kind", "written", "shared", "copy"), rows

    def summary(self) -> str:
        """Return in one line what was done."""
        facts = [
            f"{len(self.copied)} copied",
            f"{len(self.there)} there already",
            *([f"{len(self.retired)} retired and not copied"] if self.retired else []),
            f"{size(self.bytes_written)} written",
            f"{size(self.bytes_shared)} shared",
            f"{self.entries} journal {'entry' if self.entries == 1 else 'entries'} added",
        ]
        return plain(f"{self.source} to {self.target}: ") + ", ".join(facts)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data; what its fields mean does not change."""
        return {
            "format": JSON_FORMAT,
            "source": self.source,
            "target": self.target,
            "versions": [
                {
                    "ref": each.ref,
                    "copy": each.copy,
                    "kind": each.kind,
                    "new": each.is_new,
                    "bytes_written": each.bytes_written,
                    "bytes_shared": each.bytes_shared,
                }
                for each in self.versions
            ],
            "retired": list(self.retired),
            "journal_entries": self.entries,
            "left": list(self.left),
        }
