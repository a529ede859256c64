"""What is reached from a module, and what is told apart of it."""

from __future__ import annotations

import logging
import threading

import pytest
import torch
from torch import nn

from ckptstore.programs import reachable
from ckptstore.programs.reachable import differences, told


class Owner:
    """Something of the user's own."""

    def __init__(self):
        self.n = 0
        self.lock = threading.Lock()
        self.log = logging.getLogger(__name__)
        self.tensors = (torch.zeros(2),)


@pytest.fixture
def module():
    made = nn.Sequential(nn.Linear(2, 2))
    made.owner = Owner()
    made.owner.module = made
    return made


def paths(module):
    return [path for path, _ in reachable.reachable(module)]


def test_things_are_reached_once_by_the_name_that_code_has_for_them(module):
    found = paths(module)
    assert {"", "0", "0.weight", "0.bias", "owner", "owner.tensors[0]"} <= set(found)
    assert len(found) == len(set(found))


def test_what_is_of_other_threads_is_not_looked_into(module):
    assert not [path for path in paths(module) if "lock" in path or "log" in path]


def test_a_collection_without_end_has_one(module, monkeypatch):
    monkeypatch.setattr(reachable, "MOST", 10)
    module.data = [[place] for place in range(1000)]
    assert len(paths(module)) == 10


def test_what_changed_is_named_once(module):
    before = told(module)
    assert differences(before, told(module)) == []
    module.owner.n = 1
    module.owner.tensors[0].add_(1)
    module.eval()
    module.new = {"a": [1]}
    assert differences(before, told(module)) == ["owner.n", "owner.tensors[0]", "new"]


def test_values_that_are_no_numbers_are_themselves(module):
    module.h = torch.tensor([float("nan"), 1.0])
    assert differences(told(module), told(module)) == []
