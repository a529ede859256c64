"""A question of the bench: what was measured, and the lines of the page that answer it.

A suite measures and yields questions; :func:`tests.bench.page.write` shows each as it comes, draws
its plot and puts all of them between the suite's marks on the page::

    def questions(folder: Path, rounds: int) -> Iterator[Question]:
        yield Question(
            key="durable-save",
            title="Durable save of 1.49 GB",
            asks="How long until a save would survive a power loss?",
            measured=timing.interleave({"ckptstore": ours, "torch.save": theirs}, rounds),
            ours=("ckptstore",),
            targets=(Target("ckptstore", 0.6, of="torch.save"),),
            notes={"torch.save": "then fsync of the file and its folder"},
            absent={"sometool": "its wheel is for CUDA alone"},
        )

    page.write("bench-s3", questions(folder, rounds), packages=("s3fs",), folder=folder)

A target that is a number of seconds, not a ratio, has no *of*; "at least three times as fast" is a
ratio of at most 1/3, and 2,000 a second are 1/2000 s for one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["s", "B"]
"""Seconds or bytes: less is better in both."""

SCALES: dict[Unit, tuple[tuple[float, float, str], ...]] = {
    # from this size on, divided by this, called so
    "s": ((0.1, 1.0, "s"), (1e-4, 1e-3, "ms"), (0.0, 1e-6, "µs")),
    "B": ((1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (0.0, 1e3, "kB")),
}


@dataclass(frozen=True)
class Target:
    """What is asked of one of ours.

    Attributes:
        ours: The contender it is asked of.
        at_most: The ratio of medians; without *of* the median itself, in the question's unit.
        of: The contender that ours is divided by.
    """

    ours: str
    at_most: float
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One comparison: one table and one plot.

    Attributes:
        key: Names the plot's file; small letters, digits and dashes, unlike every other's.
        title: The heading.
        asks: What is measured, in a sentence or two: from where to where, and what counts.
        measured: Seconds (or bytes) of each contender, a value a round.
        ours: Which of them are ckptstore's; the table has a column of ratios for each. Empty
            where nothing is compared.
        limit: The contender that nobody can beat, such as a plain copy.
        targets: What is asked of ours.
        notes: What to know of a contender: its settings, what it does not do.
        absent: Peers that could not be measured here, and why.
        remarks: Sentences below the table.
        unit: Of everything measured.
    """

    key: str
    title: str
    asks: str
    measured: Mapping[str, Sequence[float]]
    ours: tuple[str, ...] = ("ckptstore",)
    limit: str | None = None
    targets: tuple[Target, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    unit: Unit = "s"

    def __post_init__(self) -> None:
        """Refuse names of contenders that weren't measured: a typo would hide a target.

        Raises:
            ValueError: A name in *ours*, *limit*, *targets* or *notes* is no contender's, one of
                *absent* is, or a contender has no values.
        """
        named = {*self.ours, *self.notes, *(target.ours for target in self.targets)}
        named |= {target.of for target in self.targets if target.of is not None}
        named |= {self.limit} if self.limit is not None else set()
        unknown = sorted(named - set(self.measured))
        if unknown:
            raise ValueError(
                f"{self.key}: {', '.join(unknown)} not among what was measured: "
                f"{', '.join(self.measured)}"
            )
        both = sorted(set(self.absent) & set(self.measured))
        if both:
            raise ValueError(f"{self.key}: {', '.join(both)} both measured and absent")
        empty = sorted(name for name, values in self.measured.items() if not values)
        if empty:
            raise ValueError(f"{self.key}: nothing was measured of {', '.join(empty)}")

    def median(self, name: str) -> float:
        """Return a contender's median, in the question's unit."""
        return statistics.median(self.measured[name])

    def ratio(self, ours: str, theirs: str) -> float:
        """Return the ratio of two contenders' medians.

        What a save adds to training is a difference, which noise can make negative: less than
        nothing counts as nothing, and the ratio to nothing is infinite.
        """
        theirs_takes = self.median(theirs)
        return max(0.0, self.median(ours)) / theirs_takes if theirs_takes > 0 else math.inf

    def share(self, ours: str, theirs: str) -> str:
        """Return a ratio as the table has it."""
        ratio = self.ratio(ours, theirs)
        return f"{ratio:.2f} of it" if math.isfinite(ratio) else "-"

    def reached(self, target: Target) -> float:
        """Return what a target is compared with: a ratio, or a median in the question's unit."""
        if target.of is None:
            return self.median(target.ours)
        return self.ratio(target.ours, target.of)

    def met(self, target: Target) -> bool:
        """Say whether what was measured, as the page shows it, is as asked."""
        if target.of is None:
            return self.reached(target) <= target.at_most
        return float(f"{self.reached(target):.2f}") <= target.at_most

    def lines(self, plot: str | None = None) -> Iterator[str]:
        """Yield the lines of the page.

        Args:
            plot: Where the plot lies, as a link from the page; without it there is none.
        """
        yield f"### {self.title}"
        yield ""
        yield self.asks
        yield ""
        yield from self.table()
        yield ""
        if self.targets:
            yield from (f"- {self.verdict(target)}" for target in self.targets)
            yield ""
        if plot is not None:
            yield f"![{self.title}: medians, and lines from lowest to highest]({plot})"
            yield ""
        for remark in self.remarks:
            yield remark
            yield ""
        said = [f"- *{name}*: {note}." for name, note in self.notes.items()]
        said += [f"- *{name}* was not measured: {why}." for name, why in self.absent.items()]
        if said:
            yield from said
            yield ""

    def table(self) -> Iterator[str]:
        """Yield the table's lines: a row a contender, a column of ratios for each of ours."""
        columns = ["", "median (range)", *(f"{name} takes" for name in self.ours)]
        yield "| " + " | ".join(columns) + " |"
        yield "|" + " --- |" * len(columns)
        for name, values in self.measured.items():
            called = f"{name} (the limit)" if name == self.limit else name
            ratios = ["" if name in self.ours else self.share(mine, name) for mine in self.ours]
            yield "| " + " | ".join([called, spread(values, self.unit), *ratios]) + " |"

    def verdict(self, target: Target) -> str:
        """Return whether a target is met, in words."""
        met = "met" if self.met(target) else "**missed**"
        if math.isinf(self.reached(target)):
            return f"{target.ours} / {target.of}: undecided, as the latter took nothing measurable"
        if target.of is None:
            asked, found = shown(target.at_most, self.unit), shown(self.reached(target), self.unit)
            return f"{target.ours}: {found}, asked at most {asked}: {met}"
        return (
            f"{target.ours} / {target.of}: {self.reached(target):.2f}, "
            f"asked at most {target.at_most:.3g}: {met}"
        )


def below(ours: Sequence[str], peers: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets of ours that take at most what each of the peers takes."""
    return tuple(Target(mine, 1.0, of=peer) for mine in ours for peer in peers)


def best(measured: Mapping[str, Sequence[float]], peers: Iterable[str]) -> str:
    """Return which of the peers takes least, by its median."""
    return min(peers, key=lambda name: statistics.median(measured[name]))


def spread(values: Sequence[float], unit: Unit = "s") -> str:
    """Return median and range for people; a single value is shown alone."""
    middle = statistics.median(values)
    _, factor, name = scale(middle, unit)
    if len(values) == 1:
        return shown(middle, unit)
    low, high = min(values) / factor, max(values) / factor
    return f"{digits(middle / factor)} {name} ({digits(low)} to {digits(high)})"


def shown(value: float, unit: Unit = "s") -> str:
    """Return one value for people, with its unit."""
    _, factor, name = scale(value, unit)
    return f"{digits(value / factor)} {name}"


def scale(value: float, unit: Unit) -> tuple[float, float, str]:
    """Return from where on, by how much divided and how called a value is shown."""
    return next(entry for entry in SCALES[unit] if abs(value) >= entry[0])


def digits(number: float) -> str:
    """Return three digits of a number, never in powers of ten."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
