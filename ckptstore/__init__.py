"""Durable, verified and catalogued checkpoints for PyTorch, on a folder or in a bucket.

::

    from ckptstore import Store

    store = Store("checkpoints")
    store.save(model, optimizer, epoch=epoch, val_loss=loss)
    model = store.load_best(SimpleNN, device="cpu")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ckptstore._version import __version__ as __version__

if TYPE_CHECKING:
    from ckptstore import errors as errors
    from ckptstore.entry import Checkpoint as Checkpoint
    from ckptstore.entry import Package as Package
    from ckptstore.errors import CkptStoreError as CkptStoreError
    from ckptstore.guard import Guard as Guard
    from ckptstore.history import History as History
    from ckptstore.loading.resume import Resumed as Resumed
    from ckptstore.pending import PendingSave as PendingSave
    from ckptstore.run import Run as Run
    from ckptstore.state.init_args import remember_init as remember_init
    from ckptstore.storage.cache import Cache as Cache
    from ckptstore.store import Store as Store
    from ckptstore.upkeep.keep import Keep as Keep
    from ckptstore.workers import leave_to_guard as leave_to_guard

# Imported when first used: a command line should not wait for torch, nor a script for SQLAlchemy.
_PLACES = {
    "Cache": "ckptstore.storage.cache",
    "Checkpoint": "ckptstore.entry",
    "CkptStoreError": "ckptstore.errors",
    "Guard": "ckptstore.guard",
    "History": "ckptstore.history",
    "Keep": "ckptstore.upkeep.keep",
    "Package": "ckptstore.entry",
    "PendingSave": "ckptstore.pending",
    "Resumed": "ckptstore.loading.resume",
    "Run": "ckptstore.run",
    "Store": "ckptstore.store",
    "errors": "ckptstore.errors",
    "leave_to_guard": "ckptstore.workers",
    "remember_init": "ckptstore.state.init_args",
}

__all__ = [
    "Cache",
    "Checkpoint",
    "CkptStoreError",
    "Guard",
    "History",
    "Keep",
    "Package",
    "PendingSave",
    "Resumed",
    "Run",
    "Store",
    "errors",
    "leave_to_guard",
    "remember_init",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'ckptstore' has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name])
    found = module if name == "errors" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
