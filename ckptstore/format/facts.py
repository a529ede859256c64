"""What a run's journal adds up to: its settings, its tags, and what is known of each version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Mode = Literal["min", "max"]
DEFAULT_MONITOR = "val_loss"
DEFAULT_MODE: Mode = "min"
LATE = "late: "
"""How the reason begins by which a commit that came too late takes itself back. What it built upon
may have been deletable before it came, so it can't be undeleted."""


@dataclass(frozen=True)
class Settings:
    """What a run means by "best", what it keeps, and its hyperparameters."""

    monitor: str = DEFAULT_MONITOR
    mode: Mode = DEFAULT_MODE
    config: Any = None
    """An encoded tree, or None."""
    keep: Mapping[str, Any] | None = None
    """What retention keeps, as its own JSON; None keeps everything."""


@dataclass(frozen=True)
class Retired:
    """That a version was retired: its data are deleted some time after."""

    time: datetime
    """By the clock of whoever retired it: for people."""
    reason: str
    entry: int
    """The number of the journal entry that says so. Its storage time is what clean-up counts."""


@dataclass(frozen=True)
class VersionFacts:
    """What was recorded about one version after it was committed."""

    tags: tuple[str, ...] = ()
    """The tags that point at it, sorted."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Metrics that came later, encoded; each goes before the manifest's of the same name."""
    note: str | None = None
    retired: Retired | None = None
    damage: str | None = None
    """What a check found wrong with its data, None if nothing or if it was mended since."""


@dataclass(frozen=True)
class Facts:
    """What a journal adds up to."""

    settings: Settings | None = None
    """None until they were recorded: then the defaults hold."""
    tags: Mapping[str, int] = field(default_factory=dict)
    """The version each tag points at."""
    versions: Mapping[int, VersionFacts] = field(default_factory=dict)
    """Versions about which anything but a tag was recorded; their ``tags`` are left empty."""
