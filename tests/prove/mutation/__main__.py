"""``python -m tests.prove.mutation``: take each guard out, and see a test fail."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from tests.prove.mutation.mutants import Copy, Mutant, MutationError, Result, check_named, warm_up
from tests.prove.mutation.table import MUTANTS

ROW = "{:<62} {:<26} {:>7}  {}"


def main() -> int:
    """Print a table; return 1 if a guard can go and no test fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.mutation")
    parser.add_argument("--only", action="append", help="the name of a guard; may be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="guards taken out at a time")
    options = parser.parse_args()
    mutants = [each for each in MUTANTS if not options.only or each.name in options.only]
    wrong = check_named(mutants)
    wrong += [f"no guard is called {name!r}" for name in set(options.only or ()) - names(mutants)]
    if wrong:
        say("\n".join(wrong))
        return 1
    began, survived = time.monotonic(), []
    # Before the workers are forked, so that they have it all.
    warm_up()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutation-")))
        # Of one moment, whatever becomes of the working tree meanwhile.
        whole = Copy(folder / "whole").folder
        pool = stack.enter_context(ProcessPoolExecutor(options.jobs, get_context("fork")))
        shares = [
            pool.submit(sound, whole, mutants[job :: options.jobs]) for job in range(options.jobs)
        ]
        broken = [said for share in shares for said in share.result()]
        if broken:
            say("these tests fail with every guard in its place:", *broken)
            return 1
        say(ROW.format("without", "in", "seconds", "fails"))
        results = pool.map(tried, repeat(whole, len(mutants)), mutants)
        for mutant, result in zip(mutants, results, strict=True):
            failed = result if isinstance(result, str) else result.failed
            seconds = "" if isinstance(result, str) else f"{result.seconds:.1f}"
            if isinstance(result, str) or result.failed is None:
                survived.append(mutant.name)
                failed = f"NOTHING {failed or ''}"
            say(ROW.format(mutant.name, mutant.file, seconds, failed))
    say(
        f"\n{len(mutants)} guards taken out, {len(survived)} not missed, "
        f"{time.monotonic() - began:.0f} s"
    )
    for name in survived:
        say(f"VIOLATION nothing fails without: {name}")
    return 1 if survived else 0


def names(mutants: Sequence[Mutant]) -> set[str]:
    """Return the names of guards."""
    return {mutant.name for mutant in mutants}


def sound(whole: Path, mutants: Sequence[Mutant]) -> list[str]:
    """Return which of the tests fail although nothing was taken out: they would prove nothing."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        try:
            result = Copy(Path(folder, "copy"), whole).run(tests, timeout_s=3600)
        except MutationError as error:
            return [str(error)]
    return [] if result.failed is None else [result.failed]


def tried(whole: Path, mutant: Mutant) -> Result | str:
    """Take one guard out of a copy and run its tests; return what is wrong if they can't be."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Copy(Path(folder, "copy"), whole)
        try:
            with copy.without(mutant):
                return copy.run(mutant.tests)
        except MutationError as error:
            return str(error)


def say(*lines: str) -> None:
    """Print at once: all of it takes a while."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
