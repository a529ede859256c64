"""A verb asks and reads as much of a long run as of a short one. `make bench-growth` times it."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from sqlalchemy import event

from ckptstore import Keep, Store
from ckptstore.catalog.engine import FILE_NAME, Database
from ckptstore.catalog.migrate import migrate
from ckptstore.errors import ArgumentError
from tests.bench.versions import pattern

SHORT, LONG = 20, 1_000
WRITTEN = ("create", "open_writer", "delete")
ASKED = ("read", "read_start", "read_many", "read_into", "list_folder", "walk", "size_bytes", "map")
NOISE = 1.5
"""SQLite's steps differ a little with the depth of its trees: reading every row takes 50 times."""

LOOKS = {
    "best": lambda store: store.best(run="r"),
    "the greatest": lambda store: store.best(run="r", metric="val_loss", mode="max"),
    "all alike": lambda store: store.best(run="r", metric="train_loss", mode="max"),
    "latest": lambda store: store.latest(run="r"),
    "get": lambda store: store.get("r@7"),
    "a tag": lambda store: store.get("r@prod"),
    "history": lambda store: store.history("r", limit=10),
    "runs": lambda store: store.runs(),
    "tags": lambda store: store.tags("r"),
    "save": lambda store: store.save(extra=torch.ones(2), run="r", val_loss=0.5),
    "log": lambda store: store.run("r").log(epoch=3, val_loss=1),
    "note": lambda store: store.note("r@3", "nice"),
}


@pytest.fixture(scope="module", params=["made", "migrated"])
def stores(request, tmp_path_factory):
    """A store of a short run and one of a long run, both indexed.

    SQLite takes the index that was made last, or first, of two that look alike to it.
    """
    found = {}
    for count in (SHORT, LONG):
        folder = tmp_path_factory.mktemp("growth") / "store"
        pattern(folder, "r", extra=torch.ones(2)).write("r", count)
        if request.param == "migrated":
            migrate(f"sqlite:///{folder / FILE_NAME}")
        with Store(folder) as store:
            store.tag("r@5", "prod")
            store.latest(run="r")
        found[count] = folder
    return found


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The same, of runs of which five versions are live."""
    found = {}
    for count in (SHORT, LONG):
        folder = tmp_path_factory.mktemp("pruned") / "store"
        pattern(folder, "r", extra=torch.ones(2)).write("r", count, live=5)
        with Store(folder) as store:
            store.latest(run="r")
        found[count] = folder
    return found


@contextmanager
def counted(store, monkeypatch):
    """Count what is asked of the storage, and the database's statements and steps."""
    counts = Counter()

    def counting(name):
        really = getattr(store._storage, name)

        def count(*given):
            counts[name] += 1
            counts["keys"] += len(given[0]) if name == "read_many" else 1
            return really(*given)

        return count

    for name in (*ASKED, *WRITTEN):
        monkeypatch.setattr(store._storage, name, counting(name))
    open_ = Database._open

    def step():
        counts["steps"] += 1

    def statement(*_):
        counts["statements"] += 1

    def opened(database):
        engine = open_(database)
        if not event.contains(engine, "before_cursor_execute", statement):
            event.listen(engine, "before_cursor_execute", statement)
            with engine.connect() as connection:
                connection.connection.driver_connection.set_progress_handler(step, 1)
        return engine

    monkeypatch.setattr(Database, "_open", opened)
    yield counts
    monkeypatch.undo()
    store.close()


def cost(folder, look, monkeypatch, *, once_before=True):
    store = Store(folder)
    if once_before:
        look(store)
    with counted(store, monkeypatch) as counts:
        look(store)
    return counts


def compare(places, look, monkeypatch, **options):
    short, long = (cost(places[count], look, monkeypatch, **options) for count in (SHORT, LONG))
    steps = long.pop("steps") / short.pop("steps")
    assert short["statements"] > 0
    assert long == short
    assert steps < NOISE


@pytest.mark.filterwarnings("ignore:run 'r' already has:ckptstore.errors.RunWarning")
@pytest.mark.parametrize("look", LOOKS)
def test_a_verb_asks_and_reads_as_much_of_a_long_run(stores, look, monkeypatch):
    compare(stores, LOOKS[look], monkeypatch)


@pytest.mark.parametrize("look", ["best", "latest", "history", "runs"])
def test_so_does_the_first_of_a_process(stores, look, monkeypatch):
    compare(stores, LOOKS[look], monkeypatch, once_before=False)


@pytest.mark.filterwarnings("ignore:run 'r' already has:ckptstore.errors.RunWarning")
def test_so_does_a_save_that_is_pruned_after(pruned, monkeypatch):
    def save(store):
        run = store.run("r", keep=Keep(last=3, best=2))
        run.save(extra=torch.ones(2), val_loss=0.5)

    compare(pruned, save, monkeypatch)


def test_a_limit_keeps_the_newest_in_order(tmp_path):
    store = Store(tmp_path)
    for epoch in range(5):
        store.save(extra=1, epoch=epoch, run="a" if epoch % 2 else "b", rng=False)
        store.run("a").log(epoch=10 + epoch, loss=1)

    assert [entry.ref for entry in store.history("b", limit=2)] == ["b@2", "b@3"]
    assert [entry.ref for entry in store.history(limit=3)] == ["a@2", "b@2", "b@3"]
    assert [entry.ref for entry in store.run("a").history(limit=9)] == ["a@1", "a@2"]
    assert [logged.epoch for logged in store.history("a", limit=2).logged] == [13, 14]


@pytest.mark.parametrize("limit", [0, -1, True, 2.0, "3"])
def test_a_limit_is_a_whole_number_above_0(tmp_path, limit):
    with pytest.raises(ArgumentError, match=r"limit=.*whole number above 0"):
        Store(tmp_path).history(limit=limit)
