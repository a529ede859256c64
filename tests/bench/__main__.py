"""``make bench``: saves and loads beside their peers, in one run, as ratios of medians."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from . import growth, loads, saves, timing

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: written by make bench -->", "<!-- end -->"


def main() -> None:
    """Measure, print, and write the figures into the benchmarks page."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each comparison")
    parser.add_argument(
        "--folder", type=Path, help="where to write; a folder on the disk to measure"
    )
    options = parser.parse_args()
    # The first optimizer of a process imports torch._dynamo, which takes over a second.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as name:
        text = "\n".join(report(Path(name), options.rounds))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(f"\nwritten to {PAGE.name}")


def report(folder: Path, rounds: int) -> Iterator[str]:
    """Yield the lines of the page as they are measured, and print them."""
    for line in lines(folder, rounds):
        print(line, flush=True)
        yield line


def lines(folder: Path, rounds: int) -> Iterator[str]:
    """Yield the lines of the page. Tiny saves go first: large ones leave the disk busy."""
    os.sync()
    packages = ("torch", "safetensors", "blake3", "sqlalchemy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    memory = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield (
        f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()} {platform.machine()}; medians of {rounds} rounds, "
        "lowest and highest behind them."
    )
    yield ""
    yield from table("Durable save of 1,000 parameters", saves.tiny_saves(folder, rounds))
    yield from table("Durable save of 1.49 GB", saves.durable_saves(folder, rounds))
    extra = saves.extra_memory_bytes(folder) / 2**20
    yield f"Memory that the save takes beside the state itself: {extra:.1f} MiB."
    yield ""
    times, last = saves.frozen_saves(folder, rounds)
    yield from table("Durable save of a fine-tuning that trains the last of 12 blocks", times)
    share = last.new_bytes / last.size_bytes
    yield (
        f"It writes {last.new_bytes / 1e6:.0f} MB of the version's {last.size_bytes / 1e6:.0f} MB "
        f"({share:.0%}); the rest lies in the store already."
    )
    yield ""
    loads.prepare(folder)
    yield from table("Load of the model (0.5 GB) out of the 1.49 GB", loads.warm(folder, rounds))
    yield from table("The same, first load of a process", loads.fresh(folder, rounds))
    yield from table(
        "The next save into a long run",
        growth.next_saves(folder, rounds),
        f"at version {growth.SHORT}",
    )
    yield f"### Upkeep of a run of {growth.LONG:,} versions"
    yield ""
    yield "| | once |"
    yield "| --- | --- |"
    for name, seconds in growth.upkeep(folder).items():
        yield f"| {name} | {seconds:.3g} s |"
    yield ""


def table(title: str, times: dict[str, list[float]], first: str = "ckptstore") -> Iterator[str]:
    """Yield one comparison: the first, then the others with the first as a ratio of theirs."""
    yield f"### {title}"
    yield ""
    yield f"| | median (range) | {first} takes |"
    yield "| --- | --- | --- |"
    mine = times[first]
    for name, theirs in times.items():
        share = "" if name == first else f"{timing.ratio(mine, theirs):.2f} of it"
        yield f"| {name} | {timing.spread(theirs)} | {share} |"
    yield ""


if __name__ == "__main__":
    main()
