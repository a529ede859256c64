from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.errors import ArgumentError
from ckptstore.importing.state_dicts import (
    is_module_state,
    is_optimizer_state,
    renamed,
    tied,
    without_wrappers,
)
from tests.importing.files import Net, trained


def test_forms_are_told_apart():
    model, optimizer, scheduler = trained()
    assert is_module_state(model.state_dict())
    assert is_module_state({"w": torch.ones(1), "norm._extra_state": {"a": 1}})
    assert is_optimizer_state(optimizer.state_dict())
    for other in (optimizer.state_dict(), scheduler.state_dict(), {}, [], {1: torch.ones(1)}):
        assert not is_module_state(other)
    assert not is_optimizer_state(model.state_dict())
    assert not is_module_state({"w": torch.ones(1), "epoch": 1})


def test_prefixes_of_wrappers_are_taken_off_with_their_metadata():
    model = Net()
    state, taken = without_wrappers(nn.DataParallel(model).state_dict())
    assert taken == "module."
    assert list(state) == list(model.state_dict())
    assert state._metadata == model.state_dict()._metadata


def test_several_wrappers_are_taken_off():
    state, taken = without_wrappers({"_orig_mod.module.a": 1, "_orig_mod.module.b": 2})
    assert (dict(state), taken) == ({"a": 1, "b": 2}, "_orig_mod.module.")


@pytest.mark.parametrize("state", [{}, {1: 2}, {"module.a": 1, 7: 2}])
def test_where_there_are_no_keys_or_no_names_there_is_nothing_to_take_off(state):
    assert without_wrappers(state) == (state, "")


def test_what_has_no_names_is_not_renamed():
    with pytest.raises(ArgumentError, match="not all of the model's keys are names"):
        renamed({7: 1}, {"": "x."})


def test_a_prefix_that_some_keys_lack_stays():
    state = {"module.a": 1, "n_averaged": 2}
    assert without_wrappers(state) == (state, "")


@pytest.mark.parametrize(
    ("rename", "keys"),
    [
        ({"model.": ""}, ["a", "b.c", "other"]),
        ({"": "net."}, ["net.model.a", "net.model.b.c", "net.other"]),
        ({"model.": "x.", "model.b.": "y."}, ["x.a", "y.c", "other"]),
    ],
)
def test_beginnings_are_renamed(rename, keys):
    assert list(renamed({"model.a": 1, "model.b.c": 2, "other": 3}, rename)) == keys


def test_metadata_is_renamed_along():
    inner = nn.BatchNorm1d(2)
    state = nn.ModuleDict({"model": inner}).state_dict()
    found = renamed(state, {"model.": ""})
    assert found._metadata == inner.state_dict()._metadata
    back = renamed(found, {"": "model."})
    assert list(back) == list(state)
    assert back._metadata["model"] == {"version": 2}


def test_renaming_that_makes_no_sense_is_refused():
    with pytest.raises(ArgumentError, match="no key of the model begins so"):
        renamed({"a": 1}, {"model.": ""})
    with pytest.raises(ArgumentError, match="would be one"):
        renamed({"x.a": 1, "a": 2}, {"x.": ""})


def test_a_tie_is_the_same_tensor():
    weight = torch.ones(2)
    state = tied({"embed.weight": weight}, {"head.weight": "embed.weight"})
    assert state["head.weight"] is state["embed.weight"] is weight
    for ties in ({"head.weight": "nowhere"}, {"embed.weight": "embed.weight"}):
        with pytest.raises(ArgumentError):
            tied({"embed.weight": weight}, ties)
