"""What a store promises, as a dictionary: runs, versions, tags, and what time it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ckptstore.format.store_facts import DEFAULT_GRACE_S
from tests.clocks import START
from tests.prove.state_machine.states import State

GRACE = timedelta(seconds=DEFAULT_GRACE_S)
RUNS = ("digits", "fork")
CHECKPOINT, PACKAGE = "checkpoint", "package"


@dataclass
class Version:
    """A version that was acknowledged, or that was found after a crash."""

    kind: str
    state: State
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    retired_at: datetime | None = None
    """By the storage's clock."""
    final: bool = False
    """Whether it came too late, so that nobody can bring it back."""
    parent: str | None = None
    """As the store says; it never changes."""

    @property
    def is_live(self) -> bool:
        return self.retired_at is None


@dataclass
class RunModel:
    """What one run holds."""

    versions: dict[int, Version] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    logged: list[tuple[int, float]] = field(default_factory=list)
    keep: int | None = None
    """How many of the last the recorded settings keep."""

    def live(self, kind: str | None = None) -> dict[int, Version]:
        return {
            number: version
            for number, version in self.versions.items()
            if version.is_live and kind in (None, version.kind)
        }

    def latest(self) -> int | None:
        return max(self.live(CHECKPOINT), default=None)

    def best(self, kind: str = CHECKPOINT) -> int | None:
        """The lowest ``val_loss``; of equal ones the earliest."""
        rated = [
            (version.metrics["val_loss"], number)
            for number, version in self.live(kind).items()
            if "val_loss" in version.metrics
        ]
        return min(rated)[1] if rated else None

    def newest(self, kind: str, count: int) -> list[int]:
        return sorted(self.live(kind), reverse=True)[:count]


@dataclass
class Model:
    """Both runs, and the storage's clock."""

    runs: dict[str, RunModel] = field(default_factory=lambda: {run: RunModel() for run in RUNS})
    now: datetime = START
    announced: set[tuple[str, int]] = field(default_factory=set)
    """Versions of which a save that was interrupted may have said that they get a child."""

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def shown(self) -> dict[str, Any]:
        """What a reader of the store must see, in plain values."""
        return {run: shown(model) for run, model in self.runs.items() if model.versions}

    def refs(self, *, live: bool | None = None, kind: str | None = None) -> list[tuple[str, int]]:
        return [
            (run, number)
            for run, model in self.runs.items()
            for number, version in model.versions.items()
            if live in (None, version.is_live) and kind in (None, version.kind)
        ]

    def version(self, ref: tuple[str, int]) -> Version:
        return self.runs[ref[0]].versions[ref[1]]

    # ------------------------------------------------------------ retention

    def must_stay(self, run: str, last: int, resumed: Iterable[int]) -> set[int]:
        """Return the live versions that ``Keep(last=…)`` and the rules above it protect."""
        model = self.runs[run]
        stays = {*model.tags.values(), *resumed, *self._parents_elsewhere(run)}
        for kind in (CHECKPOINT, PACKAGE):
            stays |= {*model.newest(kind, last), *model.newest(kind, 1)}
            stays |= {best for best in [model.best(kind)] if best is not None}
        stays &= set(model.live())
        parents = set(self._parents(run, stays))
        while more := set(self._parents(run, self._packages(run, parents))) - parents:
            parents |= more
        return stays | parents

    def may_stay(self, run: str, last: int, resumed: Iterable[int]) -> set[int]:
        """Return those that may be protected as well, as an interrupted save may have said so."""
        told = {number for path, number in self.announced if path == run}
        return self.must_stay(run, last, {*resumed, *told})

    def _packages(self, run: str, numbers: set[int]) -> set[int]:
        return {each for each in numbers if self.runs[run].versions[each].kind == PACKAGE}

    def _parents(self, run: str, stays: set[int]) -> Iterator[int]:
        live = self.runs[run].live()
        for number in stays:
            parent = self._number(live[number].parent, run)
            if parent in live and parent != self._previous(run, number):
                yield parent

    def _previous(self, run: str, number: int) -> int | None:
        versions = self.runs[run].versions
        of_its_kind = [each for each in versions if versions[each].kind == versions[number].kind]
        return max((each for each in of_its_kind if each < number), default=None)

    def _parents_elsewhere(self, run: str) -> Iterator[int]:
        for other, model in self.runs.items():
            for version in model.live().values() if other != run else ():
                parent = self._number(version.parent, run)
                if parent is not None:
                    yield parent

    @staticmethod
    def _number(parent: str | None, run: str) -> int | None:
        """Return a parent's number if it is a version of that run."""
        if parent is None:
            return None
        found, _, number = parent.partition("@")
        return int(number) if found == run else None


def shown(model: RunModel) -> dict[str, Any]:
    """What a reader must see of a run, in plain values."""
    return {
        "versions": {
            number: (
                version.kind,
                version.epoch,
                dict(sorted(version.metrics.items())),
                version.note,
                "live" if version.is_live else "retired",
                sorted(tag for tag, at in model.tags.items() if at == number),
            )
            for number, version in sorted(model.versions.items())
        },
        "tags": dict(sorted(model.tags.items())),
        "logged": list(model.logged),
        "keep": model.keep,
        "best": model.best(),
        "latest": model.latest(),
    }
