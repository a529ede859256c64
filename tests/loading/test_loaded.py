"""What of a version is read for live objects, and which of it may be mapped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import VersionNotFoundError
from ckptstore.loading.loaded import copied_in, fetch_states
from ckptstore.manifest import open_manifest
from ckptstore.storage.local import LocalStorage


def stepped(optimizer):
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_what_has_memory_of_its_own_is_copied_into():
    net = nn.Linear(2, 2)
    new, old = (torch.optim.Adam(net.parameters()) for _ in range(2))
    assert copied_in({"net": net, "new": new, "old": stepped(old)}) == ["net", "old"]


def test_an_optimizer_that_is_none_itself_has_none():
    class Beside(torch.optim.Optimizer):
        def __init__(self, params):
            self.param_groups = [{"params": list(params)}]

    assert copied_in({"it": Beside(nn.Linear(2, 2).parameters())}) == []


def test_parts_that_a_version_lacks_are_an_error_or_told(tmp_path):
    net = nn.Linear(2, 2)
    store = Store(tmp_path)
    store.save(net, torch.optim.Adam(net.parameters()), run="r", rng=False, model_config={})
    opened = open_manifest(LocalStorage(tmp_path), "r", 1)
    with pytest.raises(VersionNotFoundError, match="no part 'ema'; it has 'model', 'optimizer'"):
        fetch_states(opened, ["model", "ema"])
    loaded = fetch_states(opened, ["model", "optimizer", "ema"], if_saved=["rng"], strict=False)
    assert loaded.not_saved == ("ema", "rng")
    assert [*loaded.states] == ["model", "optimizer"]
    assert [*loaded.parameters] == ["optimizer"]
