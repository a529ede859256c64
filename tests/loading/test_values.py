"""A training whose optimizer has parameters of no module goes on with their values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import MismatchError, StateWarning
from ckptstore.loading.values import plan_values


class Weights(nn.Module):
    """The learned weights of a loss, as a module."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight


class Script:
    """A training with a learned weight of the loss, which is the optimizer's alone."""

    def __init__(self, seed, size=3):
        torch.manual_seed(seed)
        self.net = nn.Linear(4, 3)
        self.weight = nn.Parameter(torch.randn(size))
        groups = [{"params": self.net.parameters()}, {"params": [self.weight]}]
        self.optimizer = torch.optim.Adam(groups, lr=0.1)

    def step(self):
        self.optimizer.zero_grad()
        loss = self.net(torch.ones(5, 4)).square().mean(0)
        (loss * torch.exp(-self.weight) + self.weight).sum().backward()
        self.optimizer.step()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def saved(store):
    script = Script(0)
    script.step()
    store.save(script.net, script.optimizer, model_config={})
    return script


def test_it_goes_on_as_if_nothing_had_happened(store, saved):
    again = Script(1)
    memory, weight = again.weight.data_ptr(), again.weight
    store.resume(again.net, again.optimizer)
    assert (again.weight.data_ptr(), again.weight) == (memory, weight)
    for script in (saved, again):
        script.step()
        script.step()
    assert torch.equal(again.weight, saved.weight)
    assert torch.equal(again.net.weight, saved.net.weight)


def test_a_module_that_is_restored_has_the_say_about_its_own(store, saved):
    again = Script(1)
    weights = Weights(saved.weight)
    store.save(saved.net, saved.optimizer, weights=weights, model_config={})
    other = Weights(again.weight)
    store.resume(again.net, again.optimizer, weights=other)
    assert torch.equal(again.weight, saved.weight)


def test_a_module_that_was_saved_without_is_found_in_the_optimizer(store, saved):
    again = Script(1)
    with pytest.warns(StateWarning, match="'weights', which it does not have"):
        store.resume(again.net, again.optimizer, weights=Weights(again.weight), strict=False)
    assert torch.equal(again.weight, saved.weight)


@pytest.mark.usefixtures("saved")
def test_another_shape_is_refused_before_anything_is_touched(store):
    again = Script(1, size=2)
    before = again.net.weight.clone()
    with pytest.raises(MismatchError, match="parameter 2, which no module has, is float32, shape"):
        store.resume(again.net, again.optimizer)
    assert torch.equal(again.net.weight, before)


def test_a_shape_without_moments_is_compared_too_and_left_if_that_is_asked_for(store):
    weight, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(1, 3))
    net, again = nn.Linear(2, 2), nn.Linear(2, 2)
    store.save(net, torch.optim.SGD([*net.parameters(), weight], lr=0.1), model_config={})
    optimizer = torch.optim.SGD([*again.parameters(), other], lr=0.1)
    with pytest.raises(MismatchError, match="parameter 2, which no module has"):
        store.resume(again, optimizer)
    with pytest.warns(StateWarning, match="of another shape: parameter 2"):
        resumed = store.resume(again, optimizer, strict=False)
    assert resumed.audit.state_left["optimizer"].mismatched == ("parameter 2",)
    assert torch.equal(other, torch.ones(1, 3))


def test_another_dtype_is_converted_on_request(store, saved):
    again = Script(1)
    again.weight.data = again.weight.data.double()
    with pytest.raises(MismatchError, match="is float64"):
        store.resume(again.net, again.optimizer)
    store.resume(again.net, again.optimizer, dtype="own")
    assert torch.equal(again.weight, saved.weight.double())


@pytest.mark.parametrize("lie", [[1], {"2": torch.ones(3)}, {2: 1.0}, {True: torch.ones(3)}])
def test_values_that_are_none_are_refused(lie):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1)
    found = plan_values(optimizer, lie, [[0]], (), strict=True, converts=False)
    assert found.problems == ["the values of its parameters are no tensors by number"]


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (nn.Parameter(torch.ones(1).expand(3)), "share memory"),
        (nn.parameter.UninitializedParameter(), "is lazy here"),
    ],
)
def test_what_takes_no_value_is_named(parameter, words):
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    found = plan_values(optimizer, {0: torch.ones(3)}, [[0]], (), strict=True, converts=True)
    assert words in found.problems[0]
