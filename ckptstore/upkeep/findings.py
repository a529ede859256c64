"""What a check found, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ckptstore.text import aligned, plain, size

Kind = Literal[
    "catalog",
    "file",
    "hole",
    "journal",
    "leftover",
    "manifest",
    "mended",
    "newer",
    "orphan",
    "pack",
    "store",
    "unknown",
    "void",
]
Severity = Literal["damage", "note"]

JSON_FORMAT = 1


@dataclass(frozen=True)
class Finding:
    """One thing that a check found."""

    kind: Kind
    severity: Severity
    """``damage``: something that was promised is not there. ``note``: worth knowing, no loss."""
    ref: str | None
    """The version or the run it is about, if it is about one."""
    key: str | None
    """The object it is about, relative to the store's root, if it is about one."""
    message: str
    repaired: str | None = None
    """What ``repair=True`` did about it, None if nothing."""


@dataclass(frozen=True)
class Report:
    """What a check of a store found, and how much it looked at."""

    url: str
    """Where the store is, without credentials."""
    deep: bool
    """Whether every byte of the data was read, or sizes and headers alone."""
    findings: tuple[Finding, ...]
    """Damage first, then by run, version and object."""
    runs: int
    versions: int
    journal_entries: int
    packs: int
    """Packs and files that versions name, each counted once."""
    bytes_read: int
    """Of packs and files."""

    @property
    def ok(self) -> bool:
        """Whether no damage was found. What was repaired was found: check again to see it gone."""
        return not any(finding.severity == "damage" for finding in self.findings)

    @property
    def damaged(self) -> tuple[str, ...]:
        """The refs of damaged versions (and runs, where their journal is), each once."""
        refs = [
            finding.ref
            for finding in self.findings
            if finding.severity == "damage" and finding.ref is not None
        ]
        return tuple(dict.fromkeys(refs))

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; what its fields mean does not change."""
        counts = {
            "runs": self.runs,
            "versions": self.versions,
            "journal_entries": self.journal_entries,
            "packs": self.packs,
            "bytes_read": self.bytes_read,
        }
        return {
            "format": JSON_FORMAT,
            "store": self.url,
            "ok": self.ok,
            "deep": self.deep,
            "damaged": list(self.damaged),
            "counts": counts,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def table(self) -> tuple[Sequence[str], list[list[str]]]:
        """Return the header and the rows of a table for people; every cell is safe to print."""
        rows = [
            [
                finding.severity,
                finding.kind,
                plain(finding.ref or finding.key or ""),
                plain(finding.message)
                + (f"; repaired: {plain(finding.repaired)}" if finding.repaired else ""),
            ]
            for finding in self.findings
        ]
        return ("severity", "kind", "ref", "found"), rows

    def summary(self) -> str:
        """Return in one line what was looked at and what came of it."""
        damage = sum(finding.severity == "damage" for finding in self.findings)
        notes = len(self.findings) - damage
        how = f"{size(self.bytes_read)} read" if self.deep else "sizes and headers alone"
        outcome = (
            f"{damage} {_plural('finding', damage)} of damage" if damage else "no damage found"
        )
        return (
            f"{self.versions} {_plural('version', self.versions)} in {self.runs} "
            f"{_plural('run', self.runs)}, {self.journal_entries} journal "
            f"{'entry' if self.journal_entries == 1 else 'entries'}, {self.packs} "
            f"{_plural('pack', self.packs)}, {how}: {outcome}, {notes} {_plural('note', notes)}"
        )

    def __repr__(self) -> str:
        lines = aligned(*self.table()) if self.findings else []
        return "\n".join([*lines, self.summary()])


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
