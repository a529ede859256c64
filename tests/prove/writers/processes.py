"""What each of several processes does; every one has a catalog of its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

from ckptstore import Keep, Store
from ckptstore.errors import CkptStoreWarning, LateCommitError, NotFoundError, RetiredError

RUN = "digits"
STARTED_WITHIN_S = 240
PATIENCE_S = 0.01


@dataclass(frozen=True)
class Site:
    """Where the store is, and where the processes keep what is their own."""

    url: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, name: str) -> Store:
        """Open the store as the process of that name does."""
        torch.set_num_threads(1)
        warnings.simplefilter("ignore", CkptStoreWarning)
        catalog = f"sqlite:///{self.folder}/{name}.sqlite3"
        return Store(self.url, catalog=catalog, storage_options=dict(self.options) or None)


@dataclass(frozen=True)
class Said:
    """What a process says it did."""

    name: str
    saved: Mapping[int, float] = field(default_factory=dict)
    """The value in each version it saved."""
    logged: Mapping[int, float] = field(default_factory=dict)
    """The metric it logged of each version."""
    late: int = 0
    """How often it was told that it came too late."""
    moves: int = 0
    """How often it moved a tag, or found it where it was to go."""
    deleted: int = 0
    """How many packs it deleted."""
    error: str | None = None


Work = Callable[..., Said]


def state(value: float) -> dict[str, torch.Tensor]:
    """Return what is saved: a large part that never changes, and a small one that tells all."""
    return {"frozen": torch.arange(3000.0), "value": torch.full((5,), value)}


def save_many(site: Site, name: str, number: int, count: int) -> Said:
    """Save into the one run that all write."""
    store, saved = site.open(name), {}
    for each in range(count):
        value = 1000.0 * number + each
        saved[store.save(state(value), run=RUN, epoch=each, rng=False).version] = value
    store.close()
    return Said(name, saved)


def train(site: Site, name: str, count: int) -> Said:
    """Save one epoch after another into a run that keeps but a few."""
    store, saved, late = site.open(name), {}, 0
    run = store.run(RUN, keep=Keep(last=2, best=1))
    for epoch in range(count):
        try:
            entry = run.save(
                state(float(epoch)), epoch=epoch, val_loss=abs(epoch - count / 2), rng=False
            )
        except LateCommitError:
            late += 1
        else:
            saved[entry.version] = float(epoch)
    (site.folder / "trained").touch()
    store.close()
    return Said(name, saved, late=late)


def evaluate(site: Site, name: str) -> Said:
    """Load what is newest, and log a metric of it, until the training is over."""
    store, logged, is_over = site.open(name), {}, False
    while not is_over:
        is_over = (site.folder / "trained").exists()
        try:
            entry = store.latest(run=RUN)
            value = float(entry.state("model")["value"][0])
            assert entry.epoch == value, f"{entry.ref} holds {value}"
            store.log(entry, test_acc=value)
        except (NotFoundError, RetiredError):  # there is none yet, or no longer
            time.sleep(PATIENCE_S)
        else:
            logged[entry.version] = value
    store.close()
    return Said(name, logged=logged)


def clean_up(site: Site, name: str) -> Said:
    """Prune and collect until the training is over."""
    store, deleted, is_over = site.open(name), 0, False
    while not is_over:
        is_over = (site.folder / "trained").exists()
        try:
            store.prune(Keep(last=1), run=RUN)
            deleted += len(store.collect().deleted)
        except NotFoundError:
            pass
        time.sleep(PATIENCE_S)
    store.close()
    return Said(name, deleted=deleted)


def move_tag(site: Site, name: str, versions: Sequence[int]) -> Said:
    """Move one tag from version to version."""
    store = site.open(name)
    for version in versions:
        store.tag(f"{RUN}@{version}", "prod")
    store.close()
    return Said(name, moves=len(versions))


def at_once(context: ForkServerContext, work: Sequence[tuple[Work, tuple[Any, ...]]]) -> list[Said]:
    """Do it all at the same time, each in a process of its own.

    Raises:
        AssertionError: A process failed.
    """
    results, start = context.Queue(), context.Barrier(len(work))
    processes = [context.Process(target=_run, args=(start, results, *each)) for each in work]
    for process in processes:
        process.start()
    said = [results.get(timeout=STARTED_WITHIN_S) for _ in processes]
    for process in processes:
        process.join()
    failed = [each.error for each in said if each.error]
    assert not failed, failed
    return said


def _run(start: Any, results: Any, work: Work, arguments: tuple[Any, ...]) -> None:
    start.wait(STARTED_WITHIN_S)
    try:
        said = work(*arguments)
    except BaseException as error:  # noqa: BLE001 - the parent shows it
        said = Said("failed", error=f"{work.__name__}: {type(error).__name__}: {error}")
    results.put(said)
