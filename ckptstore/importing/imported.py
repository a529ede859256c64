"""What an import did, as versions, as plain data, and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.format.manifest import Head
from ckptstore.text import aligned, number, plain, size

JSON_FORMAT = 1


@dataclass(frozen=True)
class ImportedFile:
    """A file or folder, and the version that it is in the store."""

    name: str
    """Its name alone."""
    head: Head
    """The version's."""
    is_new: bool
    """Whether it was brought in now. Else it was there already."""
    notes: tuple[str, ...] = ()
    """What was changed on the way, or left out, one sentence each."""


@dataclass(frozen=True, repr=False)
class Imported:
    """What was brought in from a folder, and what was there already."""

    source: str
    """Where it was, without credentials."""
    files: tuple[ImportedFile, ...]
    """In the order of their epochs and steps."""
    left: tuple[str, ...] = ()
    """What is in the folder and no checkpoint, by name."""

    @property
    def refs(self) -> list[str]:
        """The versions' refs, those that were there already included."""
        return [each.head.ref for each in self.files]

    @property
    def new(self) -> list[str]:
        """The refs of the versions that were brought in now."""
        return [each.head.ref for each in self.files if each.is_new]

    @property
    def notes(self) -> list[str]:
        """What was changed on the way, or left out, each with the file's name."""
        return [f"{each.name}: {note}" for each in self.files for note in each.notes]

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        lines = aligned(*self.table()) if self.files else []
        return "\n".join([*lines, *map(plain, self.notes), self.summary()])

    def table(self) -> tuple[Sequence[str], list[list[str]]]:
        """Return the header and one row a file; every cell is safe to print."""
        metrics = list(dict.fromkeys(name for each in self.files for name in each.head.metrics))
        rows = [
            [
                plain(each.head.ref),
                plain(_form(each)),
                _text(each.head.epoch),
                _text(each.head.step),
                *(_metric(each.head.metrics.get(name)) for name in metrics),
                size(sum(part.size_bytes for part in each.head.parts)),
                plain(each.name) if each.is_new else f"{plain(each.name)} (there already)",
            ]
            for each in self.files
        ]
        return ("ref", "kind", "epoch", "step", *map(plain, metrics), "size", "copy"), rows

    def summary(self) -> str:
        """Return in one line what was done."""
        new, old = len(self.new), len(self.files) - len(self.new)
        facts = [f"{new} imported", f"{old} there already"]
        if self.left:
            shown = ", ".join(self.left[:5]) + (", …" if len(self.left) > 5 else "")  # noqa: PLR2004 - a line has an end
            facts.append(f"{len(self.left)} no checkpoint ({shown})")
        return plain(f"{self.source}: {', '.join(facts)}")

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data; what its fields mean does not change."""
        return {
            "format": JSON_FORMAT,
            "source": self.source,
            "files": [
                {
                    "name": each.name,
                    "ref": each.head.ref,
                    "new": each.is_new,
                    "kind": _form(each),
                    "epoch": each.head.epoch,
                    "step": each.head.step,
                    "metrics": dict(each.head.metrics),
                    "parts": [part.name for part in each.head.parts],
                    "size_bytes": sum(part.size_bytes for part in each.head.parts),
                    "notes": list(each.notes),
                }
                for each in self.files
            ],
            "left": list(self.left),
        }


def _form(each: ImportedFile) -> str:
    return "" if each.head.imported_from is None else each.head.imported_from.format


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _metric(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value, 4) if is_number else ""  # type: ignore[arg-type] # is_number says so
