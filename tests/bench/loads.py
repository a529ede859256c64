"""Loads of the model out of a full checkpoint, beside the recipe everybody knows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

from ckptstore import Store

from . import saves, state, timing


def prepare(folder: Path) -> None:
    """Write the state as each contender reads it."""
    model, optimizer = state.make()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "all.pt"
    )
    saves.save_file(saves.flat(model, optimizer), folder / "all.safetensors")
    with Store(folder / "store") as store:
        store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})


def recipe(folder: Path, *, mmap: bool = False) -> torch.nn.Module:
    """Build the model, load everything that was saved, hand the model its part."""
    model = state.Transformer()
    saved = torch.load(folder / "all.pt", weights_only=True, mmap=mmap)
    model.load_state_dict(saved["model"])
    return model.eval()


def ours(folder: Path) -> torch.nn.Module:
    """Load the best version's model, every byte of it checked."""
    with Store(folder / "store") as store:
        return store.load_best(state.Transformer, device="cpu")


def warm(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time loads in a process that has loaded before."""

    def safetensors() -> None:
        model = state.Transformer()
        with safe_open(folder / "all.safetensors", "pt") as file:
            names = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 - a safetensors file is no dict
            found = {name.removeprefix("model."): file.get_tensor(name) for name in names}
        model.load_state_dict(found | {"head.weight": found["embedding.weight"]})

    return timing.interleave(
        {
            "ckptstore": lambda: ours(folder) and None,
            "build + torch.load of all + load_state_dict": lambda: recipe(folder) and None,
            "the same with mmap=True": lambda: recipe(folder, mmap=True) and None,
            "build + safetensors + load_state_dict, unchecked": safetensors,
        },
        rounds,
    )


def fresh(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time the first load of a new process, its imports of torch and of us left out."""
    times: dict[str, list[float]] = {
        "ckptstore": [],
        "build + torch.load of all + load_state_dict": [],
    }
    for _ in range(rounds):
        for name, what in (("ckptstore", "ours"), (list(times)[1], "recipe")):
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.loads", what, str(folder)],
                capture_output=True,
                text=True,
                check=True,
            )
            times[name].append(json.loads(done.stdout))
    return times


def main() -> None:
    """Time one first load and print its seconds."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    start = time.perf_counter()
    {"ours": ours, "recipe": recipe}[what](folder)
    print(json.dumps(time.perf_counter() - start))


if __name__ == "__main__":
    main()
