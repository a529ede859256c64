"""Whatever a module does to itself while it is run, it is afterwards as it was."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from ckptstore.programs.undisturbed import Kept, strided_in


def test_attributes_containers_modes_and_tables_are_put_back():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module[1].eval()
    module.things, module.seen, module.known = [1], {"a": 1}, {1}
    weight = module[0].weight
    with contextlib.suppress(KeyError), Kept(module).as_in_inference():
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
    with Kept(module).as_in_inference():
        assert not module.training
    assert module.training


def test_however_deep_it_is_what_was_written_is_put_back():
    module = nn.Module()
    module.a = {"list": [SimpleNamespace(n=1, t=torch.zeros(3))], "ordered": OrderedDict(x=1, y=2)}
    module.b = (deque([1], maxlen=2), defaultdict(list, k=[1]), bytearray(b"ab"), np.zeros(2))
    module.g, module.r = torch.Generator(), random.Random(1)  # noqa: S311 - no secret is drawn
    module.view = torch.zeros(4)[1:].expand(2, 3)
    torch_state, state = module.g.get_state(), module.r.getstate()
    kept = Kept(module)
    with kept.as_in_inference():
        inner = module.a["list"][0]
        inner.n = 2
        inner.t.data.add_(1)
        inner.new = 1
        module.a["ordered"].move_to_end("x")
        module.b[0].append(3)
        module.b[1]["new"].append(1)
        module.b[2].extend(b"c")
        module.b[3][:] = 7
        module.view[0].add_(1)
        torch.rand(1, generator=module.g)
        module.r.random()
    assert (vars(inner).keys(), inner.n) == ({"n", "t"}, 1)
    assert torch.equal(inner.t, torch.zeros(3))
    assert list(module.a["ordered"]) == ["x", "y"]
    assert (list(module.b[0]), dict(module.b[1]), module.b[2]) == ([1], {"k": [1]}, b"ab")
    assert not module.b[3].any()
    assert not module.view.any()
    assert torch.equal(module.g.get_state(), torch_state)
    assert module.r.getstate() == state


def test_tensors_that_became_others_are_put_back():
    module = nn.Linear(2, 2)
    module.h = torch.ones(3)
    there, h = module.weight.data_ptr(), module.h
    with Kept(module).as_in_inference():
        module.weight.data = torch.zeros(5)
        module.weight.requires_grad_(False)  # noqa: FBT003 - as torch has it
        module.weight.grad = torch.zeros(5)
        module.h.resize_(0)
    assert module.weight.data_ptr() == there
    assert module.weight.requires_grad
    assert module.weight.grad is None
    assert torch.equal(h, torch.ones(3))


def test_weights_are_put_back_and_named_when_asked():
    module = nn.Sequential(nn.Linear(2, 2))
    then = module[0].weight.detach().clone()
    kept = Kept(module)
    with kept.as_in_inference():
        module[0].weight.data.add_(1)
    assert not torch.equal(module[0].weight, then)
    assert kept.put_weights_back() == ["0.weight"]
    assert torch.equal(module[0].weight, then)
    assert kept.put_weights_back() == []


def test_tensors_are_known_by_those_that_they_are_made_of():
    dense = torch.eye(4)
    assert list(strided_in(dense)) == [dense]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that some layouts are new
        layouts = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()]
    assert [len(list(strided_in(each))) for each in layouts] == [2, 3, 3]
