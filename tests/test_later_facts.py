"""Tags through the store: set, moved, taken away."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import InvalidNameError, VersionNotFoundError


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", run="digits") as opened:
        for epoch in (1, 2):
            opened.save({"w": torch.full((2,), float(epoch))}, epoch=epoch)
        yield opened


def test_a_tag_is_set_moved_and_taken_away(store):
    store.tag("digits@1", "prod")
    assert store.get("digits@prod").epoch == 1

    store.tag(store.get("digits@2"), "prod")
    assert store.get("digits@prod").epoch == 2

    store.untag("prod")
    with pytest.raises(VersionNotFoundError):
        store.get("digits@prod")


def test_a_name_that_is_none_is_refused(store):
    with pytest.raises(InvalidNameError):
        store.tag("digits@1", "best")
