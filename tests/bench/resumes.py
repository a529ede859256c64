"""Resuming: a model and an optimizer that exist get what was saved, time and memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from ckptstore import Store

from . import savers, state, timing
from .memory import elsewhere, peak_bytes
from .questions import Question, Target

Resume = Callable[[Path, nn.Module, torch.optim.Optimizer], object]

OURS = "ckptstore"
RECIPE = "torch.load + load_state_dict"
MAPPED = "the same with mmap=True"
DCP = "DCP load"


def ours(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> object:
    """Resume from the latest version, every byte checked."""
    with Store(folder / "store") as store:
        return store.resume(model, optimizer)


def recipe(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, mmap: bool = False
) -> None:
    """Load everything and hand each its part."""
    found = torch.load(folder / "all.pt", weights_only=True, mmap=mmap)
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])


def mapped(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Do the same with ``mmap=True``."""
    recipe(folder, model, optimizer, mmap=True)


def dcp(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let DCP read into both, as its tutorial shows it."""
    named, moments = get_state_dict(model, optimizer)
    wanted: dict[str, Any] = {"model": named, "optimizer": moments}
    dcp_load(wanted, storage_reader=FileSystemReader(folder / "dcp-resume"), no_dist=True)
    set_state_dict(
        model, optimizer, model_state_dict=wanted["model"], optim_state_dict=wanted["optimizer"]
    )


RESUMES: dict[str, Resume] = {OURS: ours, RECIPE: recipe, MAPPED: mapped, DCP: dcp}


def prepare(folder: Path, size: state.Size) -> None:
    """Write what DCP reads, its own way: the rest is there from :mod:`tests.bench.loads`."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    model, optimizer = state.make(size)
    named, moments = get_state_dict(model, optimizer)
    save(
        {"model": named, "optimizer": moments},
        storage_writer=FileSystemWriter(folder / "dcp-resume", thread_count=2),
        no_dist=True,
    )


def resume(folder: Path, size: state.Size, rounds: int, touched_bytes: int) -> Iterator[Question]:
    """Time resuming into a model and an optimizer as a restart has them, then its memory."""
    prepare(folder, size)

    def contender(work: Resume) -> timing.Contender:
        def presses() -> Iterator[None]:
            model, optimizer = made(size)
            yield
            work(folder, model, optimizer)
            yield

        return presses

    kept = dict(RESUMES)
    absent: dict[str, str] = {}
    for name, work in RESUMES.items():
        try:
            timing.timed(contender(work))
        except Exception as error:
            if name == OURS:
                raise
            absent[name] = savers.reason(error)
            del kept[name]
    notes = {
        RECIPE: "`weights_only=True`",
        MAPPED: "the moments stay mapped to the file, so that the first step reads them",
        DCP: "`get_state_dict`, `load`, `set_state_dict`, as its tutorial shows it",
    }
    notes = {name: note for name, note in notes.items() if name in kept}
    yield Question(
        key=f"resume-{size.slug}",
        title=f"Resume from {size.name} into a model and an optimizer that exist",
        asks=(
            "As after a restart: the model has its first weights, the optimizer no moments yet. "
            "ckptstore checks every byte, and sets the random generators too."
        ),
        measured=timing.interleave(
            {name: contender(work) for name, work in kept.items()},
            rounds,
            touched_bytes=touched_bytes,
        ),
        targets=(Target(OURS, 0.6, of=RECIPE),),
        notes=notes,
        absent=absent,
    )
    yield Question(
        key=f"resume-memory-{size.slug}",
        title=f"Memory that resuming from {size.name} takes",
        asks=(
            "What a fresh process grows by at most, sampled each millisecond, the moments included "
            "that the optimizer gets."
        ),
        measured={
            name: [elsewhere("tests.bench.resumes", name, size.name, folder)] for name in kept
        },
        absent=absent,
        unit="B",
    )


def main() -> None:
    """Resume once and print how many bytes the process grew by."""
    name, size, folder = sys.argv[1], state.SIZES[sys.argv[2]], Path(sys.argv[3])
    model, optimizer = made(size)
    print(json.dumps(peak_bytes(lambda: RESUMES[name](folder, model, optimizer))))


def made(size: state.Size) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model and an optimizer as a restarted program makes them."""
    model = size.model()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4)


if __name__ == "__main__":
    main()
