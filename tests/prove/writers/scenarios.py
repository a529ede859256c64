"""Several processes on one store, and what must be so afterwards."""

from __future__ import annotations

import multiprocessing
import shutil
import uuid
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from ckptstore import Store
from ckptstore.errors import RetiredError
from ckptstore.format.layout import STORE_KEY
from ckptstore.format.store_facts import StoreFacts, encode_store
from ckptstore.storage.opening import open_storage
from tests.prove.writers.processes import (
    RUN,
    Site,
    at_once,
    clean_up,
    evaluate,
    move_tag,
    save_many,
    state,
    train,
)

SHORT_GRACE_S = 2
"""So short that clean-up deletes beside the training, and a save may well come too late."""


@dataclass(frozen=True)
class Figures:
    """What was done and seen."""

    processes: int
    versions: int
    entries: int = 0
    late: int = 0
    deleted: int = 0


def context() -> ForkServerContext:
    """Return how processes are started: from one that has imported torch, which takes seconds."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["torch", "ckptstore.saving.checkpoint", "ckptstore.store"])
    return found


def one_run(site: Site, processes: int, count: int) -> Figures:
    """Have processes save into one run of a store that is not there yet."""
    work = [(save_many, (site, f"writer-{n}", n, count)) for n in range(processes)]
    said = at_once(context(), work)
    saved = [pair for each in said for pair in each.saved.items()]
    assert sorted(version for version, _ in saved) == list(range(1, processes * count + 1))
    store = site.open("reader")
    assert [each.version for each in store.history(RUN)] == list(range(1, processes * count + 1))
    for version, value in saved:
        assert holds(store, version, value), f"{RUN}@{version} does not hold {value}"
    agree([store, *(site.open(f"writer-{n}") for n in range(processes))])
    assert store.verify().ok
    store.close()
    return Figures(processes, len(saved))


def training(site: Site, count: int) -> Figures:
    """Have a training, an evaluator and a janitor at work at once, with a short grace period."""
    storage = open_storage(site.url, dict(site.options) or None)
    storage.prepare()
    storage.create(STORE_KEY, encode_store(StoreFacts(uuid.uuid4(), SHORT_GRACE_S, in_place=False)))
    storage.close()
    names = ("trainer", "evaluator", "janitor")
    trainer, evaluator, janitor = names
    said = {
        each.name: each
        for each in at_once(
            context(),
            [
                (train, (site, trainer, count)),
                (evaluate, (site, evaluator)),
                (clean_up, (site, janitor)),
            ],
        )
    }
    store = site.open("reader")
    history = list(store.history(RUN))
    assert [each.version for each in history] == list(range(1, len(history) + 1))
    assert set(said[trainer].saved) <= {each.version for each in history}
    assert len(said[trainer].saved) + said[trainer].late == count
    live = [each for each in history if each.retired is None]
    for entry in history:
        if entry.retired is None:
            assert holds(store, entry.version, float(entry.epoch))
        if entry.version in said[evaluator].logged:
            assert entry.metrics["test_acc"] == said[evaluator].logged[entry.version]
    if said[trainer].saved:
        assert max(said[trainer].saved) in {each.version for each in live}
    agree([store, *(site.open(name) for name in names)])
    assert store.verify().ok
    store.close()
    return Figures(
        3,
        len(history),
        len(said[evaluator].logged),
        said[trainer].late,
        said[janitor].deleted,
    )


def tags(site: Site, moves: int, copy: Path | None) -> Figures:
    """Have two processes move one tag; everybody, and every copy, must know one order.

    Args:
        site: Where.
        moves: How often each process moves it.
        copy: Where a plain copy of all files goes; None where the store is no folder.
    """
    store = site.open("reader")
    for value in range(4):
        store.save(state(float(value)), run=RUN, epoch=value, rng=False)
    ways = ([1, 2] * moves, [3, 4] * moves)
    at_once(
        context(),
        [(move_tag, (site, f"mover-{n}", way[:moves])) for n, way in enumerate(ways)],
    )
    readers = [store, site.open("mover-0"), site.open("mover-1")]
    if copy is not None:
        shutil.copytree(site.url, copy)
        readers.append(replace(site, url=str(copy)).open("copy"))
    orders = [reader.tag_history("prod", run=RUN) for reader in readers]
    assert all(order == orders[0] for order in orders), "the order differs"
    assert all(reader.tags(RUN) == store.tags(RUN) for reader in readers)
    moved = [(move.previous, move.version) for move in orders[0]]
    assert [before for before, _ in moved[1:]] == [version for _, version in moved[:-1]]
    assert store.tags(RUN) == {"prod": f"{RUN}@{moved[-1][1]}"}
    for reader in readers:
        reader.close()
    return Figures(2, 4, len(moved))


def holds(store: Store, version: int, value: float) -> bool:
    """Say whether a live version is what was saved with that value, bit for bit."""
    try:
        found = store.get(f"{RUN}@{version}").state("model")
    except RetiredError:
        return False
    expected = state(value)
    return all(torch.equal(found[name], expected[name]) for name in expected)


def agree(stores: list[Store]) -> None:
    """See that all catalogs say the same, row by row, once they are synced; close all but one.

    Raises:
        AssertionError: Two of them differ.
    """
    rows = []
    for store in stores:
        store._catalog.sync(RUN)
        rows.append(store._catalog.rows(RUN))
    assert all(each == rows[0] for each in rows), "catalogs differ"
    for store in stores[1:]:
        store.close()
