"""What each process of a group does; run by torch.multiprocessing, so importable by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

WORLD = 2


def together(folder: Path, works: list[Callable[[Path, int], Any]]) -> dict[str, list[str]]:
    """Run works, one after the other, in two processes that form a gloo group.

    Returns:
        By the work's name, what each rank answered or raised.
    """
    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_member, args=(folder, rank, works)) for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, "a process of the group hung or died"
    return {
        work.__name__: [_answer(folder, work, rank).read_text() for rank in range(WORLD)]
        for work in works
    }


def _answer(folder: Path, work: Callable[[Path, int], Any], rank: int) -> Path:
    return folder / work.__name__ / f"answer-{rank}"


def _member(folder: Path, rank: int, works: list[Callable[[Path, int], Any]]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    for work in works:
        mine = folder / work.__name__
        mine.mkdir(exist_ok=True)
        try:
            answer = str(work(mine, rank))
        except Exception as error:  # noqa: BLE001 - the test compares whatever it is
            answer = f"{type(error).__name__}: {error}"
        _answer(folder, work, rank).write_text(answer)
        distributed.barrier()
    distributed.destroy_process_group()
