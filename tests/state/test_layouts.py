"""Which optimizers' states are put back as torch's are, and which by the optimizers themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.state.layouts import has_own_state, has_torchs_layout, is_kept_as_torchs


def stepped(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


class Around(torch.optim.Optimizer):
    """Steps another optimizer, which keeps the state."""

    def __init__(self, inner):
        self.inner = inner
        super().__init__(inner.param_groups, {})

    def step(self):
        self.inner.step()

    def state_dict(self):
        return self.inner.state_dict()


def test_torchs_own_optimizers_are_kept_as_torchs_whether_they_have_stepped_or_not():
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters())
    assert is_kept_as_torchs(optimizer, optimizer.state_dict())
    stepped(optimizer)
    assert is_kept_as_torchs(optimizer, optimizer.state_dict())


def test_one_whose_state_is_anothers_is_not():
    optimizer = stepped(Around(torch.optim.Adam(nn.Linear(2, 2).parameters())))
    assert has_torchs_layout(optimizer.state_dict())
    assert not is_kept_as_torchs(optimizer, optimizer.state_dict())


def test_one_that_has_no_state_at_all_is_not():
    class Bare(Around):
        def __init__(self, inner):
            self.inner = inner
            self.param_groups = inner.param_groups

    optimizer = Bare(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))
    assert not has_own_state(optimizer)
    assert not is_kept_as_torchs(optimizer, optimizer.state_dict())


@pytest.mark.parametrize(
    "state",
    [
        None,
        {"base": {}},
        {"state": {}, "param_groups": {}},
        {"state": [], "param_groups": []},
        {"state": {}, "param_groups": [{"lr": 1}]},
        {"state": {}, "param_groups": [{"params": [1]}]},
        {"state": {}, "param_groups": [{"params": [0], "param_names": ["a", "b"]}]},
        {"state": {}, "param_groups": [{"params": [0], "param_names": [3]}]},
    ],
)
def test_other_layouts_are_not_torchs(state):
    assert not has_torchs_layout(state)
