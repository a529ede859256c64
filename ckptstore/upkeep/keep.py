"""What a run keeps, as its user says it and as its settings record it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, SupportsIndex

from ckptstore.errors import ArgumentError, IntegrityError, NewerFormatError
from ckptstore.format.facts import Mode
from ckptstore.format.fields import Fields

# Recorded in seconds as a double, which holds microseconds exactly for longer than that.
LONGEST = timedelta(days=36_500)
LARGEST = 2**63 - 1
COUNTS = ("last", "best", "every_epochs")
UNITS = {"day": 86_400, "hour": 3600, "minute": 60}


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which versions of a run stay when it is pruned; all others are retired.

    What is given adds up: a version stays if any of it keeps that version. Checkpoints and packages
    are counted apart. Some versions stay whatever is given here: tagged ones, the one this process
    resumed from, the newest intact one, the best by the run's monitor, and what a version that
    stays came from (the checkpoint of a package, the base of a fork).

    ::

        Keep(last=3, best=2, best_by={"val_acc": "max"}, every_epochs=10, within=timedelta(days=2))

    Args:
        last: So many of the newest.
        best: So many of the best by the run's monitor.
        best_by: Further metrics, each with ``"min"`` or ``"max"``: by each, as many of the best as
            *best* says, and at least one.
        every_epochs: The newest version of each epoch that so many divide, with epochs as they were
            saved: ``10`` keeps 10, 20, 30 …, and 0 where there is an epoch 0. Versions without an
            epoch are not kept by this.
        within: Versions created so long ago or later, by the clocks of the machines that saved them
            and of the one that prunes.
        tags: Tagged versions. They are never retired, so this says what is the case and can't be
            False: to let go of a version, take its tag away first.

    Raises:
        ArgumentError: A value is none of these, or nothing is given that keeps a version.
    """

    last: int = 0
    best: int = 0
    best_by: Mapping[str, Mode] = field(default_factory=dict, hash=False)
    every_epochs: int = 0
    within: timedelta | None = None
    tags: Literal[True] = True

    def __post_init__(self) -> None:
        for name in COUNTS:
            object.__setattr__(self, name, _count(name, getattr(self, name)))
        object.__setattr__(self, "best_by", _best_by(self.best_by))
        _check_within(self.within)
        _check_tags(self.tags)
        if not self.to_json():
            raise ArgumentError(
                "Keep() says nothing to keep but tagged versions, which always stay: give at least "
                "one of last=, best=, best_by=, every_epochs= and within=; Keep(last=1) keeps the "
                "least there is"
            )

    def __repr__(self) -> str:
        given = ", ".join(
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if getattr(self, each.name) and each.name != "tags"
        )
        return f"Keep({given})"

    def to_json(self) -> dict[str, Any]:
        """Return what is given, as the run's settings record it."""
        value: dict[str, Any] = {
            name: getattr(self, name) for name in COUNTS if getattr(self, name)
        }
        if self.best_by:
            value["best_by"] = dict(self.best_by)
        if self.within is not None:
            value["within_s"] = self.within.total_seconds()
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Keep:
        """Read what :meth:`to_json` made.

        Args:
            value: The recorded JSON.
            where: What it was read from, for messages.

        Raises:
            NewerFormatError: It keeps by something unknown here, so nobody can tell what it means
                to keep, and nothing may be retired.
            IntegrityError: It is not what any ckptstore records.
        """
        unknown = sorted(value.keys() - {*COUNTS, "best_by", "within_s"})
        if unknown:
            raise NewerFormatError(where, f"it keeps by {', '.join(map(repr, unknown))}")
        recorded = Fields(dict(value), where)
        options: dict[str, Any] = {
            name: recorded.number(name, least=1) for name in COUNTS if name in value
        }
        if "best_by" in value:
            options["best_by"] = recorded.mapping("best_by")
        try:
            if "within_s" in value:
                options["within"] = timedelta(seconds=_seconds(recorded))
            return cls(**options)
        except (ArgumentError, ValueError, OverflowError) as error:
            raise IntegrityError(f"{where}: what it says to keep is damaged: {error}") from error


def keep_json(keep: object) -> dict[str, Any] | None:
    """Return ``keep=`` as a run's settings record it; None stays None.

    Raises:
        ArgumentError: It is no :class:`Keep`.
    """
    if keep is None:
        return None
    if not isinstance(keep, Keep):
        raise ArgumentError(f"keep= takes a Keep, e.g. Keep(last=3, best=2), not {keep!r:.80}")
    return keep.to_json()


def duration(span: timedelta) -> str:
    """Return a span of time for people: ``2 days``, ``36 hours``, ``90.5 seconds``."""
    seconds = span.total_seconds()
    for unit, length in UNITS.items():
        if seconds % length == 0:
            return _counted(seconds // length, unit)
    return _counted(seconds, "second")


def _counted(count: float, unit: str) -> str:
    return f"{count:.15g} {unit}" + ("" if count == 1 else "s")


def _count(name: str, value: object) -> int:
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        count = operator.index(value)
        if 0 <= count <= LARGEST:
            return count
    raise ArgumentError(f"Keep({name}={value!r}): takes a whole number from 0")


def _best_by(value: object) -> dict[str, Mode]:
    if not isinstance(value, Mapping):
        raise ArgumentError(
            f"Keep(best_by={value!r}): takes metrics with their modes, as {{'val_acc': 'max'}}"
        )
    found: dict[str, Mode] = {}
    for metric, mode in value.items():
        if not isinstance(metric, str) or not metric:
            raise ArgumentError(f"Keep(best_by=…): {metric!r} is no metric's name")
        if mode not in ("min", "max"):
            raise ArgumentError(
                f"Keep(best_by={{{metric!r}: {mode!r}}}): say 'min' (lower is better) or 'max' "
                "(higher is better)"
            )
        found[metric] = mode
    # In one order, so that the same policy is recorded as the same bytes.
    return dict(sorted(found.items()))


def _check_within(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, timedelta) or not timedelta(0) < value <= LONGEST:
        raise ArgumentError(
            f"Keep(within={value!r}): takes a timedelta above 0 and of at most "
            f"{LONGEST.days} days, as timedelta(days=2)"
        )


def _check_tags(value: object) -> None:
    if value is not True:
        raise ArgumentError(
            f"Keep(tags={value!r}): tagged versions are never retired, so this can only be True; "
            "to let go of one, take its tag away with untag() first"
        )


def _seconds(recorded: Fields) -> float:
    value = recorded.get("within_s")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise recorded.bad("within_s", "a number of seconds")
    return value
