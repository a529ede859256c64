"""Timing on machines that are shared and noisy: interleaved, rotated, medians and their ratios."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping

import torch

Contender = Callable[[], Iterator[None]]
"""A generator function whose yields are the presses of a stopwatch: what it does up to its first
yield is preparation, what it does up to the second counts, up to the third not, and so on."""

# Pages that were freed go back to a virtual machine's host, and the next to touch them pays for
# it: so this much is touched and freed before every timing, for whoever comes next.
MOST_TOUCHED_BYTES = 3 * 10**9


def interleave(
    contenders: Mapping[str, Contender], rounds: int, *, touched_bytes: int = MOST_TOUCHED_BYTES
) -> dict[str, list[float]]:
    """Time every contender once a round, each round beginning with another one.

    Args:
        contenders: What to time.
        rounds: How often; one more round goes first and isn't counted.
        touched_bytes: How much memory is touched and freed before each timing: twice what the
            largest contender allocates will do.

    Returns:
        Seconds, a list a contender.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = timed(contenders[name], touched_bytes=touched_bytes)
            if number:
                times[name].append(seconds)
    return times


def timed(contender: Contender, *, touched_bytes: int = 0) -> float:
    """Run a contender once and return the seconds that count.

    Raises:
        ValueError: The stopwatch was still running when the contender ended.
    """
    presses = contender()
    total, ended = 0.0, object()
    while next(presses, ended) is not ended:
        if not total:
            settle(touched_bytes)
        start = time.perf_counter()
        pressed = next(presses, ended)
        total += time.perf_counter() - start
        if pressed is ended:
            raise ValueError("a contender ended before its stopwatch was stopped")
    return total


def whole(work: Callable[[], object]) -> Contender:
    """Return a contender that is *work* from its beginning to its end."""

    def contender() -> Iterator[None]:
        yield
        work()
        yield

    return contender


def settle(touched_bytes: int = MOST_TOUCHED_BYTES) -> None:
    """Touch and free memory, so that page faults cost every contender the same."""
    if touched_bytes:
        gc.collect()
        torch.empty(min(touched_bytes, MOST_TOUCHED_BYTES), dtype=torch.uint8).fill_(1)
