from __future__ import annotations

import torch

from ckptstore.importing.optimizer_states import numbered
from tests.importing.files import Net, same, trained


def test_torchs_own_state_stays_as_it_is():
    state = trained()[1].state_dict()
    found, groups = numbered(state, ())
    assert found is state
    assert groups == ((None,) * 6,)


def test_names_given_to_the_optimizer_are_known():
    model = Net()
    state = torch.optim.SGD(model.named_parameters()).state_dict()
    _, groups = numbered(state, {"first.weight"})
    assert groups[0][:2] == ("model/first.weight", "first.bias")


def test_numbers_that_were_spelled_as_text_are_numbers_again():
    state = trained()[1].state_dict()
    text = {**state, "state": {str(key): value for key, value in state["state"].items()}}
    assert same(numbered(text, ())[0], state)


def test_parameters_that_are_named_are_numbered():
    model, optimizer, _ = trained()
    state, names = optimizer.state_dict(), [name for name, _ in model.named_parameters()]
    named = {
        "state": {names[key]: value for key, value in reversed(state["state"].items())},
        "param_groups": [{**state["param_groups"][0], "params": names}],
    }
    found, groups = numbered(named, model.state_dict().keys())
    assert same(found["state"], state["state"])
    assert found["param_groups"][0]["params"] == list(range(len(names)))
    assert groups == (tuple(f"model/{name}" for name in names),)


def test_what_is_not_torchs_is_let_be():
    for state in (
        {"x": 1},
        {"state": {}, "param_groups": [1]},
        {"state": {9: {}}, "param_groups": [{"params": [1]}]},
        {"state": {}, "param_groups": [{"params": [1, 1]}]},
        {"state": {}, "param_groups": [{"params": [None]}]},
    ):
        assert numbered(state, ()) == (state, None)
