"""``python -m tests.prove.error_sweep``: every call and every request fails, once and for good."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.prove.error_sweep import local, remote
from tests.prove.error_sweep.faults import FAULTS
from tests.prove.error_sweep.local import Outcome
from tests.prove.error_sweep.remote import REMOTE_FAULTS
from tests.prove.error_sweep.verbs import VERBS

ALWAYS = (False, True)
Case = Callable[[int], Outcome]


class Table:
    """Cases by what was done, as they end."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.total = 0

    def row(self, place: str, verb: str, fault: str, numbers: range, case: Case) -> Counter[str]:
        """Run the cases of one verb and one fault."""
        ends: Counter[str] = Counter()
        for at in numbers:
            self.total += 1
            try:
                outcome = case(at)
            except Exception as error:  # noqa: BLE001 - anything is a violation, and the rest goes on
                self.violations.append(f"{place}, {verb}, {fault}, number {at}: {error}")
                ends["VIOLATION"] += 1
            else:
                ends[outcome.error + (" (visible)" if outcome.visible else "")] += 1
        return ends


def main() -> int:
    """Print a table; return 1 if anything does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.error_sweep")
    parser.add_argument("--every", type=int, default=11, help="fail every n-th call (default: 11)")
    options = parser.parse_args()
    began, table = time.monotonic(), Table()
    with tempfile.TemporaryDirectory(prefix="error-sweep-") as name:
        _local(table, Path(name), options.every)
    _remote(table, options.every)
    for violation in table.violations:
        _out(f"\nVIOLATION {violation}")
    took = time.monotonic() - began
    _out(f"\n{table.total:,} cases, {len(table.violations)} violations in {took:.0f} s")
    return 1 if table.violations else 0


def _local(table: Table, folder: Path, every: int) -> None:
    place = local.Place(folder)
    for verb in VERBS:
        ends: Counter[str] = Counter()
        for column, fault in enumerate(FAULTS):
            without = place.calls(verb, fault)
            for always in ALWAYS:
                ends += table.row(
                    "a folder",
                    verb.name,
                    f"{fault.name}{' from then on' if always else ''}",
                    range(1 + (column * 2 + always) % every, without.count + 1, every),
                    lambda at, verb=verb, fault=fault, always=always, without=without: local.case(
                        place, verb, fault, at, always=always, without=without
                    ),
                )
        _row("a folder", verb.name, ends)


def _remote(table: Table, every: int) -> None:
    place = remote.RemotePlace()
    for verb in VERBS:
        ends: Counter[str] = Counter()
        for column, fault in enumerate(REMOTE_FAULTS):
            without = place.calls(verb, fault)
            for always in ALWAYS:
                ends += table.row(
                    "S3",
                    verb.name,
                    f"{fault.name}{' from then on' if always else ''}",
                    range(1 + (column * 2 + always) % every, without.count + 1, every),
                    lambda at, verb=verb, fault=fault, always=always, without=without: remote.case(
                        place, verb, fault, at, always=always, without=without
                    ),
                )
        _row("S3", verb.name, ends)


def _row(place: str, verb: str, ends: Counter[str]) -> None:
    listed = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    _out(f"{place:10}{verb:22}{sum(ends.values()):>7,}  {listed}")


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
