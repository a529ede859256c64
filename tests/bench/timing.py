"""Timing on machines that are shared and noisy: interleaved, rotated, medians and their ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

# Pages that were freed go back to a virtual machine's host, and the next to touch them pays for
# it: so this much is touched and freed before every timing, for whoever comes next.
TOUCHED_BYTES = 3 * 10**9


def interleave(contenders: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Time every contender once a round, each round beginning with another one.

    Args:
        contenders: What to time. Each cleans up after itself outside of its own call if it
            returns a callable.
        rounds: How often; one more round goes first and isn't counted.

    Returns:
        Seconds, a list a contender.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            settle()
            start = time.perf_counter()
            clean_up = contenders[name]()
            elapsed = time.perf_counter() - start
            if callable(clean_up):
                clean_up()
            if number:
                times[name].append(elapsed)
    return times


def settle() -> None:
    """Touch and free memory, so that page faults cost every contender the same."""
    gc.collect()
    torch.empty(TOUCHED_BYTES, dtype=torch.uint8).fill_(1)


def median(times: list[float]) -> float:
    """Return the median in seconds."""
    return statistics.median(times)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the ratio of medians."""
    return median(ours) / median(theirs)


def spread(times: list[float]) -> str:
    """Return median and range for people, in seconds or milliseconds."""
    unit, factor = ("s", 1.0) if median(times) >= 0.1 else ("ms", 1e3)
    low, middle, high = (value * factor for value in (min(times), median(times), max(times)))
    return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})"
