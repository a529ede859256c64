"""``python -m tests.prove``: all proofs in their long forms, and their figures into the page."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: written by make prove -->", "<!-- end -->"
NUMBER = re.compile(r"(?<=\s)[\d,]+(?=\s|$)")


def said(pattern: str, shown: str) -> Callable[[str], str]:
    """Return what reads figures off a line of a proof's output.

    Args:
        pattern: Finds the line; its groups are the figures.
        shown: The figures in words, with ``{}`` for each.
    """

    def read(output: str) -> str:
        found = re.findall(pattern, output, re.MULTILINE)
        if not found:
            raise ValueError(f"no line of the proof's output is like {pattern!r}")
        figures = found[-1] if isinstance(found[-1], tuple) else (found[-1],)
        return shown.format(*figures)

    return read


def summed(shown: str, *columns: int) -> Callable[[str], str]:
    """Return what adds up columns of a proof's table.

    Args:
        shown: The sums in words, with ``{}`` for each.
        columns: Which of a row's numbers, counted from 0; a row has more than the last of them.
    """

    def read(output: str) -> str:
        table = [
            [int(number.replace(",", "")) for number in NUMBER.findall(line)]
            for line in output.splitlines()
            if "violations" not in line
        ]
        rows = [row for row in table if len(row) > max(columns)]
        return shown.format(*(f"{sum(row[column] for row in rows):,}" for column in columns))

    return read


@dataclass(frozen=True)
class Proof:
    """One of the proofs: a module of this folder."""

    name: str
    figures: Callable[[str], str]
    """Reads what was tried off the output."""
    bounded: tuple[str, ...] = ()
    """Its arguments where all of them together should take well under an hour."""
    whole: tuple[str, ...] = ()
    """Its arguments where it may take hours."""


PROOFS = [
    Proof(
        "kill",
        said(r"^([\d,]+) points", "processes killed at {} points"),
        ("--jobs", "2"),
        ("--all",),
    ),
    Proof(
        "lost_writes",
        said(
            r"^in all\s+([\d,]+)\s+([\d,]+)\s+([\d,]+)$",
            "{} operations, {} states that a power loss could leave, {} loads",
        ),
        ("--limit", "24", "--every", "8"),
    ),
    Proof("error_sweep", said(r"^([\d,]+) cases", "{} failing operations"), ("--every", "4")),
    Proof(
        "bytes",
        summed("{} changed or cut files, {} of them found, {} harmless", 0, 1, 2),
        ("--every", "2"),
    ),
    Proof(
        "parsers",
        summed("{} hostile inputs", 0),
        ("--examples", "5000"),
        ("--examples", "50000"),
    ),
    Proof(
        "state_machine",
        summed("{} stores, {} steps, {} crashes, {} interleavings, {} loads", 0, 1, 2, 3, 6),
        ("--examples", "40"),
        ("--hours", "2"),
    ),
    Proof(
        "writers",
        summed("{} processes, {} versions, {} journal entries", 0, 1, 2),
        ("--rounds", "8"),
        ("--rounds", "40"),
    ),
    Proof("mutation", said(r"^([\d,]+) guards taken out, 0 not missed", "{} guards taken out")),
]


def main() -> int:
    """Run the proofs one after another; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove")
    names = [proof.name for proof in PROOFS]
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--whole", action="store_true", help="leave nothing out: hours")
    options = parser.parse_args()
    failed = []
    for proof in PROOFS:
        if options.only and proof.name not in options.only:
            continue
        arguments = proof.whole if options.whole else proof.bounded
        began = time.monotonic()
        status, output = run(proof.name, arguments)
        if status:
            failed.append(proof.name)
            continue
        record(proof.name, proof.figures(output), time.monotonic() - began)
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all of them hold"
    sys.stdout.write(f"\n{verdict}; the figures of those that hold are in {PAGE.name}\n")
    return 1 if failed else 0


def run(name: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Run a proof, show what it says as it says it, and return its status and all it said."""
    sys.stdout.write(f"\n== {name} {' '.join(arguments)}\n\n")
    sys.stdout.flush()
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.prove.{name}", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()
    return process.returncode, "".join(lines)


def record(name: str, figures: str, seconds: float) -> None:
    """Put a proof's figures in the page, in the place of its last ones."""
    where = (
        f"Python {platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores, "
        f"{platform.system()}"
    )
    date = datetime.now(UTC).date().isoformat()
    took = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
    row = f"| `{name}` | {figures} | 0 | {took} | {date} | {where} |"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    found = [(re.match(r"\| `(\w+)`", line), line) for line in table.splitlines()]
    rows = {match[1]: line for match, line in found if match}
    rows[name] = row
    lines = [
        "",
        "| proof | tried | promises broken | took | on | with |",
        "| --- | --- | --- | --- | --- | --- |",
        *(rows[proof.name] for proof in PROOFS if proof.name in rows),
        "",
    ]
    PAGE.write_text(before + BEGIN + "\n".join(lines) + END + after, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
