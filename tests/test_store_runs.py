from __future__ import annotations

import pytest

from ckptstore import Store
from ckptstore.errors import NotAStoreError


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
