"""Names of parts that resemble an option's: a second optimizer is no slip of the keyboard."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.errors import ArgumentError
from ckptstore.state.keywords import sort


@pytest.mark.parametrize(
    "name", ["optimizer2", "model_ema", "g_optimizer", "ema_model", "a_model_b"]
)
def test_an_option_with_something_beside_it_names_a_part(name):
    model = nn.Linear(1, 1)

    assert sort({name: model}) == ({name: model}, {})


@pytest.mark.parametrize("name", ["optimiser", "optimizr", "optimzer", "modle"])
def test_a_slip_of_an_option_is_no_part(name):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters())

    with pytest.raises(ArgumentError, match="did you mean"):
        sort({name: optimizer})


def test_a_number_under_a_name_like_an_option_is_no_metric():
    with pytest.raises(ArgumentError, match="did you mean 'epoch'"):
        sort({"epochs": 3})


def test_a_short_name_with_two_letters_the_other_way_round_is_no_slip():
    assert sort({"nrg": 0.5})[1] == {"nrg": 0.5}  # as rng is


def test_a_part_is_no_slip_of_an_option_that_takes_no_part():
    sampler = torch.optim.SGD([torch.zeros(1)])
    assert sort({"sampler": sampler})[0] == {"sampler": sampler}
