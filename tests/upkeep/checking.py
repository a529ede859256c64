"""Stores to check, and ways to damage them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import torch

from ckptstore import Store
from ckptstore.format.journal import RetireEntry
from ckptstore.saving import journaling
from ckptstore.upkeep.findings import Finding, Report

STATE = {"w": torch.arange(3000, dtype=torch.float32), "odd": torch.arange(7, dtype=torch.int16)}


def state(number: int) -> dict[str, torch.Tensor]:
    """Return a state of which nothing is in that of another number."""
    return {name: tensor + number for name, tensor in STATE.items()}


def filled(url: str | Path, versions: int = 3, **options: Any) -> Store:
    """Return a store with a run of so many versions, each with packs of its own."""
    store = Store(url, **options)
    for number in range(1, versions + 1):
        values = {"epoch": number, "val_loss": 1 / number, "extra": {"note": "é"}}
        store.save(state(number), run="digits", rng=False, **values)
    return store


def check(store: Store, ref: str | int | None = None, **options: Any) -> Report:
    """Check a store and change nothing."""
    return store.verify(ref, **options)


def repaired(store: Store, ref: str | int | None = None, **options: Any) -> Report:
    """Check a store and repair what can be."""
    return store.verify(ref, repair=True, **options)


def retired(store: Store, *versions: int) -> None:
    """Retire versions of the run."""

    def decide(_: object, time: datetime, writer: UUID) -> RetireEntry:
        return RetireEntry(dict.fromkeys(versions, "too old"), time, writer)

    journaling.append(store._storage, store._catalog, "digits", decide)


def flip(path: Path, at: int = -1) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def only(report: Report) -> Finding:
    """Return the one finding there is."""
    (finding,) = report.findings
    return finding


def kinds(report: Report) -> list[tuple[str, str, str | None]]:
    """Return what was found: severity, kind, ref."""
    return [(each.severity, each.kind, each.ref) for each in report.findings]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
