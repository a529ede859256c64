"""What each rank of a group does under a guard; see tests/loading/ranks.py."""

from __future__ import annotations

import os
import signal
import time
import warnings
from datetime import timedelta
from pathlib import Path

import torch

from ckptstore import Store
from ckptstore.saving.pace import Pace
from ckptstore.state.ranks import Largest, all_ranks, are_several, from_rank_zero
from tests.loading.trainings import Training

TOLD_AT = 2


def _trained(folder: Path, rank: int, whom: int, **options: object) -> str:
    """Train until one rank is told to stop; answer how that ended, where, and what is there."""
    run = Store(folder / "store", catalog="sqlite://").run("digits")
    training, step = Training(seed=rank), 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with run.guard(exit_code=75, **options) as guard:  # type: ignore[arg-type] # a test's own
                for step in range(1, 9):
                    training.epoch()
                    if step == TOLD_AT and rank == whom:
                        os.kill(os.getpid(), signal.SIGTERM)
                    guard.step(**training.parts(), step=step)
        except SystemExit as end:
            ended = str(end.code)
        except Exception as error:  # noqa: BLE001 - the test compares whatever it is
            ended = f"{type(error).__name__}: {error}"
        else:
            ended = "trained to the end"
    torch.distributed.barrier()
    latest = run.latest() if (folder / "store" / "runs").exists() else None
    there = f"{latest.ref} of step {latest.step}" if latest else "nothing"
    said = sum("was told to stop" in str(warning.message) for warning in caught)
    return f"{ended}, in step {step}; {there}; {said} warning(s)"


def rank_one_is_told(folder: Path, rank: int) -> str:
    return _trained(folder, rank, 1)


def rank_zero_is_told(folder: Path, rank: int) -> str:
    return _trained(folder, rank, 0)


def nobody_is_told(folder: Path, rank: int) -> str:
    return _trained(folder, rank, -1)


def rank_zero_can_not_save(folder: Path, rank: int) -> str:
    (folder / "store").write_text("a file")
    return _trained(folder, rank, 1)


def little_time_is_left(folder: Path, rank: int) -> str:
    """Rank 0 measures whether there is time for all of it."""
    pace = Pace.estimate_s
    Pace.estimate_s = lambda _, size: 1000.0 if size > 1000 else 0.0  # type: ignore[method-assign] # in a process of a test's own
    try:
        return _trained(folder, rank, 1, deadline=timedelta(seconds=500))
    finally:
        Pace.estimate_s = pace  # type: ignore[method-assign] # as before


def the_largest_is_known_to_all(_: Path, rank: int) -> str:
    asked = Largest(10 + rank)
    fine = all_ranks(fine=True), all_ranks(fine=rank == 0)
    return f"{are_several()} {asked.result()} {from_rank_zero(rank + 5)} {fine}"


def asking_costs(_: Path, rank: int) -> str:
    """Say how long a step takes with nothing to do; printed by hand, and no test looks at it."""
    guard_steps = 2000
    training = Training(seed=rank)
    with Store("memory://unused", catalog="sqlite://").run("x").guard() as guard:
        begun = time.perf_counter()
        for step in range(guard_steps):
            guard.step(**training.parts(), step=step)
        return f"{(time.perf_counter() - begun) / guard_steps * 1e6:.0f} us"


WORKS = [
    rank_one_is_told,
    rank_zero_is_told,
    nobody_is_told,
    rank_zero_can_not_save,
    little_time_is_left,
]
