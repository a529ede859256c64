"""Metrics that come later are numbers, by names that are free."""

from __future__ import annotations

import math

import pytest
import torch

from ckptstore.errors import ArgumentError
from ckptstore.saving.late_metrics import late_metrics


def test_numbers_of_all_kinds_are_encoded_as_save_does():
    values = {"acc": torch.tensor(1), "f1": math.nan, "none": None}

    assert late_metrics({"epoch": 2}, values) == {"epoch": 2, "acc": 1, "f1": {"$float": "nan"}}


@pytest.mark.parametrize("value", [True, "0.5", [1], torch.ones(2), 10**400])
def test_what_is_no_number_is_refused_by_name(value):
    with pytest.raises(ArgumentError, match="acc"):
        late_metrics(None, {"acc": value})
    with pytest.raises(ArgumentError, match="acc"):
        late_metrics({"acc": value}, {})


@pytest.mark.parametrize("name", ["epoch", "step", "run", "note"])
def test_the_name_of_an_option_is_refused_as_a_keyword(name):
    with pytest.raises(ArgumentError, match=rf"no option '{name}'.*metrics={{'{name}'"):
        late_metrics(None, {name: 1})


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(ArgumentError, match="acc stand both"):
        late_metrics({"acc": 1}, {"acc": 1})


@pytest.mark.parametrize("metrics", [None, {}, {"acc": None}])
def test_nothing_is_refused(metrics):
    with pytest.raises(ArgumentError, match="was given none"):
        late_metrics(metrics, {})
