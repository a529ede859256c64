"""What ``save_async`` returns says of itself what has become of it."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import SaveSkippedError, StillPendingError, StorageError
from ckptstore.pending import PendingSave
from tests.holding import PATIENCE_S, Held

STATE = {"w": torch.ones(3)}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", catalog="sqlite://") as opened:
        yield opened


def test_it_is_under_way_and_then_done(store):
    with Held(store) as held:
        pending = store.save_async(STATE, epoch=3)
        held.wait()
        assert not pending.done()
        assert not pending.wait(0.01)
        assert "run 'default', epoch 3, under way" in repr(pending)
        with pytest.raises(StillPendingError, match="epoch 3"):
            pending.result(0.01)

    assert pending.result(PATIENCE_S).ref == "default@1"
    assert pending.done()
    assert not pending.skipped
    assert repr(pending).endswith("done>")


def test_a_failure_is_raised_each_time_its_result_is_asked_for(store):
    with Held(store, StorageError("no disk")):
        pending = store.save_async(STATE)

    for _ in range(2):
        with pytest.raises(StorageError, match="no disk"):
            pending.result(PATIENCE_S)
    assert pending.done()
    assert repr(pending).endswith("failed>")


def test_one_that_is_skipped_has_no_result(store):
    skipped = PendingSave(store._pending, None)

    assert (skipped.done(), skipped.skipped, skipped.wait()) == (True, True, True)
    assert "skipped" in repr(skipped)
    with pytest.raises(SaveSkippedError):
        skipped.result()
