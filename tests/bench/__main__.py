"""``make bench``: saves, loads and resuming beside their peers, as ratios of medians."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from . import imports, loads, memory, page, resumes, saves, stalls, state
from .questions import Question

PACKAGES = ("lightning", "tensorizer", "torch_checkpointing")
USUAL = ("10 MB", "1.49 GB")
COPIES = 2
"""What is touched and freed before each timing: so many times the state."""

Ask = Callable[[Path, state.Size, int, int], Iterator[Question]]


def main() -> None:
    """Measure, print, and write the figures into the benchmarks page."""
    options = parsed()
    # Peers say much of what they do, and what they will do in later releases.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # The first optimizer of a process imports torch._dynamo, which takes over a second.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    sizes = [state.SIZES[name] for name in options.state or USUAL]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as name:
        page.write(
            suite(options.state or USUAL),
            questions(Path(name), sizes, options.rounds, options.only),
            packages=PACKAGES,
            folder=Path(name),
            page=None if options.dry else page.PAGE,
        )
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes")


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each comparison")
    parser.add_argument(
        "--state",
        action="append",
        type=named,
        metavar="SIZE",
        help="10MB, 1.49GB or 6GB: measured instead of the first two; may be given again",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(ASKED),
        help="a question to ask; may be given again; the page keeps its other answers",
    )
    parser.add_argument("--dry", action="store_true", help="print and write nothing")
    parser.add_argument(
        "--folder", type=Path, help="where to write; a folder on the disk to measure"
    )
    return parser.parse_args()


def named(text: str) -> str:
    """Return the size that somebody wrote, whatever its spaces and its case."""
    spelled = {name.replace(" ", "").lower(): name for name in state.SIZES}
    try:
        return spelled[text.replace(" ", "").lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"one of {', '.join(spelled)}, not {text}") from None


def suite(sizes: Sequence[str]) -> str:
    """Return which section of the page a run writes: the usual states', or the large one's."""
    return "bench" if set(sizes) <= set(USUAL) else "bench --state 6GB"


def questions(
    folder: Path, sizes: Sequence[state.Size], rounds: int, only: Sequence[str] | None
) -> Iterator[Question]:
    """Yield what was measured. Tiny saves go first: large ones leave the disk busy."""
    os.sync()
    usual = not only and all(size.name in USUAL for size in sizes)
    if usual or (only and "tiny" in only):
        yield saves.tiny(folder / "tiny", rounds)
    if usual or (only and "import" in only):
        yield imports.imports(rounds)
    for size in sizes:
        held = state.size_bytes(state.flat(*state.make(size)).values())
        for number, (name, ask) in enumerate(ASKED.items()):
            if ask is not None and (not only or name in only):
                place = folder / f"{size.slug}-{number}"
                yield from ask(place, size, rounds, COPIES * held)


def ask_stall(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask how long a background save holds training up."""
    yield stalls.stall(folder, size, rounds, touched)


def ask_added(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask what a save adds to training."""
    yield stalls.added(folder, size, rounds, touched)


def ask_durable(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask how long a blocking save takes."""
    yield saves.durable(folder, size, rounds, touched)


def ask_frozen(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask how long a save takes of which little changed; of the usual state alone."""
    if size == state.COMMON:
        yield saves.frozen(folder, size, rounds, touched)


def ask_load(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask how long loading takes."""
    loads.prepare(folder, size)
    yield loads.warm(folder, size, rounds, touched)
    loads.remove(folder)


def ask_first(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask how long the first load of a process takes."""
    del touched
    loads.prepare(folder, size)
    yield loads.fresh(folder, size, rounds)
    loads.remove(folder)


def ask_resume(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask how long resuming takes, and what memory."""
    loads.prepare(folder, size)
    yield from resumes.resume(folder, size, rounds, touched)
    loads.remove(folder)


def ask_memory(folder: Path, size: state.Size, rounds: int, touched: int) -> Iterator[Question]:
    """Ask what saves take of the memory; measured once, as it doesn't vary."""
    del rounds, touched
    yield memory.grown(folder, size)


ASKED: dict[str, Ask | None] = {
    "tiny": None,  # these two are of no state's size
    "import": None,
    "durable": ask_durable,
    "frozen": ask_frozen,
    "stall": ask_stall,
    "added": ask_added,
    "load": ask_load,
    "first-load": ask_first,
    "resume": ask_resume,
    "memory": ask_memory,
}


if __name__ == "__main__":
    main()
