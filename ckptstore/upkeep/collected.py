"""What a collection did, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ckptstore.format.fields import format_time
from ckptstore.storage.base import Leftover, Stored
from ckptstore.text import plain, size
from ckptstore.upkeep.garbage import Tally

MOST_SHOWN = 10
DAY_S = 24 * 60 * 60
NOTHING = Tally()


@dataclass(frozen=True)
class Collected:
    """What a collection deleted, or would delete, and what it kept.

    ``str()`` tells it to people.
    """

    now: datetime
    """The storage's time by which all was judged."""
    grace_s: int
    """The store's grace period in seconds."""
    dry_run: bool
    """Whether nothing was deleted: it is only said what would be."""
    deleted: tuple[Stored, ...]
    """Packs and files that were deleted, those that were gone already among them."""
    leftovers: tuple[Leftover, ...]
    """What interrupted writes had left, and was removed too."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """What could not be deleted, by key, and why. Collecting again tries again."""
    in_use: Tally = NOTHING
    """Kept, as versions need them."""
    retired: Tally = NOTHING
    """Kept, as the versions that need them were retired within the grace period."""
    recent: Tally = NOTHING
    """Kept, as they are no older than the grace period and what needs them may be on its way."""

    @property
    def deleted_bytes(self) -> int:
        """How many bytes were deleted, or would be, as far as the storage says."""
        packs = sum(each.size_bytes for each in self.deleted)
        return packs + sum(each.size_bytes or 0 for each in self.leftovers)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain data for JSON."""
        return {
            "now": format_time(self.now),
            "grace_s": self.grace_s,
            "dry_run": self.dry_run,
            "deleted_bytes": self.deleted_bytes,
            "deleted": [_json(stored) for stored in self.deleted],
            "leftovers": [_json(each) | {"upload": each.upload} for each in self.leftovers],
            "failed": dict(self.failed),
            "kept": {
                name: {"count": tally.count, "size_bytes": tally.size_bytes}
                for name, tally in self._kept()
            },
        }

    def __repr__(self) -> str:
        did = "would delete" if self.dry_run else "deleted"
        left = f"{len(self.leftovers)} leftover{'' if len(self.leftovers) == 1 else 's'}"
        lines = [f"{did} {size(self.deleted_bytes)}: {_packs(len(self.deleted))} and {left}"]
        why = {
            "in_use": "needed by versions",
            "retired": f"retired less than {_span(self.grace_s)} ago",
            "recent": "too recent to tell",
        }
        lines += [
            f"kept {size(tally.size_bytes)}: {_packs(tally.count)} {why[name]}"
            for name, tally in self._kept()
            if tally.count
        ]
        if self.failed:
            lines.append(f"could not delete {len(self.failed)}; collecting again tries again:")
            shown = list(self.failed.items())[:MOST_SHOWN]
            lines += [f"  {plain(key)}: {plain(why)}" for key, why in shown]
            if len(self.failed) > MOST_SHOWN:
                lines.append(f"  … and {len(self.failed) - MOST_SHOWN} more")
        return "\n".join(lines)

    def _kept(self) -> tuple[tuple[str, Tally], ...]:
        return ("in_use", self.in_use), ("retired", self.retired), ("recent", self.recent)


def _json(each: Stored | Leftover) -> dict[str, Any]:
    written_at = None if each.written_at is None else format_time(each.written_at)
    return {"key": each.key, "size_bytes": each.size_bytes, "written_at": written_at}


def _span(seconds: int) -> str:
    days = seconds / DAY_S
    return f"{days:g} day{'' if days == 1 else 's'}" if days >= 1 else f"{seconds} seconds"


def _packs(count: int) -> str:
    return "1 pack or file" if count == 1 else f"{count} packs and files"
