"""``python -m tests.prove.kill``: kill every command wherever it may leave something else.

A folder: at every such moment. S3, where a kill takes longer: at every n-th, another for each
command, and at the last.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.prove.kill.harness import (
    STORAGES,
    Point,
    Result,
    Rig,
    distinct_points,
    every_point,
    rig,
    run,
)
from tests.prove.kill.operations import OPERATIONS, Operation

ROW = "{:<30} {:<7} {:>10} {:>7} {:>7} {:>7} {:>7} {:>6} {:>8} {:>7}"


def main() -> int:
    """Kill, print the table, and return how the process is to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.kill", description=__doc__)
    parser.add_argument(
        "--all",
        action="store_true",
        help="before and after every operation, looking included; otherwise only where what is "
        "stored may differ",
    )
    parser.add_argument(
        "--every",
        type=int,
        default=5,
        help="on S3, kill at every n-th point only (default: 5); 1 with --all",
    )
    parser.add_argument("--storage", choices=STORAGES, action="append")
    parser.add_argument("--operation", choices=sorted(OPERATIONS), action="append")
    parser.add_argument("--jobs", type=int, default=2, help="processes that are killed at a time")
    options = parser.parse_args()
    names = options.operation or list(OPERATIONS)
    say(
        ROW.format(
            "operation", "storage", "operations", "change", "points", "absent", "unsaid", "said",
            "seconds", "broken",
        )
    )  # fmt: skip
    results: list[Result] = []
    for storage in options.storage or STORAGES:
        with tempfile.TemporaryDirectory(prefix="kill-") as folder, contextlib.ExitStack() as stack:
            rigs = []
            for job in range(options.jobs):
                own = Path(folder, str(job))
                own.mkdir()
                rigs.append(stack.enter_context(rig(storage, own)))
            for name in names:
                every = 1 if storage == "local" or options.all else options.every
                result = shared_out(rigs, OPERATIONS[name], whole=options.all, every=every)
                say(row(result))
                results.append(result)
    broken = [violation for result in results for violation in named(result)]
    say(f"{sum(result.points for result in results)} points, {len(broken)} broken promises")
    for violation in broken:
        say(violation)
    return 1 if broken else 0


def say(line: str) -> None:
    """Print at once: the long form takes hours."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def shared_out(rigs: Sequence[Rig], operation: Operation, *, whole: bool, every: int = 1) -> Result:
    """Kill an operation at its points (or every n-th), each of them once, on several rigs."""
    began = time.monotonic()

    def work(number: int) -> tuple[Result, list[Point]]:
        own = rigs[number]
        start = own.start(operation)
        seen = own.points(operation, start)
        points = every_point(seen) if whole else distinct_points(seen)
        chosen = strided(points, every, list(OPERATIONS).index(operation.name))
        result = run(own, operation, start, chosen[number :: len(rigs)])
        result.operations, result.changing = len(seen), sum(each.changes for each in seen)
        return result, points

    with ThreadPoolExecutor(len(rigs)) as pool:
        done = list(pool.map(work, range(len(rigs))))
    total = done[0][0]
    for result, _ in done[1:]:
        total.points += result.points
        total.outcomes += result.outcomes
        total.violations += result.violations
    # Each rig counted for itself: had they counted differently some point would have been left out.
    counts = {len(points) for _, points in done}
    if len(counts) > 1:
        total.violations.append(f"it makes now {min(counts)}, now {max(counts)} operations")
    total.seconds = time.monotonic() - began
    return total


def strided(points: Sequence[Point], every: int, first: int) -> Sequence[Point]:
    """Return every n-th point; the last too, when all is done and only the telling is left."""
    chosen = [*points[first % every :: every], points[-1]]
    return list(dict.fromkeys(chosen))


def row(result: Result) -> str:
    """Return a line of the table."""
    counts = [result.outcomes[each] for each in ("absent", "unsaid", "said")]
    return ROW.format(
        result.operation, result.storage, result.operations, result.changing, result.points,
        *counts, f"{result.seconds:.1f}", len(result.violations),
    )  # fmt: skip


def named(result: Result) -> list[str]:
    """Return what was broken, with where."""
    return [f"{result.operation}, {result.storage}, {each}" for each in result.violations]


if __name__ == "__main__":
    sys.exit(main())
