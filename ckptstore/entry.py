"""What the user holds: checkpoints, packages and the history they make up."""

from __future__ import annotations

from dataclasses import dataclass

from ckptstore.format.manifest import Head


@dataclass(frozen=True)
class Record:
    """One version as the catalog knows it."""

    path: str
    """The run's path: its name in lower case."""
    version: int
    head: Head | None
    """None where the manifest is damaged."""
    damage: str | None = None
    """What is wrong with the manifest, where it is damaged."""
    tags: tuple[str, ...] = ()
    """The tags that point at it, sorted."""
