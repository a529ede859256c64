"""``python -m tests.prove``: all proofs in their long forms, and their figures into the page."""

from __future__ import annotations

import argparse
import importlib.util
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
    """Its arguments where all of them together should take about twenty minutes."""
    whole: tuple[str, ...] = ()
    """Its arguments where it may take hours."""
    broken: str = r"([\d,]+) violations"
    """Finds how many promises were broken; without it the exit status has to do."""
    needs: str | None = None
    """A package that it can't do without, and that is no dependency."""
    title: str = ""
    """What it is called in the page, if there are several of one module."""

    @property
    def called(self) -> str:
        """What it is called in the page."""
        return self.title or self.name

    def count(self, status: int, output: str) -> int | None:
        """Return how many promises were broken, None if the proof did not get as far."""
        found = re.findall(self.broken, output)
        if not found:
            return None
        count = int(found[-1].replace(",", ""))
        return count if (count != 0) == (status != 0) else None


@dataclass(frozen=True)
class Fuzzing(Proof):
    """A proof that ends where it finds something: that it ended is what it has to say."""

    def count(self, status: int, output: str) -> int | None:
        """Return 0 if it came to its end."""
        return 0 if status == 0 and re.search(self.broken, output) else None


PROOFS = [
    Proof(
        "kill",
        said(r"^([\d,]+) points", "processes killed at {} points"),
        ("--jobs", "2", "--every", "10"),
        ("--all",),
        r"([\d,]+) broken promises",
    ),
    Proof(
        "lost_writes",
        said(
            r"^in all\s+([\d,]+)\s+([\d,]+)\s+([\d,]+)$",
            "{} operations, {} states that a power loss could leave, {} loads",
        ),
        ("--limit", "6", "--every", "16"),
        ("--limit", "64", "--every", "1"),
    ),
    Proof(
        "error_sweep",
        said(r"^([\d,]+) cases", "{} failing operations"),
        ("--every", "16"),
        ("--every", "1"),
    ),
    Proof(
        "bytes",
        summed("{} changed or cut files, {} of them found, {} harmless", 0, 1, 2),
        ("--every", "8"),
        ("--every", "1"),
    ),
    Proof(
        "parsers",
        summed("{} hostile inputs", 0),
        ("--examples", "2000"),
        ("--examples", "50000"),
    ),
    *(
        Fuzzing(
            "parsers",
            said(r"Done ([\d,]+) runs", "{} inputs to its reader, guided by coverage"),
            ("--atheris", "--reader", reader, "--seconds", "20"),
            ("--atheris", "--reader", reader, "--seconds", "1200"),
            r"Done [\d,]+ runs",
            "atheris",
            f"parsers, {reader}",
        )
        for reader in ("manifest", "journal", "store")
    ),
    Proof(
        "state_machine",
        summed("{} stores, {} steps, {} crashes, {} interleavings, {} loads", 0, 1, 2, 3, 6),
        ("--examples", "12"),
        ("--hours", "2"),
    ),
    Proof(
        "writers",
        summed("{} processes, {} versions, {} journal entries", 0, 1, 2),
        ("--rounds", "4"),
        ("--rounds", "40"),
    ),
    Proof(
        "mutation",
        said(r"^([\d,]+) guards taken out", "{} guards taken out"),
        ("--jobs", "2"),
        ("--jobs", "2"),
        r"([\d,]+) not missed",
    ),
]


def main() -> int:
    """Run the proofs one after another; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove")
    names = list(dict.fromkeys(proof.name for proof in PROOFS))
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--whole", action="store_true", help="try far more of each: hours")
    options = parser.parse_args()
    failed = []
    for proof in PROOFS:
        if options.only and proof.name not in options.only:
            continue
        arguments = proof.whole if options.whole else proof.bounded
        if proof.needs is not None and importlib.util.find_spec(proof.needs) is None:
            sys.stdout.write(
                f"\n== {proof.called}: left out, as {proof.needs} is not installed; to have it, "
                f"run {sys.executable} -m pip install {proof.needs}\n"
            )
            continue
        began = time.monotonic()
        status, output = run(proof.name, arguments)
        broken = proof.count(status, output)
        if broken != 0:
            failed.append(proof.called)
        if broken is not None:
            record(proof, arguments, proof.figures(output), broken, time.monotonic() - began)
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all of them hold"
    sys.stdout.write(f"\n{verdict}; the figures are in {PAGE.name}\n")
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
        # A fuzzer says there what it did.
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()
    return process.returncode, "".join(lines)


def record(
    proof: Proof, arguments: Sequence[str], figures: str, broken: int, seconds: float
) -> None:
    """Put a proof's figures in the page, in the place of its last ones."""
    where = (
        f"Python {platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores, "
        f"{platform.system()}"
    )
    date = datetime.now(UTC).date().isoformat()
    took = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"
    asked = f"`{' '.join(arguments)}`" if arguments else ""
    row = f"| `{proof.called}` | {asked} | {figures} | {broken} | {took} | {date} | {where} |"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    found = [(re.match(r"\| `([^`]+)`", line), line) for line in table.splitlines()]
    rows = {match[1]: line for match, line in found if match}
    rows[proof.called] = row
    lines = [
        "",
        "| proof | with | tried | promises broken | took | on | by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(rows[each.called] for each in PROOFS if each.called in rows),
        "",
    ]
    PAGE.write_text(before + BEGIN + "\n".join(lines) + END + after, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
