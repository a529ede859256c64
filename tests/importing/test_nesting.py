from __future__ import annotations

import pytest
import torch

from ckptstore.importing.contents import recognise
from ckptstore.importing.nesting import flat, states_in
from ckptstore.importing.plain import Held
from tests.importing.files import full, same, trained

MODEL, OPTIMIZER, _ = trained()
STATE = MODEL.state_dict()


def recognised(value, **how):
    found = recognise(value, "torch", "it", **how)
    return list(found.parts), found.epoch, list(found.extra), found.notes


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model_state", "weights"])
def test_a_state_dict_alone_in_a_dict_is_that_state_dict(key):
    value = {"model": {key: STATE}, "optimizer": {"state_dict": OPTIMIZER.state_dict()}, "epoch": 3}
    assert recognised(value) == (["model", "optimizer"], 3, [], [])


def test_what_lies_one_dict_too_deep_is_taken_out():
    inner = full()
    parts, epoch, extra, notes = recognised({"checkpoint": inner, "seed": 5})
    assert (parts, epoch, extra) == (["model", "optimizer", "scheduler"], 3, ["seed"])
    assert notes == ["what 'checkpoint' holds was taken as if it lay at the top"]
    assert recognised({"model": {"state_dict": STATE, "epoch": 7}})[:2] == (["model"], 7)


def test_nothing_is_taken_out_where_names_would_meet():
    value = {"checkpoint": full(), "epoch": 4}
    assert recognised(value)[:3] == ([], 4, ["checkpoint"])
    assert states_in(value) == ["checkpoint/model_state_dict"]


def test_nor_where_there_is_a_model_beside_it():
    assert recognised({"model": STATE, "best": {"model": STATE, "n": 1}})[2] == ["best"]


def test_a_bare_state_dict_with_something_added_is_the_model():
    value = {**STATE, "global_step": 5, "rng": torch.zeros(3)}
    found = recognise(value, "torch", "it")
    assert found.step == 5
    assert same(dict(found.parts["model"].state), {**STATE, "rng": torch.zeros(3)})
    assert "tensors beside other values were taken" in found.notes[0]


def test_tensors_by_other_names_are_no_model():
    assert recognised({"rng": torch.zeros(3), "epoch": 3})[:3] == ([], 3, ["rng"])


def test_objects_are_found_where_they_lie_now():
    held = {"checkpoint/net": Held("module", "a.Net"), "checkpoint/net/x": Held("object", "b")}
    found = flat({"checkpoint": {"net": {"a": 1}, "n": 2}}, held, bool)
    assert found.rest == {"net": {"a": 1}, "n": 2}
    assert found.held == {"net": Held("module", "a.Net"), "net/x": Held("object", "b")}


def test_paths_of_state_dicts_are_found_at_every_depth():
    assert states_in({"a": {"b": {"c": STATE}}, "d": STATE, "e": [STATE]}) == ["a/b/c", "d"]
