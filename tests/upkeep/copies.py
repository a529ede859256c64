"""Stores to copy, and what must be equal in a copy."""

from __future__ import annotations

from typing import Any

import torch

from ckptstore import Store
from ckptstore.manifest import open_manifest
from tests.catalog.places import rows

FROZEN = torch.arange(40_000, dtype=torch.float32)


def state(number: int) -> dict[str, torch.Tensor]:
    """Return a state of which the large part is the same in every version."""
    return {
        "backbone": FROZEN,
        "head": torch.arange(9000, dtype=torch.float64) + number,
        "bias": torch.arange(7, dtype=torch.int16) + number,
        "channels": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty": torch.empty(0, 3),
        "one": torch.tensor(number, dtype=torch.bfloat16),
        "complex": torch.full((3,), complex(number, 1), dtype=torch.complex128),
    }


def filled(url: Any, versions: int = 3, run: str = "digits", **options: Any) -> Store:
    """Return a store with a run of so many checkpoints that share a backbone, and a package."""
    store = Store(url, **options)
    module = torch.nn.Linear(5, 4)
    optimizer = torch.optim.AdamW(module.parameters())
    for number in range(1, versions + 1):
        module(torch.ones(2, 5)).sum().backward()
        optimizer.step()
        store.save(
            module,
            optimizer,
            run=run,
            epoch=number,
            metrics={"val_loss": 1 / number, "odd": float("nan")},
            config={"lr": 0.1, "betas": (0.9, 0.999)},
            model_config={"in_features": 5, "out_features": 4},
            extra={"state": state(number), "words": ["é", b"\x00", None, 2**70]},
        )
    store.save_package(f"{run}@{versions}", run=run, class_names=["a", "b", "c", "d"])
    return store


def facts(store: Store, ref: str) -> dict[str, Any]:
    """Return all that a version says of itself that a copy must say too, digests included."""
    entry = store.get(ref)
    opened = open_manifest(store._storage, entry.run, entry.version)
    head, parts = opened.head, [opened.part(info.name) for info in opened.head.parts]
    return {
        "times": (head.started_at, head.created_at),
        "told": (head.kind, head.epoch, head.step, head.metrics, head.config, head.package),
        "environment": head.environment,
        "infos": [(i.name, i.kind, i.size_bytes, i.class_name, i.model_config) for i in head.parts],
        "files": [(file.size_bytes, file.digest) for file in head.files],
        "trees": [part.tree for part in parts],
        "parameters": [part.parameters for part in parts],
        "tensors": [
            (each.dtype, each.itemsize, each.shape, each.order, each.requires_grad)
            for part in parts
            for each in part.tensors
        ],
        "chunks": [
            (chunk.offsets, chunk.shape, chunk.length, chunk.digest)
            for part in parts
            for each in part.tensors
            for chunk in each.chunks
        ],
    }


def same(first: object, second: object) -> bool:
    """Say whether two states are equal, tensors bit for bit and laid out alike."""
    if isinstance(first, torch.Tensor):
        return (
            isinstance(second, torch.Tensor)
            and (first.dtype, first.shape, first.stride())
            == (second.dtype, second.shape, second.stride())
            and torch.equal(first, second)
        )
    if isinstance(first, dict):
        assert isinstance(second, dict)
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def origins(store: Store, run: str = "digits") -> list[str]:
    """Return what each version of a run goes back to."""
    store._catalog.sync(run)
    return [str(each.origin) for each in store._catalog.identities(run)]


def is_indexed_rightly(store: Store) -> bool:
    """Say whether an index built anew has the rows that the catalog has."""
    store._catalog.discover()
    before = rows(store._catalog)
    store.reindex()
    return rows(store._catalog) == before


def data_bytes(store: Store) -> int:
    """Return how many bytes all packs and files of a store take."""
    return sum(
        stored.size_bytes for folder in ("packs", "files") for stored in store._storage.walk(folder)
    )
