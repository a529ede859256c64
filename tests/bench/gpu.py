"""``make bench-gpu``: stalls, loads and resuming on a GPU, beside peers that pin memory."""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.checkpoint.staging import StagingOptions

from ckptstore import Store

from . import loads, page, savers, stalls, state, timing
from .questions import Question, Target
from .savers import Saver

PACKAGES = ("fastsafetensors", "lightning", "torch_checkpointing")
SUITE = "bench-gpu"
ASKED = ("stall", "added", "load", "resume")
OURS = "ckptstore"
RECIPE = "build + torch.load of all + load_state_dict"
RESUME = "torch.load + load_state_dict"
FAST = "build + fastsafetensors + load_state_dict"
NOTES = {FAST: "`nogds=True`, as GPUDirect Storage is for few disks"}


class PinnedCopy(savers.Copy):
    """The limit: every tensor into pinned memory, without waiting between them."""

    note = "every tensor's non-blocking `copy_` into pinned memory, then one wait"

    def __init__(self, folder: Path, model: nn.Module, optimizer: Any) -> None:
        super().__init__(folder, model, optimizer)
        self.copies = [tensor.cpu().pin_memory() for tensor in self.sources]

    def save(self) -> None:
        for copy, source in zip(self.copies, self.sources, strict=True):
            copy.copy_(source, non_blocking=True)
        torch.cuda.synchronize()


class DcpPinned(savers.DcpKept):
    """dcp.async_save that stages to pinned memory."""

    note = "a kept `DefaultStager`, pinned, non-blocking; two writing threads"
    options = StagingOptions(
        use_pinned_memory=True,
        use_shared_memory=False,
        use_async_staging=False,
        use_non_blocking_copy=True,
    )


class DcpPinnedOverlapped(savers.DcpKept):
    """dcp.async_save that stages to pinned memory in a thread, on a stream of its own."""

    note = "the same, staged in a thread and on a stream of its own, waited for before the step"
    overlaps = True
    options = StagingOptions(
        use_pinned_memory=True,
        use_shared_memory=False,
        use_async_staging=True,
        use_non_blocking_copy=True,
    )


class TorchCheckpointing(savers.TorchCheckpointing):
    """torch_checkpointing with what it does by default where there is CUDA."""

    note = "its defaults: pinned and shared memory, staged in a thread; a process writes; we fsync"
    pinned = True


PEERS: dict[str, type[Saver]] = {
    "dcp.async_save": savers.Dcp,
    "dcp.async_save, pinned": DcpPinned,
    "dcp.async_save, pinned, staged in a thread": DcpPinnedOverlapped,
    "Lightning AsyncCheckpointIO": savers.Lightning,
    "torch_checkpointing": TorchCheckpointing,
}


def main() -> None:
    """Measure on the GPU and write the page's section; without one say so and change nothing."""
    parser = argparse.ArgumentParser(prog="make bench-gpu")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each comparison")
    parser.add_argument("--folder", type=Path, help="where to write")
    parser.add_argument("--only", choices=ASKED, action="append", help="a question to ask")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that torch can use on this machine: nothing measured, the page is as it was")
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    print(f"on {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as name:
        page.write(
            SUITE,
            questions(Path(name), state.COMMON, options.rounds, only=options.only or ASKED),
            packages=PACKAGES,
            folder=Path(name),
        )


def questions(
    folder: Path,
    size: state.Size,
    rounds: int,
    device: str = "cuda",
    only: Sequence[str] = ASKED,
) -> Iterator[Question]:
    """Yield what was measured of what is asked."""
    touched = 2 * state.size_bytes(state.flat(*state.make(size)).values())
    if "stall" in only:
        yield stalls.stall(
            folder / "stall",
            size,
            rounds,
            touched,
            device=device,
            copy=PinnedCopy,
            peers=PEERS,
            targets=stalls.TARGETS,
        )
    if "added" in only:
        yield stalls.added(
            folder / "added", size, rounds, touched, device=device, peers=PEERS, at_most=0.5
        )
    if "load" in only or "resume" in only:
        loads.prepare(folder / "loads", size)
    if "load" in only:
        yield loaded(folder / "loads", size, rounds, device)
    if "resume" in only:
        yield resumed(folder / "loads", size, rounds, device)


def loaded(folder: Path, size: state.Size, rounds: int, device: str) -> Question:
    """Time loads of the model to the device."""

    def ours() -> None:
        with Store(folder / "store") as store:
            store.load_best(size.model, device=device)

    def recipe(*, mmap: bool = False) -> None:
        model = size.model(device)
        found = torch.load(
            folder / "all.pt", weights_only=True, map_location="cpu" if mmap else device, mmap=mmap
        )
        model.load_state_dict(found["model"])

    def safetensors() -> None:
        model = size.model(device)
        with safe_open(folder / "all.safetensors", "pt", device=device) as file:
            filled(model, file.keys(), file.get_tensor)

    def fast() -> None:
        from fastsafetensors import fastsafe_open

        model = size.model(device)
        with fastsafe_open(str(folder / "all.safetensors"), device=device, nogds=True) as file:
            filled(model, file.keys(), file.get_tensor)

    measured, absent = compared(
        {
            OURS: ours,
            RECIPE: recipe,
            "the same with mmap=True": partial(recipe, mmap=True),
            "build + safe_open(device) + load_state_dict": safetensors,
            FAST: fast,
        },
        rounds,
        device,
    )
    return Question(
        key=f"load-{size.slug}-{device}",
        title=f"Load of the model out of {size.name} to the GPU",
        asks="Until it is there in eval mode. ckptstore has checked every byte; the others none.",
        measured=measured,
        notes={name: note for name, note in NOTES.items() if name in measured},
        absent=absent,
    )


def filled(model: state.Transformer, names: Any, tensor: Callable[[str], torch.Tensor]) -> None:
    """Give a model its tensors out of a file of everything."""
    found = {
        name.removeprefix("model."): tensor(name) for name in names if name.startswith("model.")
    }
    model.load_state_dict(found | {"head.weight": found["embedding.weight"]})


def resumed(folder: Path, size: state.Size, rounds: int, device: str) -> Question:
    """Time resuming into a model and an optimizer on the device."""

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = size.model(device)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-4)

    def ours() -> None:
        with Store(folder / "store") as store:
            store.resume(*made())

    def recipe(*, mmap: bool = False) -> None:
        model, optimizer = made()
        found = torch.load(
            folder / "all.pt", weights_only=True, map_location="cpu" if mmap else device, mmap=mmap
        )
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])

    measured, absent = compared(
        {OURS: ours, RESUME: recipe, "the same with mmap=True": partial(recipe, mmap=True)},
        rounds,
        device,
    )
    return Question(
        key=f"resume-{size.slug}-{device}",
        title=f"Resume from {size.name} on the GPU",
        asks="Building the model there and its optimizer is in it, the same for all.",
        measured=measured,
        targets=(Target(OURS, 0.6, of=RESUME),),
        absent=absent,
    )


def compared(
    works: Mapping[str, Callable[[], None]], rounds: int, device: str
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time each until the device has done it; say why those that fail do."""

    def whole(work: Callable[[], None]) -> timing.Contender:
        def counted() -> None:
            work()
            state.synchronize(device)

        return timing.whole(counted)

    contenders = {name: whole(work) for name, work in works.items()}
    absent: dict[str, str] = {}
    for name, contender in list(contenders.items()):
        try:
            timing.timed(contender)
        except Exception as error:
            if name == OURS:
                raise
            absent[name] = savers.reason(error)
            del contenders[name]
    return timing.interleave(contenders, rounds), absent


if __name__ == "__main__":
    main()
