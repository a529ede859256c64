"""A module put back: its tensors, each in its memory, and its attributes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.loading.undo import Before


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.words = "old"


def bits(module):
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: (tensor.tolist(), tensor.data_ptr(), id(tensor)) for name, tensor in tensors}


def overwrite(module):
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.add_(1)


def swap_memory(module):
    module.fc.weight.data = torch.full((2, 2), 7.0)


def set_others(module):
    module.fc.weight = nn.Parameter(torch.zeros(2, 2))
    module.scale = torch.zeros(3)
    module.fc = nn.Linear(5, 5)
    module.words = "new"
    module.more = nn.Linear(1, 1)
    module.register_buffer("seen", torch.ones(1), persistent=True)
    module.late = 3


@pytest.mark.parametrize("change", [overwrite, swap_memory, set_others])
def test_whatever_was_changed_is_as_it_was(change):
    module = Net()
    values, names, keys = bits(module), set(vars(module)), list(module.state_dict())
    before = Before(module)

    change(module)
    assert bits(module) != values
    before.put_back()

    assert bits(module) == values
    assert set(vars(module)) == names
    assert list(module.state_dict()) == keys
    assert module.words == "old"


def test_a_lazy_parameter_that_got_its_shape_is_lazy_again():
    module = nn.LazyLinear(3)
    before = Before(module)

    module.weight.materialize((3, 5))
    before.put_back()

    assert nn.parameter.is_lazy(module.weight)
    module(torch.ones(1, 2))
    assert module.weight.shape == (3, 2)


def test_what_cannot_be_written_is_left():
    module = nn.Module()
    module.register_buffer("wide", torch.ones(1).expand(3))
    module.register_buffer("form", torch.empty(2, device="meta"))
    with torch.inference_mode():
        module.register_buffer("fixed", torch.ones(2))

    Before(module).put_back()

    assert module.wide.tolist() == [1, 1, 1]
    assert module.fixed.tolist() == [1, 1]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_a_scripted_module_gets_its_values_back():
    module = torch.jit.script(nn.Linear(2, 2))
    values = bits(module)
    before = Before(module)

    overwrite(module)
    before.put_back()

    assert bits(module) == values
