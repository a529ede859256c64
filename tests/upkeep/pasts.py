"""Histories that retention is tried on, and the policies it is tried with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ckptstore.upkeep.keep import Keep
from ckptstore.upkeep.pruned import Pruned
from ckptstore.upkeep.retention import Candidate, Monitor, decide

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
VAL_LOSS = Monitor("val_loss", "min")


def version(number: int, **facts: Any) -> Candidate:
    """A checkpoint, one of an hour each, the last of them an hour old; one an epoch from 0."""
    values: dict[str, Any] = {
        "kind": "checkpoint",
        "created_at": NOW - timedelta(hours=max(25 - number, 1)),
        "epoch": number - 1,
        "parent": number - 1 if number > 1 else None,
    }
    return Candidate(number, **{**values, **facts})


NAN = float("nan")


def losses(*values: float, **facts: Any) -> list[Candidate]:
    return [
        version(number, metrics={"val_loss": value}, **facts)
        for number, value in enumerate(values, 1)
    ]


@dataclass(frozen=True)
class Past:
    """A run's live versions, and what is known of it besides."""

    candidates: Sequence[Candidate]
    monitor: Monitor = VAL_LOSS
    protected: Mapping[int, Sequence[str]] = field(default_factory=dict)


def _training() -> Past:
    """One training of 24 epochs, at its best in the middle."""
    return Past(
        [
            version(
                number,
                metrics={"val_loss": abs(number - 15) / 10 + 0.25, "val_acc": number % 7 / 10},
                tags=("first",) if number == 1 else (),
            )
            for number in range(1, 25)
        ]
    )


def _ties() -> Past:
    return Past(losses(0.5, 0.25, 0.25, 0.25, 0.75))


def _unusable() -> Past:
    """NaN, infinities, no value: only NaN and no value are never the best."""
    return Past(
        [
            *losses(NAN, float("inf"), 0.5, NAN, float("inf")),
            version(6, metrics={}),
            version(7, metrics={"val_acc": NAN}),
        ]
    )


def _greatest() -> Past:
    """A monitor of which more is better."""
    return Past(
        [
            version(number, metrics={"val_acc": value})
            for number, value in enumerate((0.0, 0.9, float("-inf"), 0.9, 0.8), 1)
        ],
        Monitor("val_acc", "max"),
    )


def _packages() -> Past:
    """Packages among checkpoints, each made of one; the last came from a live module."""
    return Past(
        [
            *losses(0.9, 0.3, 0.4),
            version(4, kind="package", epoch=None, parent=1),
            version(5, kind="package", epoch=None, parent=2, tags=("prod", "a-b")),
            version(6, parent=3, metrics={"val_loss": 0.6}),
            version(7, parent=6, metrics={"val_loss": 0.7}),
            version(8, kind="package", epoch=None, parent=7),
            version(9, kind="package", epoch=None, parent=None),
            version(10, parent=7, metrics={"val_loss": 0.8}),
            version(11, parent=10, metrics={"val_loss": 0.85}),
        ]
    )


def _went_back() -> Past:
    """A training that went back to version 2, and then to version 4."""
    return Past(
        [
            *losses(0.1, 0.5, 0.6, 0.7),
            version(5, parent=2, metrics={"val_loss": 0.55}),
            version(6, parent=5, metrics={"val_loss": 0.5}),
            version(7, parent=4, metrics={"val_loss": 0.45}),
        ]
    )


def _two_writers() -> Past:
    """Two trainings saving into one run, in turn."""
    return Past(
        [
            version(number, epoch=(number - 1) // 2, parent=number - 2 if number > 2 else None)
            for number in range(1, 13)
        ]
    )


def _damaged() -> Past:
    """The newest and the best are damaged."""
    return Past(
        [
            *losses(0.5, 0.4, 0.3, 0.35),
            version(5, metrics={"val_loss": 0.1}, intact=False),
            version(6, metrics={"val_loss": 0.15}, intact=False),
            version(7, metrics={"val_loss": 0.2}, intact=False),
        ]
    )


def _lean() -> Past:
    """Told to stop twice, with time for the model alone: 3 and 4, then 6; each is the best yet."""
    losses_ = (0.5, 0.45, 0.3, 0.2, 0.4, 0.1)
    return Past(
        [
            version(number, metrics={"val_loss": value}, complete=number not in {3, 4, 6})
            for number, value in enumerate(losses_, 1)
        ]
    )


def _held() -> Past:
    """Versions that something outside of the run holds on to."""
    return Past(
        losses(0.1, 0.2, 0.3, 0.4, 0.5),
        protected={
            2: ["this process resumed from it"],
            4: ["parent of fork@1", "parent of fork@3"],
        },
    )


def _retold() -> Past:
    """Epochs saved twice, an epoch without number, epochs from -2: what others may have saved."""
    epochs = (-2, -1, 0, 0, 1, 2, 2, None, 3, 4, 2)
    return Past([version(number, epoch=epoch) for number, epoch in enumerate(epochs, 1)])


def _clocks() -> Past:
    """One saved by a clock that is ahead, one exactly two days ago, one a moment earlier."""
    two_days_ago = NOW - timedelta(days=2)
    return Past(
        [
            version(1, created_at=NOW + timedelta(hours=9)),
            version(2, created_at=two_days_ago - timedelta(microseconds=1)),
            version(3, created_at=two_days_ago),
            version(4, created_at=NOW - timedelta(days=9)),
        ]
    )


PASTS: Mapping[str, Past] = {
    "training": _training(),
    "ties": _ties(),
    "unusable": _unusable(),
    "greatest": _greatest(),
    "packages": _packages(),
    "went-back": _went_back(),
    "two-writers": _two_writers(),
    "damaged": _damaged(),
    "lean": _lean(),
    "held": _held(),
    "retold": _retold(),
    "clocks": _clocks(),
    "empty": Past([]),
}

KEEPS: Mapping[str, Keep] = {
    "last-1": Keep(last=1),
    "last-3": Keep(last=3),
    "best-2": Keep(best=2),
    "best-by": Keep(best_by={"val_acc": "max"}),
    "best-2-by": Keep(best=2, best_by={"val_acc": "max", "val_loss": "min"}),
    "every-10": Keep(every_epochs=10),
    "every-2": Keep(every_epochs=2),
    "every-1": Keep(every_epochs=1),
    "within-2-days": Keep(within=timedelta(days=2)),
    "within-90-minutes": Keep(within=timedelta(minutes=90)),
    "all-of-it": Keep(
        last=3,
        best=2,
        best_by={"val_acc": "max"},
        every_epochs=10,
        within=timedelta(hours=6),
        tags=True,
    ),
}

TRIED = [
    *(("training", keep) for keep in KEEPS if keep not in ("every-1", "within-2-days")),
    ("ties", "best-2"),
    ("unusable", "best-2-by"),
    ("greatest", "best-2"),
    ("greatest", "best-2-by"),
    ("packages", "last-1"),
    ("packages", "last-3"),
    ("packages", "best-2"),
    ("went-back", "last-1"),
    ("went-back", "best-2"),
    ("two-writers", "last-3"),
    ("damaged", "last-1"),
    ("damaged", "last-3"),
    ("damaged", "best-2"),
    ("damaged", "every-2"),
    ("lean", "last-1"),
    ("lean", "last-3"),
    ("lean", "best-2"),
    ("lean", "every-1"),
    ("lean", "within-90-minutes"),
    ("held", "last-1"),
    ("retold", "every-2"),
    ("retold", "every-1"),
    ("clocks", "within-2-days"),
    ("empty", "all-of-it"),
]
"""Pairs of a past and a policy that have a golden file."""


def pruned(past: Past, keep: Keep) -> Pruned:
    decisions = decide(
        past.candidates,
        keep,
        run="digits",
        monitor=past.monitor,
        now=NOW,
        protected=past.protected,
    )
    return Pruned("digits", keep, past.monitor, dry_run=True, decisions=decisions)
