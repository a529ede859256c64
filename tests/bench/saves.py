"""Durable saves: what is measured ends when the bytes would survive a power loss."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ckptstore import Checkpoint, Store

from . import state, timing

Clean = Callable[[], None]


def durable_saves(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time one durable save of the whole state with each of them."""
    model, optimizer = state.make()
    everything = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    tensors = flat(model, optimizer)
    counter = iter(range(10**6))

    def plain() -> Clean:
        path = folder / f"{next(counter)}.bin"
        with path.open("wb", buffering=0) as file:
            for tensor in tensors.values():
                file.write(memoryview(tensor.view(-1).view(torch.uint8).numpy()))
            os.fsync(file.fileno())
        return path.unlink

    def torch_save() -> Clean:
        path = folder / f"{next(counter)}.pt"
        torch.save(everything, path)
        fsync(path)
        return path.unlink

    def safetensors() -> Clean:
        path = folder / f"{next(counter)}.safetensors"
        save_file(tensors, path)
        fsync(path)
        return path.unlink

    store = Store(folder / "saves")

    def ours() -> Clean:
        store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})

        def clean_up() -> None:
            shutil.rmtree(folder / "saves" / "packs")
            step(model, optimizer)  # else the next save would find all of it in the store

        return clean_up

    return timing.interleave(
        {
            "ckptstore": ours,
            "torch.save + fsync": torch_save,
            "safetensors + fsync": safetensors,
            "write + fsync of the same bytes": plain,
        },
        rounds,
    )


def frozen_saves(folder: Path, rounds: int) -> tuple[dict[str, list[float]], Checkpoint]:
    """Time durable saves of a fine-tuning whose last block alone is trained.

    Returns:
        The times, and the last version saved.
    """
    model, _ = state.make()
    assert isinstance(model, state.Transformer)
    model.requires_grad_(requires_grad=False)
    trained = model.blocks[-1].requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(trained.parameters())
    step(trained, optimizer)
    store = Store(folder / "frozen")
    saved = [store.save(model, optimizer, epoch=0, val_loss=0.5, model_config={})]
    everything = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    counter = iter(range(10**6))

    def ours() -> Clean:
        saved[:] = [store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})]
        return lambda: step(trained, optimizer)

    def torch_save() -> Clean:
        path = folder / f"{next(counter)}.pt"
        torch.save(everything, path)
        fsync(path)
        return path.unlink

    times = timing.interleave({"ckptstore": ours, "torch.save + fsync": torch_save}, rounds)
    return times, saved[0]


def tiny_saves(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time durable saves of about 1,000 parameters into one run."""
    model, optimizer = state.tiny()
    everything = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    store = Store(folder / "tiny")
    counter = iter(range(10**6))
    store.save(model, optimizer, epoch=0, val_loss=1.0, model_config={})
    times: dict[str, list[float]] = {"ckptstore": [], "torch.save + fsync": []}
    for _ in range(20 * rounds):
        step(model, optimizer)
        start = time.perf_counter()
        store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})
        times["ckptstore"].append(time.perf_counter() - start)
        path = folder / f"{next(counter)}.pt"
        start = time.perf_counter()
        torch.save(everything, path)
        fsync(path)
        times["torch.save + fsync"].append(time.perf_counter() - start)
    return times


def extra_memory_bytes(folder: Path) -> int:
    """Return how much the process grows during a blocking save, sampled every millisecond."""
    model, optimizer = state.make()
    store = Store(folder / "memory")
    store.save(nn.Linear(1, 1), epoch=0, model_config={})
    before, peak, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})
    done.set()
    watcher.join()
    return max(0, peak - before)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Change every parameter and every moment, as a step of training does."""
    for parameter in model.parameters():
        parameter.grad = torch.randn(()).expand_as(parameter) * 1e-3 + parameter.detach()
    optimizer.step()
    optimizer.zero_grad()


def flat(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the state's tensors under flat names, tied ones once."""
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for number, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in entry.items()}
    return tensors


def fsync(path: Path) -> None:
    """Make a file durable, and its name."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def resident_bytes() -> int:
    """Return the memory of this process that is its own: resident, without mapped files."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")
