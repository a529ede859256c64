"""What a long run costs: its next save, pruning it, collecting what was pruned."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn, optim

from ckptstore import Keep, Run, Store
from ckptstore.format.layout import STORE_KEY
from ckptstore.format.store_facts import decode_store, encode_store

from . import state

LONG = 10_000
SHORT = 10


def next_saves(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time saves into runs of 10 and of 10,000 versions, plain and pruned after each save."""
    model, optimizer = state.tiny()
    runs = {
        name: Store(folder / f"growth-{index}").run("digits", model_config={}, keep=keep)
        for index, (name, keep) in enumerate(
            {
                f"at version {SHORT}": None,
                f"at version {LONG:,}": None,
                f"at version {SHORT}, keep=Keep(last=3, best=2)": Keep(last=3, best=2),
                f"at version {LONG:,}, keep=Keep(last=3, best=2)": Keep(last=3, best=2),
            }.items()
        )
    }
    for name, run in runs.items():
        for epoch in range(LONG if f"{LONG:,}" in name else SHORT):
            save(run, model, optimizer, epoch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(20 * rounds):
        for name, run in runs.items():
            state.step(model, optimizer)
            start = time.perf_counter()
            run.save(model, optimizer, epoch=LONG + number, val_loss=1.0)
            times[name].append(time.perf_counter() - start)
    return times


def save(run: Run, model: nn.Module, optimizer: optim.Optimizer, epoch: int) -> None:
    """Save what a step changed."""
    state.step(model, optimizer)
    run.save(model, optimizer, epoch=epoch, val_loss=1 / (1 + epoch % 97))


def upkeep(folder: Path) -> dict[str, float]:
    """Time pruning, verifying and collecting the 10,000 versions that :func:`next_saves` left.

    The grace period is a week, and no bench waits for it: ``ckptstore.json`` is written anew with
    none, as nobody ever should, once nothing saves into the store any more.
    """
    place = folder / "growth-1"
    store = Store(place)
    done = {}
    done["prune to the last 10"] = timed(lambda: store.prune(Keep(last=10), run="digits"))
    facts = decode_store((place / STORE_KEY).read_bytes(), str(place))
    (place / STORE_KEY).write_bytes(encode_store(replace(facts, grace_s=0)))
    time.sleep(0.1)
    store = Store(place)
    done["verify without reading the data"] = timed(lambda: store.verify(deep=False))
    done["verify, every byte"] = timed(store.verify)
    done["collect, dry run"] = timed(lambda: store.collect(dry_run=True))
    done["collect"] = timed(store.collect)
    done["collect again"] = timed(store.collect)
    done["reindex"] = timed(store.reindex)
    return done


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
