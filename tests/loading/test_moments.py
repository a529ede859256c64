"""Optimizers that are resumed with other parameters, or with some of their modules' keys."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.audit import StateLeft
from ckptstore.errors import KeysWarning, MismatchError, StateWarning


def net(classes=3, **more):
    return nn.ModuleDict({"body": nn.Linear(2, 4), "head": nn.Linear(4, classes), **more})


def stepped(optimizer):
    """Give each parameter moments of its own."""
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            parameter.grad = torch.full_like(parameter, 1.0 + 10 * number + place)
    optimizer.step()
    return optimizer


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.1)


def moment(optimizer, parameter):
    return optimizer.state[parameter]["exp_avg"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def saved(store):
    model = net()
    optimizer = stepped(adam(model.parameters()))
    store.save(model, optimizer, model_config={})
    return model, optimizer


class Criterion(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


def test_a_parameter_without_a_name_does_not_make_the_others_go_by_position(store):
    model, criterion = nn.ModuleDict({"q": nn.Linear(2, 2), "k": nn.Linear(2, 2)}), Criterion()
    optimizer = stepped(adam([*model.parameters(), *criterion.parameters()]))
    store.save(model, optimizer)
    other, again = nn.ModuleDict({"k": nn.Linear(2, 2), "q": nn.Linear(2, 2)}), Criterion()
    resumed = adam([*other.parameters(), *again.parameters()])
    store.resume(other, resumed)
    for name, parameter in model.named_parameters():
        assert torch.equal(moment(optimizer, parameter), moment(resumed, other.get_parameter(name)))
    assert torch.equal(moment(optimizer, criterion.weight), moment(resumed, again.weight))


def test_what_contradicts_the_names_is_refused(store):
    model, criterion = net(), Criterion()
    store.save(model, stepped(adam([*model.parameters(), *criterion.parameters()])))
    other = net(new=Criterion())
    with pytest.raises(MismatchError) as caught:
        store.resume(other, adam(other.parameters()))
    assert caught.value.problems[1:] == (
        "optimizer: no state was saved for 'model/new.weight'",
        "optimizer: state was saved for parameter 4, which has no name, which it lacks",
    )


# ------------------------------------------------------------ keys that were not chosen


def test_state_of_keys_that_were_not_chosen_may_be_left(store, saved):
    model = net()
    optimizer = adam(model["body"].parameters())
    audit = store.resume(model, optimizer, only="body.*").audit
    assert torch.equal(
        moment(optimizer, model["body"].weight), moment(saved[1], saved[0]["body"].weight)
    )
    assert audit.state_left == {
        "optimizer": StateLeft(not_chosen=("model/head.weight", "model/head.bias"))
    }
    assert "optimizer, state not put back: keys that were not chosen: model/head.weight" in str(
        audit
    )


@pytest.mark.usefixtures("saved")
def test_a_fresh_head_has_none_of_the_old_ones_moments(store):
    model = net()
    optimizer = adam(model.parameters())
    audit = store.resume(model, optimizer, skip="head").audit
    assert set(optimizer.state) == set(model["body"].parameters())
    assert audit.state_left["optimizer"].not_chosen == ("model/head.weight", "model/head.bias")
    stepped(optimizer)


@pytest.mark.usefixtures("saved")
def test_a_head_that_is_not_chosen_keeps_its_moments(store):
    model = net()
    optimizer = adam(model.parameters())
    stepped(optimizer)
    stepped(optimizer)
    before = optimizer.state[model["head"].weight]
    store.resume(model, optimizer, skip="head")
    assert optimizer.state[model["head"].weight] is before
    assert before["step"] == 2
    assert optimizer.state[model["body"].weight]["step"] == 1


def test_a_tied_parameter_is_wanted_if_one_of_its_names_is(store):
    def tied():
        model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        model["b"].weight = model["a"].weight
        return model

    model = tied()
    optimizer = stepped(adam(model.parameters()))
    store.save(model, optimizer)
    other = tied()
    again = adam(other.parameters())
    store.resume(other, again, only="b")
    assert torch.equal(moment(again, other["a"].weight), moment(optimizer, model["a"].weight))
    assert other["a"].bias not in again.state


# ------------------------------------------------------------ what does not fit


@pytest.mark.usefixtures("saved")
def test_a_head_of_another_size_begins_without_state_if_asked_to(store):
    model = net(classes=5)
    optimizer = adam(model.parameters())
    with (
        pytest.warns(StateWarning, match="without all the state of 'optimizer'"),
        pytest.warns(KeysWarning),
    ):
        audit = store.resume(model, optimizer, strict=False).audit
    assert set(optimizer.state) == set(model["body"].parameters())
    assert audit.state_left["optimizer"].mismatched == ("model/head.weight", "model/head.bias")
    stepped(optimizer)


@pytest.mark.usefixtures("saved")
def test_a_layer_that_is_new_begins_without_state_if_asked_to(store):
    model = net(new=nn.Linear(1, 1))
    del model["head"]
    optimizer = adam(model.parameters())
    with pytest.warns(StateWarning, match="without all the state"), pytest.warns(KeysWarning):
        left = store.resume(model, optimizer, strict=False).audit.state_left["optimizer"]
    assert set(optimizer.state) == set(model["body"].parameters())
    assert left.not_saved == ("model/new.weight", "model/new.bias")
    assert left.unused == ("model/head.weight", "model/head.bias")


def test_state_in_no_parameters_shape_is_left_with_its_parameter(store):
    def factored(classes):
        model = net(classes)
        return model, torch.optim.Adafactor(model.parameters())

    model, optimizer = factored(3)
    store.save(model, stepped(optimizer))
    other, again = factored(5)
    with pytest.warns(StateWarning, match="without all the state"), pytest.warns(KeysWarning):
        store.resume(other, again, strict=False)
    assert other["head"].weight not in again.state
    stepped(again)


@pytest.mark.usefixtures("saved")
def test_other_groups_are_refused_in_any_case(store):
    model = net()
    groups = [{"params": model[name].parameters()} for name in ("body", "head")]
    with pytest.raises(MismatchError, match="build it with those groups, or leave it out"):
        store.resume(model, adam(groups), strict=False)


def test_lbfgs_goes_on_with_all_of_its_parameters_or_not_at_all(store):
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(lambda: torch.tensor(1.0))
    store.save(model, optimizer)
    other = net()
    with pytest.raises(MismatchError, match="can't go on with some of them"):
        store.resume(other, torch.optim.LBFGS(other.parameters()), skip="head")


# ------------------------------------------------------------ names that the optimizer was given


def test_an_optimizer_keeps_the_names_that_it_was_given(store):
    model = nn.DataParallel(net())
    store.save(model, stepped(adam(model.named_parameters())))
    other = net()
    named, nameless = adam(other.named_parameters()), adam(other.parameters())
    store.resume(other, named)
    store.resume(other, nameless)
    assert named.param_groups[0]["param_names"] == [name for name, _ in other.named_parameters()]
    assert "param_names" not in nameless.param_groups[0]


@pytest.mark.parametrize("wraps", [(nn.DataParallel, nn.Sequential), (None, nn.DataParallel)])
def test_an_optimizer_alone_is_matched_by_its_own_names_without_wrappers(store, wraps):
    before, now = (wrap if wrap is nn.DataParallel else lambda model: model for wrap in wraps)
    model = before(net())
    optimizer = stepped(adam(model.named_parameters()))
    store.save(None, optimizer)
    other = now(net())
    again = adam(list(other.named_parameters())[::-1])
    store.resume(None, again)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(moment(optimizer, one), moment(again, two))


def test_renaming_is_of_names_that_were_given_too(store):
    model = net()
    extra = nn.ParameterDict({"body_scale": torch.ones(1), "head_scale": torch.ones(1)})
    scales = [("body.scale", extra["body_scale"]), ("head.scale", extra["head_scale"])]
    optimizer = stepped(adam([*model.named_parameters(), *scales]))
    store.save(model, optimizer)
    other = nn.ModuleDict({"trunk": nn.Linear(2, 4), "head": nn.Linear(4, 3)})
    turned = [("head.scale", torch.ones(1)), ("trunk.scale", torch.ones(1))]
    again = adam([*other.named_parameters(), *turned])
    store.resume(other, again, rename={"body.": "trunk."})
    assert torch.equal(moment(again, turned[1][1]), moment(optimizer, extra["body_scale"]))
    assert torch.equal(moment(again, other["trunk"].bias), moment(optimizer, model["body"].bias))


# ------------------------------------------------------------ a scaler that is not enabled


def test_state_that_a_scaler_has_no_use_for_is_told(store):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    store.save(None, scaler=scaler)
    off = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.warns(StateWarning, match="without all the state of 'scaler'"):
        audit = store.resume(None, scaler=off).audit
    assert "scale" in audit.state_left["scaler"].unused
    assert not store.resume(None, scaler=scaler).audit.state_left
