"""What the proofs save: small states that tell from which epoch they are, bit for bit."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ckptstore import Store
from ckptstore.errors import CkptStoreWarning, NotFoundError
from tests.loading.trainings import frozen

RUN = "digits"


def state_of(epoch: int) -> dict[str, Any]:
    """Return the state that is saved as *epoch*: no other epoch's has the same bits."""
    return {
        "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) + epoch,
        "steps": torch.tensor(epoch),
        "nothing": torch.zeros(0, 3),
    }


def save(store: Store, epoch: int, **options: Any) -> Any:
    """Save an epoch's state."""
    return store.save(
        state_of(epoch), run=RUN, epoch=epoch, val_loss=1 / (1 + epoch), rng=False, **options
    )


def is_right(entry: Any) -> bool:
    """Load an entry and say whether it is, bit for bit, what was saved as its epoch."""
    return bool(frozen(dict(entry.state("model"))) == frozen(state_of(entry.epoch)))


def opened(folder: Path | str, **options: Any) -> Store:
    """Return a store as a new process opens it, with an index in memory.

    On a full disk it raises: a proof that fills one has nobody to make room.
    """
    return Store(folder, **{"catalog": "sqlite://", "on_full": "raise", **options})


def entries(store: Store) -> tuple[list[Any], list[Any]]:
    """Return the run's live entries, oldest first, and what is damaged."""
    try:
        history = store.history(RUN)
    except NotFoundError:
        return [], []
    return [each for each in history if each.retired is None], list(history.damaged)


def tags_of(found: list[Any]) -> dict[str, int]:
    """Return where each tag points."""
    return {tag: entry.version for entry in found for tag in entry.tags}


@contextmanager
def quietly() -> Iterator[None]:
    """Let ckptstore warn as it likes: what it returns and raises is what counts here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CkptStoreWarning)
        yield


@contextmanager
def unsynced() -> Iterator[None]:
    """Leave out waiting for the disk where nothing is learned from it."""
    with mock.patch.object(os, "fsync"):
        yield


def open_files(folder: Path) -> list[str]:
    """Return what this process has open below *folder*."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:  # the one that lists them
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


def threads() -> set[str]:
    """Return the names of the threads that ckptstore started and that still run."""
    return {each.name for each in threading.enumerate() if each.name.startswith("ckptstore")}
