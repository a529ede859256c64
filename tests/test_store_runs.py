from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import InvalidNameError, NotAStoreError


def test_runs_are_named_as_they_were_spelled(tmp_path):
    store = Store(tmp_path)
    for run in ("Zeta", "alpha/B", "alpha/a"):
        store.save(extra=1, run=run, rng=False)
    assert store.runs() == ["alpha/a", "alpha/B", "Zeta"]
    assert Store(tmp_path, catalog="sqlite://").runs() == ["alpha/a", "alpha/B", "Zeta"]


def test_there_are_no_runs_where_there_is_no_store(tmp_path):
    with pytest.raises(NotAStoreError):
        Store(tmp_path / "nowhere").runs()
    assert list(tmp_path.iterdir()) == []


VERBS = {
    "save": lambda store, run: store.save({"w": 1}, run=run, rng=False),
    "save_package": lambda store, run: store.save_package(torch.nn.Linear(1, 2), run=run),
    "save_package of a version": lambda store, run: store.save_package("default@1", run=run),
    "resume": lambda store, run: store.resume(run=run),
    "best": lambda store, run: store.best(run=run),
    "latest": lambda store, run: store.latest(run=run),
    "history": lambda store, run: store.history(run=run),
    "load_best": lambda store, run: store.load_best(torch.nn.Linear, run=run),
    "load_latest": lambda store, run: store.load_latest(torch.nn.Linear, run=run),
    "untag": lambda store, run: store.untag("prod", run=run),
    "run": lambda store, run: store.run(run),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
@pytest.mark.parametrize("run", ["", 0])
def test_only_none_means_the_default_run(tmp_path, verb, run):
    store = Store(tmp_path)
    store.save({"w": 1}, val_loss=1.0, rng=False)

    with pytest.raises(InvalidNameError):
        verb(store, run)
    assert [entry.ref for entry in store.history()] == ["default@1"]
