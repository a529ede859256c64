"""What has state behind a callable, and what has none."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePath

import pytest
import torch
from torch import nn

from ckptstore.state.callables import has_slots, holders


class Counting:
    def __init__(self):
        self.count = 0

    def __call__(self, *_):
        return self.method()

    def method(self):
        self.count += 1
        return self.count

    @classmethod
    def of_the_class(cls):
        return cls()


class Slotted:
    __slots__ = ("__count",)

    def __init__(self, count=None):
        if count is not None:
            self.__count = count

    def method(self):
        return 1


@dataclass(frozen=True)
class Settings:
    rate: float = 0.9


class Kind(enum.Enum):
    ONE = 1


COUNTING, SLOTTED = Counting(), Slotted(1)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (COUNTING, ("", COUNTING)),
        (COUNTING.method, ("behind the bound method method()", COUNTING)),
        (SLOTTED.method, ("behind the bound method method()", SLOTTED)),
        (partial(COUNTING, 1), ("in a functools.partial", COUNTING)),
        (partial(pow, COUNTING), ("in a functools.partial", COUNTING)),
        (partial(pow, exp=COUNTING), ("in a functools.partial", COUNTING)),
        (partial(COUNTING.method), ("behind the bound method method()", COUNTING)),
        (lru_cache(COUNTING.method), ("behind the bound method method()", COUNTING)),
        (lru_cache(COUNTING), ("behind a cached function", COUNTING)),
    ],
)
def test_an_object_with_state_is_found(function, found):
    assert list(holders(function)) == [found]


@pytest.mark.parametrize(
    "function",
    [
        None,
        abs,
        len,
        lambda: COUNTING,
        Counting,
        Counting.of_the_class,
        (0.9).__rpow__,
        "text".join,
        object(),
        Slotted().method,
        nn.Linear(1, 1).forward,
        torch.optim.SGD([torch.ones(1)], lr=0.1).step,
        lru_cache(abs),
        partial(pow, 2, torch.ones(1)),
        partial(pow, [1], Settings(), Kind.ONE, PurePath("x"), torch, float),
    ],
    ids=lambda function: type(function).__name__,
)
def test_what_has_no_state_that_changes_is_none(function):
    assert list(holders(function)) == []


def test_only_slots_with_a_value_count():
    assert has_slots(Slotted(1))
    assert not has_slots(Slotted())
    assert not has_slots(Counting())
