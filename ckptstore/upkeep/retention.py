"""Retention: which versions of a run stay, and why. Pure: touches no storage."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ckptstore.format.facts import Mode
from ckptstore.format.manifest import KINDS
from ckptstore.text import number
from ckptstore.upkeep.keep import Keep, duration

PARENT_OF = "parent of "
"""What a reason begins with that names a child."""
NOTHING: Mapping[int, Sequence[str]] = {}


@dataclass(frozen=True)
class Candidate:
    """A live version whose manifest can be read, as far as retention looks at it."""

    version: int
    kind: str
    """``checkpoint`` or ``package``."""
    created_at: datetime
    """By the clock of whoever saved it."""
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Later ones included."""
    tags: tuple[str, ...] = ()
    parent: int | None = None
    """The version of the same run that it came from; None if there is none, or in another run."""
    intact: bool = True
    """Whether nothing is known to be wrong with its data."""
    complete: bool = True
    """Whether no part was left out, as a save on a signal does when time is short."""

    @property
    def resumable(self) -> bool:
        """Whether a training can go on from it as it was."""
        return self.intact and self.complete


@dataclass(frozen=True)
class Decision:
    """What becomes of a version, and why."""

    candidate: Candidate
    reasons: tuple[str, ...]
    """Every reason why it stays; none means that it is to be retired."""

    @property
    def stays(self) -> bool:
        """Whether there is a reason to keep it."""
        return bool(self.reasons)


@dataclass(frozen=True)
class Monitor:
    """The metric by which a run's versions are compared."""

    metric: str
    mode: Mode


def decide(
    candidates: Sequence[Candidate],
    keep: Keep,
    *,
    run: str,
    monitor: Monitor,
    now: datetime,
    recorded: Monitor | None = None,
    protected: Mapping[int, Sequence[str]] = NOTHING,
    before: Mapping[int, int | None] | None = None,
) -> list[Decision]:
    """Say what *keep* keeps of a run's live versions, and why.

    Checkpoints and packages are counted apart. Whatever *keep* says, these stay: what *protected*
    names; tagged versions; of each kind the newest intact one that is complete and the best by the
    run's monitor; and the version that one came from which stays for a reason of its own.

    In that last rule the run's previous version of the same kind is no parent. Every version of a
    training came from the one before: were that a reason, none would ever be retired. Nor does a
    checkpoint that stays as a parent alone hold on to what it came from in turn. So the checkpoint
    of a package stays, always, and that to which a training went back.

    Damaged versions are never the best, and don't use up a place among the last.

    A version that lacks a part is none that a training goes on from, so it never takes the place of
    a complete one: not among the last, nor of an epoch, nor among the best. It stays itself as long
    as it is the newest of all; and, as its model is whole, while it is better than the best that
    stay, or within the time asked for.

    Args:
        candidates: The live versions, each once, in any order.
        keep: What to keep.
        run: The run's name, for the reasons.
        monitor: What "best" means to whoever asks.
        recorded: What it means to everybody else, if that is something else: the best by either
            stays.
        now: The time from which ``within`` counts.
        protected: Further versions that stay, each with its reasons.
        before: Of versions before which some may be retired: the run's previous version of the same
            kind. Of all others that is the previous candidate.

    Returns:
        One decision a version, newest first.
    """
    newest_first = sorted(candidates, key=lambda each: each.version, reverse=True)
    reasons: dict[int, list[str]] = {
        each.version: [
            *(f"tag {tag}" for tag in sorted(each.tags)),
            *protected.get(each.version, ()),
        ]
        for each in newest_first
    }
    for kind in KINDS:
        own = [each for each in newest_first if each.kind == kind]
        for version, reason in _protections(own, dict.fromkeys([monitor, recorded or monitor])):
            reasons[version].append(reason)
        for version, reason in _policies(own, keep, monitor, now):
            reasons[version].append(reason)
    for version, reason in _parents(newest_first, reasons, run, before or {}):
        reasons[version].append(reason)
    return [Decision(each, tuple(reasons[each.version])) for each in newest_first]


def rule(keep: Keep, monitor: Monitor) -> str:
    """Return in words why a version is retired that *keep* doesn't keep."""
    wanted = [f"the last {keep.last}" if keep.last > 1 else "the last"] if keep.last else []
    wanted += [
        f"the best{f' {count}' if count > 1 else ''} by {by.metric} ({by.mode})"
        for by, count in _wanted(keep, monitor)
    ]
    if keep.every_epochs == 1:
        wanted.append("the last of each epoch")
    elif keep.every_epochs:
        wanted.append(f"the last of epochs that are multiples of {keep.every_epochs}")
    if keep.within is not None:
        wanted.append(f"those created within {duration(keep.within)}")
    return f"the policy keeps {', '.join(wanted)}"


Reasons = list[tuple[int, str]]


def _protections(newest_first: Sequence[Candidate], monitors: Iterable[Monitor]) -> Reasons:
    found: Reasons = []
    for each in newest_first:
        if each.resumable:
            found.append((each.version, f"newest intact {each.kind}"))
            break
        if each.intact and not found:
            found.append((each.version, f"newest {each.kind}, though not complete"))
    for monitor in monitors:
        for place, each in enumerate(_best(newest_first, monitor, 1)):
            if place and not each.complete:
                continue
            best = "best complete one" if place else "best"
            found.append((each.version, f"{best} by {monitor.metric} (the run's monitor)"))
    return found


def _policies(
    newest_first: Sequence[Candidate], keep: Keep, monitor: Monitor, now: datetime
) -> Reasons:
    found = _last(newest_first, keep.last)
    for by, count in _wanted(keep, monitor):
        found += [
            (each.version, f"{rank} by {by.metric} ({by.mode}): {_value(each, by)}")
            for rank, each in _ranked(_best(newest_first, by, count), count)
        ]
    if keep.every_epochs:
        found += _every_epochs(newest_first, keep.every_epochs)
    if keep.within is not None:
        found += [
            (each.version, f"created within {duration(keep.within)}")
            for each in newest_first
            # One from the future was written by a clock that is ahead.
            if now - each.created_at <= keep.within
        ]
    return found


def _wanted(keep: Keep, monitor: Monitor) -> list[tuple[Monitor, int]]:
    """Return by what metrics so many of the best stay, none twice."""
    wanted = {monitor: keep.best} if keep.best else {}
    for metric, mode in keep.best_by.items():
        wanted[Monitor(metric, mode)] = max(keep.best, 1)
    return list(wanted.items())


def _ranked(best: Iterable[Candidate], count: int) -> Iterator[tuple[str, Candidate]]:
    rank = 0
    for each in best:
        rank += each.complete
        if not each.complete:
            yield "not complete, and among the best", each
        else:
            yield ("best" if count == 1 else f"best {rank} of {count}"), each


def _last(newest_first: Sequence[Candidate], count: int) -> Reasons:
    found: Reasons = []
    intact = 0
    for each in newest_first:
        if intact == count:
            break
        if each.intact and not each.complete:
            continue
        found.append((each.version, "the last" if count == 1 else f"one of the last {count}"))
        intact += each.intact
    return found


def _best(newest_first: Sequence[Candidate], by: Monitor, count: int) -> list[Candidate]:
    """Return the best, best first; of equal ones the earlier, as ``best`` has it.

    That many complete ones, and whatever is better than the last of them and is not complete.
    """
    usable = [
        each
        for each in newest_first
        if each.intact and not math.isnan(each.metrics.get(by.metric, math.nan))
    ]
    lean = [each for each in usable if not each.complete]
    best = heapq.nsmallest(count, (each for each in usable if each.complete), key=_order(by))
    if len(best) == count:
        lean = [each for each in lean if _order(by)(each) < _order(by)(best[-1])]
    return sorted([*best, *lean], key=_order(by))


def _order(by: Monitor) -> Callable[[Candidate], tuple[float, int]]:
    sign = 1 if by.mode == "min" else -1
    return lambda each: (sign * each.metrics[by.metric], each.version)


def _value(each: Candidate, by: Monitor) -> str:
    return number(each.metrics[by.metric])


def _every_epochs(newest_first: Sequence[Candidate], step: int) -> Reasons:
    found: dict[int, int] = {}
    for each in newest_first:
        if each.resumable and each.epoch is not None and each.epoch % step == 0:
            found.setdefault(each.epoch, each.version)
    return [
        (
            version,
            f"last of epoch {epoch}" if step == 1 else f"epoch {epoch} is a multiple of {step}",
        )
        for epoch, version in found.items()
    ]


def _parents(
    newest_first: Sequence[Candidate],
    reasons: Mapping[int, Sequence[str]],
    run: str,
    known: Mapping[int, int | None],
) -> Reasons:
    live = {each.version: each for each in newest_first}
    before = {**_previous(newest_first), **known}
    found: Reasons = []
    staying = dict.fromkeys(each.version for each in newest_first if reasons[each.version])
    waiting = deque(staying)
    while waiting:
        child = live[waiting.popleft()]
        parent = live.get(child.parent) if child.parent is not None else None
        if parent is None or parent.version == before.get(child.version):
            continue
        found.append((parent.version, f"{PARENT_OF}{run}@{child.version}"))
        if parent.kind == "package" and parent.version not in staying:
            staying[parent.version] = None
            waiting.append(parent.version)
    return found


def _previous(newest_first: Sequence[Candidate]) -> dict[int, int | None]:
    """Return which candidate comes right before each, of the same kind."""
    found: dict[int, int | None] = {}
    later: dict[str, int] = {}
    for each in newest_first:
        if each.kind in later:
            found[later[each.kind]] = each.version
        later[each.kind] = each.version
    return found
