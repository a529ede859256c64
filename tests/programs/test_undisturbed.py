"""Whatever a module does to itself while it is run, it is afterwards as it was."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from ckptstore.programs.undisturbed import Unwritten, undisturbed, writes_to


def test_attributes_containers_modes_and_tables_are_put_back():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module[1].eval()
    module.things, module.seen, module.known = [1], {"a": 1}, {1}
    weight = module[0].weight
    with contextlib.suppress(KeyError), undisturbed(module):
        assert not any(each.training for each in module.modules())
        module.things.append(2)
        module.seen.clear()
        module.known.add(2)
        module.new = 3
        module[0].weight = nn.Parameter(torch.zeros(2, 2))
        module.add_module("more", nn.ReLU())
        raise KeyError
    assert (module.things, module.seen, module.known) == ([1], {"a": 1}, {1})
    assert not hasattr(module, "new")
    assert module[0].weight is weight
    assert len(module) == 2
    assert (module.training, module[0].training, module[1].training) == (True, True, False)


def test_classes_that_do_more_in_eval_are_not_asked_to():
    class Merging(nn.Module):
        def train(self, *mode):
            raise AssertionError(mode)

    module = Merging()
    with undisturbed(module):
        assert not module.training
    assert module.training


def test_what_was_written_is_put_back_and_nothing_else_is_touched():
    written, other = torch.zeros(3), torch.zeros(3)
    kept = Unwritten([written, other])
    for _ in range(2):
        written.add_(1)
        kept.put_back()
        assert torch.equal(written, torch.zeros(3))
    assert writes_to([other]) == [0]
