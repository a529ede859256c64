"""``python -m tests.prove.lost_writes``: what a power loss may leave, state by state."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.prove.lost_writes.checking import PUBLISHING, Figures, ViolationError, out
from tests.prove.lost_writes.scenarios import (
    EVERYTHING,
    SAVES,
    clean_up_and_lose,
    fail_and_lose,
    lose,
)


def main() -> int:
    """Print a table; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.lost_writes")
    parser.add_argument("--limit", type=int, default=64, help="states a prefix (default: 64)")
    parser.add_argument("--every", type=int, default=4, help="look after every n-th operation")
    options = parser.parse_args()
    began, violations, total = time.monotonic(), [], Figures()
    out(f"{'power lost while':34}{'operations':>12}{'states':>10}{'loads':>10}")
    with tempfile.TemporaryDirectory(prefix="lost-writes-") as name:
        for how in PUBLISHING:
            try:
                figures = lose(Path(name) / how, how, EVERYTHING, options.limit)
            except ViolationError as error:
                violations.append(f"{how}: {error}")
                continue
            total.add(figures)
            _row(f"files are published by {how}", figures)
            try:
                figures = clean_up_and_lose(
                    Path(name) / f"clean {how}", how, options.limit, every=options.every
                )
            except ViolationError as error:
                violations.append(f"cleaning up, {how}: {error}")
                continue
            total.add(figures)
            _row(f"the same, cleaning up, by {how}", figures)
        after_failures, failing = Figures(), 0
        while True:
            failing += 1
            folder = Path(name) / "failing"
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _, figures = fail_and_lose(folder, SAVES, failing, 16, every=options.every)
            except StopIteration:  # there are no more fsyncs
                break
            except ViolationError as error:
                violations.append(f"fsync {failing} failed: {error}")
                continue
            after_failures.add(figures)
        total.add(after_failures)
        _row(f"each of {failing - 1} fsyncs fails", after_failures)
    _row("in all", total)
    for violation in violations:
        out(f"\nVIOLATION {violation}")
    out(f"\n{len(violations)} violations in {time.monotonic() - began:.0f} s")
    return 1 if violations else 0


def _row(what: str, figures: Figures) -> None:
    out(f"{what:34}{figures.operations:>12,}{figures.states:>10,}{figures.loads:>10,}")


if __name__ == "__main__":
    raise SystemExit(main())
