"""What pruning a run decided, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore.format.fields import format_time
from ckptstore.text import aligned, number, plain
from ckptstore.upkeep.keep import Keep
from ckptstore.upkeep.retention import PARENT_OF, Decision, Monitor, rule

MOST_CHILDREN = 3
"""So many children of one version are named in a table; :attr:`Decision.reasons` has them all."""


@dataclass(frozen=True, repr=False)
class Pruned:
    """What was kept of a run and what was retired, each version with the reasons.

    ``print()`` shows it as a table.
    """

    run: str
    keep: Keep
    monitor: Monitor
    dry_run: bool
    """Whether nothing was retired, and this only says what would be."""
    decisions: Sequence[Decision]
    """One for each version that was live before, newest first."""

    @property
    def kept(self) -> list[int]:
        """The versions that stay, newest first."""
        return [each.candidate.version for each in self.decisions if each.stays]

    @property
    def retired(self) -> list[int]:
        """The versions that were retired, or would be by a dry run, newest first."""
        return [each.candidate.version for each in self.decisions if not each.stays]

    def __repr__(self) -> str:
        return f"<Pruned {self.summary()}>"

    def __str__(self) -> str:
        return "\n".join([*aligned(*self.table()), self.summary()])

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns' names and one row a version, as text that is safe to print."""
        several_kinds = len({each.candidate.kind for each in self.decisions}) > 1
        metrics = dict.fromkeys([self.monitor.metric, *self.keep.best_by])
        header = ["ref", *(["kind"] if several_kinds else []), "epoch", *map(plain, metrics)]
        header += ["created (UTC)", "decision", "reasons"]
        rows = []
        for decision in self.decisions:
            each = decision.candidate
            rows.append(
                [
                    plain(f"{self.run}@{each.version}"),
                    *([each.kind] if several_kinds else []),
                    "" if each.epoch is None else number(each.epoch),
                    *(
                        number(each.metrics[name]) if name in each.metrics else ""
                        for name in metrics
                    ),
                    each.created_at.strftime("%Y-%m-%d %H:%M:%S"),
                    "keep" if decision.stays else "retire",
                    plain("; ".join(_shown(decision.reasons))),
                ]
            )
        return header, rows

    def to_json(self) -> list[dict[str, Any]]:
        """Return the decisions as plain data for programs, newest first."""
        return [
            {
                "ref": f"{self.run}@{each.version}",
                "run": self.run,
                "version": each.version,
                "kind": each.kind,
                "epoch": each.epoch,
                "created_at": format_time(each.created_at),
                "keep": decision.stays,
                "reasons": list(decision.reasons),
                "dry_run": self.dry_run,
            }
            for decision in self.decisions
            for each in [decision.candidate]
        ]

    def summary(self) -> str:
        """Return one line that says how many stay, and by which rule the others don't."""
        would = "would be retired" if self.dry_run else "retired"
        return plain(
            f"{self.run}: {len(self.kept)} kept, {len(self.retired)} {would} "
            f"({rule(self.keep, self.monitor)})"
        )


def _shown(reasons: Sequence[str]) -> list[str]:
    """Return the reasons, of many children the first alone."""
    children = [reason for reason in reasons if reason.startswith(PARENT_OF)]
    if len(children) <= MOST_CHILDREN:
        return list(reasons)
    first = children[0]
    return [
        f"{reason} and {len(children) - 1} more" if reason is first else reason
        for reason in reasons
        if reason is first or reason not in children
    ]
