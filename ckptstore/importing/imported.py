"""What an import did: the versions, as a history, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.entry import Checkpoint
from ckptstore.format.manifest import Head
from ckptstore.history import History
from ckptstore.text import plain

JSON_FORMAT = 1
MAX_LEFT_SHOWN = 5


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
    tensors: int = 0
    """How many tensors' digests were compared: as they were read, and as they are recorded."""
    by_name: tuple[str, ...] = ()
    """What its name alone says of it, e.g. ``epoch 12``."""


@dataclass(frozen=True)
class Done:
    """What was brought in from a place."""

    source: str
    """Where it was, without credentials."""
    files: tuple[ImportedFile, ...]
    """In the order of their epochs and steps."""
    left: tuple[str, ...] = ()
    """What is in the folder and no checkpoint, by name."""


class Imported(History):
    """The versions that a folder's checkpoints are now, in the order of their epochs.

    Attributes:
        source: Where they were, without credentials.
        new: The refs of those that were imported now; the others were there already.
        left: What is in the folder and no checkpoint, by name; a folder's ends in ``/``.
        tensors: How many tensors were imported. The digest of each, as it was read from its file,
            is the one that its version records: else the import fails.
    """

    def __init__(self, versions: Sequence[Checkpoint], done: Done) -> None:
        super().__init__(versions)
        self.source = done.source
        self.new = tuple(each.head.ref for each in done.files if each.is_new)
        self.left = done.left
        self.tensors = sum(each.tensors for each in done.files)
        self._files = done.files

    def notes(self) -> list[str]:
        """Return what was changed on the way, left out, or there already; one line each."""
        said = [f"{plain(each.name)}: {plain(note)}" for each in self._files for note in each.notes]
        return [*super().notes(), *said, *self.by_name()]

    def by_name(self) -> list[str]:
        """Return the facts that were taken from names alone, one line a file."""
        return [
            f"{plain(each.name)}: {plain(', '.join(each.by_name))}, as its name alone says"
            for each in self._files
            if each.by_name
        ]

    def summary(self) -> str:
        """Return in one line what was done."""
        facts = [f"{len(self.new)} imported", f"{len(self) - len(self.new)} there already"]
        if self.new:
            facts.append(f"{self.tensors} tensors, digests equal")
        if self.left:
            shown = ", ".join(self.left[:MAX_LEFT_SHOWN])
            more = ", …" if len(self.left) > MAX_LEFT_SHOWN else ""
            facts.append(f"{len(self.left)} no checkpoint ({shown}{more})")
        return plain(f"{self.source}: {', '.join(facts)}")

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data; what its fields mean does not change."""
        return {
            "format": JSON_FORMAT,
            "source": self.source,
            "versions": [
                {
                    "file": each.name,
                    "ref": each.head.ref,
                    "new": each.is_new,
                    "format": each.head.imported_from and each.head.imported_from.format,
                    "epoch": each.head.epoch,
                    "step": each.head.step,
                    "metrics": dict(each.head.metrics),
                    "parts": [part.name for part in each.head.parts],
                    "size_bytes": sum(part.size_bytes for part in each.head.parts),
                    "notes": list(each.notes),
                    "tensors": each.tensors,
                    "by_name": list(each.by_name),
                }
                for each in self._files
            ],
            "left": list(self.left),
        }
