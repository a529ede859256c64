"""Durable saves: whole, small, and of a fine-tuning that changes little."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from ckptstore import Store

from . import blocking, savers, state, timing
from .blocking import OURS, PLAIN, TORCH
from .questions import Question, Target
from .savers import Saver


def durable(folder: Path, size: state.Size, rounds: int, touched_bytes: int) -> Question:
    """Time one durable save of the whole state with each of them."""
    folder.mkdir()
    model, optimizer = state.make(size)
    found, absent = savers.opened(blocking.ALL, folder, model, optimizer)

    def contender(saver: Saver) -> timing.Contender:
        def presses() -> Iterator[None]:
            yield
            saver.save()
            yield
            saver.clear()
            state.step(model, optimizer)  # else ckptstore would find all of it in the store

        return presses

    measured = timing.interleave(
        {name: contender(saver) for name, saver in found.items()},
        rounds,
        touched_bytes=touched_bytes,
    )
    savers.close(found)
    shutil.rmtree(folder)
    return Question(
        key=f"durable-{size.slug}",
        title=f"Durable save of {size.name}",
        asks=(
            "From the call until the save would survive a power loss. ckptstore's has a BLAKE3 "
            "digest of every tensor, the catalog and the state of the random generators in it."
        ),
        measured=measured,
        limit=PLAIN,
        targets=(Target(OURS, 0.6, of=TORCH), Target(OURS, 1.25, of=PLAIN)),
        notes=savers.notes(found),
        absent=absent,
    )


def tiny(folder: Path, rounds: int) -> Question:
    """Time durable saves of about 1,000 parameters into one run."""
    folder.mkdir()
    model, optimizer = state.tiny()
    everything = state.everything(model, optimizer)
    store = Store(folder / "store")
    counter = count()

    def ours() -> Iterator[None]:
        state.step(model, optimizer)
        yield
        store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})
        yield

    def theirs() -> Iterator[None]:
        place = folder / f"{next(counter)}.pt"
        yield
        torch.save(everything, place)
        state.fsync(place)
        yield

    measured = timing.interleave({OURS: ours, TORCH: theirs}, 20 * rounds, touched_bytes=0)
    store.close()
    shutil.rmtree(folder)
    remark = (
        "torch.save makes one file durable; ckptstore makes packs, a manifest whose creation is "
        "exclusive, and an index of them durable."
    )
    return Question(
        key="tiny",
        title="Durable save of 1,000 parameters",
        asks="A version of a model of 31 by 31 and its optimizer, each into the same run.",
        measured=measured,
        targets=(Target(OURS, 0.010),),
        remarks=(remark,),
    )


def frozen(folder: Path, size: state.Size, rounds: int, touched_bytes: int) -> Question:
    """Time durable saves of a fine-tuning whose last block alone is trained."""
    folder.mkdir()
    torch.manual_seed(0)
    model = size.model()
    model.requires_grad_(requires_grad=False)
    trained = model.blocks[-1].requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(trained.parameters())
    state.step(trained, optimizer)
    store = Store(folder / "store")
    last = store.save(model, optimizer, epoch=0, val_loss=0.5, model_config={})
    everything = state.everything(model, optimizer)
    counter = count()

    def ours() -> Iterator[None]:
        nonlocal last
        state.step(trained, optimizer)
        yield
        last = store.save(model, optimizer, epoch=1, val_loss=0.5, model_config={})
        yield

    def theirs() -> Iterator[None]:
        place = folder / f"{next(counter)}.pt"
        yield
        torch.save(everything, place)
        state.fsync(place)
        yield
        place.unlink()

    measured = timing.interleave({OURS: ours, TORCH: theirs}, rounds, touched_bytes=touched_bytes)
    store.close()
    shutil.rmtree(folder)
    share = last.new_bytes / last.size_bytes
    remark = (
        f"ckptstore writes {last.new_bytes / 1e6:.0f} MB of the version's "
        f"{last.size_bytes / 1e6:.0f} MB ({share:.0%}); the rest lies in the store already."
    )
    return Question(
        key=f"frozen-{size.slug}",
        title=f"Durable save of a fine-tuning that trains the last of {size.depth} blocks",
        asks="All of the model is saved, and the optimizer of the block that is trained.",
        measured=measured,
        remarks=(remark,),
    )
