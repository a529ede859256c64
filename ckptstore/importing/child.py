"""What runs in a process of its own: a file is unpickled, and saved again as a store.

Whatever the file does, it does here: without credentials in the environment, in an empty folder,
for a limited time, with a limit on what it writes. The process that asked reads the store as it
reads any store, so nothing that the file made reaches it but plain values and tensors, each byte
checked. It has the rights of whoever runs it all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ckptstore.catalog.index import Catalog
from ckptstore.errors import CkptStoreError
from ckptstore.importing.dcp import read_dcp
from ckptstore.importing.plain import Held, to_plain
from ckptstore.importing.unpickling import load_trusted, load_trusted_piece
from ckptstore.saving.capture import capture_tree
from ckptstore.saving.lineage import Lineage
from ckptstore.saving.run_writer import RunWriter
from ckptstore.saving.save import Facts, save
from ckptstore.state.init_args import remembered
from ckptstore.state.modules import class_name, plain_state, unwrap
from ckptstore.storage.opening import open_storage

RUN = "read"
VALUE, ABOUT = "value", "about"
"""The parts that the store has."""
ATTRIBUTES = (bool, int, float, str, torch.Tensor)
"""Attributes of these types are named when a whole model is imported, as its state lacks them."""
REFUSED = 3
"""The exit code after an error that says what is wrong."""


def limit_files(most_bytes: int) -> None:
    """Let this process, and what it starts, write no file that is larger, and no memory dump."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for what, most in ((resource.RLIMIT_FSIZE, most_bytes), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def main(request: Mapping[str, Any]) -> int:
    """Read a file, running whatever it says, and save what it holds.

    Args:
        request: ``path``; ``kind``: ``file``, or ``dcp`` for a folder; ``where``, its name in
            errors; ``store``: the folder to save to; ``outcome``: where an error is written.

    Returns:
        The process's exit code.
    """
    try:
        _convert(Path(request["path"]), request["kind"], request["where"], request["store"])
    except CkptStoreError as error:
        Path(request["outcome"]).write_text(json.dumps({"error": str(error)}), "utf-8")
        return REFUSED
    return 0


def _convert(path: Path, kind: str, where: str, store: str) -> None:
    value = read_dcp(path, where, load_trusted_piece) if kind == "dcp" else load_trusted(path)
    lost: list[str] = []

    def state(each: Any) -> tuple[Any, Held] | None:
        if isinstance(each, torch.nn.Module):
            lost.extend(_lost(each))
        return _state(each)

    plain = to_plain(value, where, state)
    about = {
        "notes": [*plain.notes, *lost],
        "held": {
            at: {
                "kind": held.kind,
                "class": held.class_name,
                "model_config": to_plain(held.model_config, where, _state).value,
            }
            for at, held in plain.held.items()
        },
    }
    storage = open_storage(store)
    catalog = Catalog(None, storage)
    writer = RunWriter(storage, catalog, RUN, Lineage(), single_writer=True)
    parts = [capture_tree(VALUE, plain.value), capture_tree(ABOUT, about)]
    save(storage, writer, parts, Facts("checkpoint"))
    catalog.close()


def _lost(module: torch.nn.Module) -> list[str]:
    """Say which plain attributes of modules of the user's own no state has."""
    names = [
        f"{path}.{name}" if path else name
        for path, each in unwrap(module).named_modules()
        if not type(each).__module__.startswith("torch.")
        for name, value in vars(each).items()
        if not name.startswith("_") and name != "training" and isinstance(value, ATTRIBUTES)
    ]
    if not names:
        return []
    said = (
        f"{class_name(module)}: attributes that its state_dict() does not have were not kept: "
        f"{', '.join(names)}; the class sets them, or set them again after load()"
    )
    return [said]


def _state(value: Any) -> tuple[Any, Held] | None:
    """Return an object's state and what it is, None for one that has none."""
    if isinstance(value, torch.nn.Module):
        held = Held("module", class_name(value), remembered(unwrap(value)))
        return plain_state(value), held
    state_dict = getattr(value, "state_dict", None)
    if isinstance(value, type) or not callable(state_dict):
        return None
    kind = "optimizer" if isinstance(value, torch.optim.Optimizer) else "object"
    return state_dict(), Held(kind, class_name(value))
