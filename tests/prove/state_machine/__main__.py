"""``python -m tests.prove.state_machine``: whatever is done, in whatever order, all holds."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.prove.state_machine.rules import MACHINES

COLUMNS = (
    "stores",
    "steps",
    "crashes",
    "interleavings",
    "sleeps",
    "late",
    "loads",
    "loads of shared packs",
)
ROUND = 20
"""So many stores are drawn at a time: between two rounds the clock is looked at."""


def main() -> int:
    """Print a table; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.state_machine")
    parser.add_argument("--examples", type=int, default=200, help="stores on each storage")
    parser.add_argument("--hours", type=float, help="go on for so long, however many stores")
    parser.add_argument("--steps", type=int, default=40, help="steps a store at most")
    options = parser.parse_args()
    began, violations = time.monotonic(), []
    deadline = None if options.hours is None else began + 3600 * options.hours
    while True:
        for where, machine in MACHINES.items():
            wanted = options.examples if deadline is None else ROUND
            try:
                run_state_machine_as_test(machine, settings=drawn(wanted, options.steps))
            except Exception:  # noqa: BLE001 - whatever it is, it is shown, and no proof
                violations.append(f"{where}:\n{traceback.format_exc()}")
        if deadline is None or violations or time.monotonic() > deadline:
            break
    sys.stdout.write(f"{'store on':10}" + "".join(f"{name:>23}" for name in COLUMNS) + "\n")
    for where, machine in MACHINES.items():
        counts = "".join(f"{machine.figures[name]:>23,}" for name in COLUMNS)
        sys.stdout.write(f"{where:10}{counts}\n")
    for violation in violations:
        sys.stdout.write(f"\nVIOLATION {violation}\n")
    sys.stdout.write(f"\n{len(violations)} violations in {time.monotonic() - began:.0f} s\n")
    return 1 if violations else 0


def drawn(examples: int, steps: int) -> settings:
    """Return how so many stores are drawn, other ones each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


if __name__ == "__main__":
    raise SystemExit(main())
