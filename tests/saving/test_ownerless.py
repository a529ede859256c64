"""Parameters that an optimizer trains and no other part has are kept with it, and no others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from ckptstore import Store
from ckptstore.saving.ownerless import SMALL_BYTES, is_share, ownerless
from ckptstore.state.optimizers import VALUES


class Owner:
    """Has a parameter in a state dict, and is no module."""

    def __init__(self, parameter):
        self.parameter = parameter

    def state_dict(self):
        return {"it": self.parameter}

    def load_state_dict(self, state):
        self.parameter.data.copy_(state["it"])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def weight():
    return nn.Parameter(torch.tensor([1.0, 2.0]))


def kept(store, *parameters, **parts):
    """The numbers of the parameters that a save with these parts keeps with the optimizer."""
    optimizer = torch.optim.Adam(parameters)
    checkpoint = store.save(optimizer=optimizer, model_config={}, **parts)
    return [*checkpoint.state("optimizer").get(VALUES, {})]


def test_a_parameter_of_no_part_is_kept_by_its_number(store, weight):
    net = nn.Linear(2, 2)
    assert kept(store, net.weight, weight, net.bias, model=net) == [1]
    state = store.latest().state("optimizer")
    assert torch.equal(state[VALUES][1], weight)
    assert state[VALUES][1].requires_grad


def test_what_any_other_part_has_is_not(store, weight):
    net = nn.Linear(2, 2)
    both = [*net.parameters(), weight]
    assert kept(store, *both, model=net.state_dict(), owner=Owner(weight)) == []
    assert kept(store, *net.parameters(), model=nn.DataParallel(net)) == []
    averaged = swa_utils.AveragedModel(net)
    assert kept(store, *net.parameters(), model=net, ema=averaged) == []


def test_where_no_weights_are_saved_none_are_kept(store, weight):
    assert kept(store, weight) == []


def test_a_copy_in_a_state_dict_counts_as_the_parameter(store):
    net = nn.Linear(200, 200)
    copies = copy.deepcopy(net.state_dict())
    assert net.weight.nbytes > SMALL_BYTES
    assert kept(store, net.weight, model=copies) == []
    copies["weight"][0, 0] += 1
    assert kept(store, net.weight, model=copies) == [0]


def test_copies_are_compared_bit_for_bit_in_any_dtype(store):
    for dtype in (torch.float8_e4m3fn, torch.float32):
        parameter = nn.Parameter(torch.randn(400, 400).to(dtype), requires_grad=False)
        parameter.data[0, 0] = float("nan")
        assert kept(store, parameter, model={"it": parameter.detach().clone()}) == []


def test_one_number_all_over_is_no_proof_of_a_copy(store):
    ones = nn.Parameter(torch.ones(200, 200))
    assert kept(store, ones, model={"other": torch.ones(200, 200)}) == [0]


def test_a_share_of_a_whole_is_left_to_the_state_dict_that_has_the_whole(weight):
    weight._is_flat_param = True  # as FSDP marks its own
    optimizer = torch.optim.SGD([weight], lr=0.1)
    whole = torch.ones(4)
    assert is_share(weight)
    assert ownerless(optimizer, (), [whole], [whole]) == {}
    assert [*ownerless(optimizer, (), [whole], [])] == [0]


def test_a_lazy_one_has_no_value_yet():
    lazy = nn.LazyLinear(2)
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*net.parameters(), lazy.bias], lr=0.1)
    assert ownerless(optimizer, {id(each) for each in net.parameters()}, [], []) == {}


def test_only_the_optimizers_own_state_is_narrowed(store, weight):
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*net.parameters(), weight])
    for parameter in [*net.parameters(), weight]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint = store.save(net, optimizer, dtype={"optimizer": torch.bfloat16}, model_config={})
    state = checkpoint.state("optimizer")
    assert state[VALUES][2].dtype == torch.float32
    assert state["state"][2]["exp_avg"].dtype == torch.bfloat16
