"""What is saved of a training when time is short."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.saving.leaner import Rung, first_that_fits, ladder, state_bytes
from tests.loading.trainings import Training


def adam(model):
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    return optimizer


def test_the_bytes_of_a_state_are_those_of_its_tensors():
    model = nn.Linear(4, 3)  # 15 float32

    assert state_bytes(model) == 60
    assert (
        state_bytes({"a": [torch.zeros(2), {"b": torch.zeros(3, dtype=torch.int8)}], "c": 7}) == 11
    )
    assert state_bytes(adam(model)) == 2 * 60 + 2 * 4  # and a step count for each parameter
    assert state_bytes(torch.Generator()) == state_bytes(None) == 0


def test_optimizers_are_what_is_left_out():
    one, two = nn.Linear(4, 3), nn.Linear(4, 1)
    parts = {"model": one, "optimizer": adam(one), "critic": two, "critic_optimizer": adam(two)}

    whole, narrow, lean = ladder(parts)

    assert (whole.left_out, whole.narrowed) == ((), ())
    assert whole.size_bytes == sum(map(state_bytes, parts.values())) == 80 + 2 * 80 + 4 * 4
    assert (narrow.left_out, narrow.narrowed) == ((), ("optimizer", "critic_optimizer"))
    assert narrow.size_bytes == 80 + 80 + 4 * 4  # counts of steps stay as they are
    assert (lean.left_out, lean.narrowed) == (("optimizer", "critic_optimizer"), ())
    assert lean.size_bytes == 60 + 20


@pytest.mark.parametrize(
    "parts",
    [
        {"model": nn.Linear(4, 3)},
        {"model": nn.Linear(4, 3), "optimizer": Training("sgd").optimizer},  # has no state yet
    ],
)
def test_where_there_is_nothing_to_gain_there_is_one_way(parts):
    assert [rung.said for rung in ladder(parts)] == ["everything"]


def test_an_optimizer_alone_is_never_left_out():
    whole, narrow = ladder({"optimizer": adam(nn.Linear(4, 3))})

    assert narrow.narrowed == ("optimizer",)
    assert whole.left_out == narrow.left_out == ()


def test_what_is_narrow_already_gets_no_narrower():
    model = nn.Linear(4, 3, dtype=torch.bfloat16)
    model(torch.randn(2, 4, dtype=torch.bfloat16)).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()

    assert [rung.narrowed for rung in ladder({"model": model, "optimizer": optimizer})] == [(), ()]


@pytest.mark.parametrize(("left_s", "place"), [(9, 0), (8, 0), (7, 1), (4, 1), (3, 2), (-5, 2)])
def test_the_fullest_that_fits_is_taken_else_the_least(left_s, place):
    rungs = [Rung("all", 8), Rung("some", 4), Rung("least", 2)]

    assert first_that_fits(rungs, left_s, float) == place
