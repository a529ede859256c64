"""Optimizers: parameters by name, state put onto the parameters it belongs to."""

from __future__ import annotations

from collections import OrderedDict, deque
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from ckptstore import Store
from ckptstore.errors import MismatchError
from ckptstore.state.optimizers import aliases, parameter_names, place, reorder
from tests.loading.trainings import frozen


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def stepped(optimizer, model):
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5) + parameter.detach() * 0.1
    optimizer.step(lambda: torch.tensor(1.0)) if isinstance(optimizer, torch.optim.LBFGS) else (
        optimizer.step()
    )


def test_parameters_are_named_by_part_and_key_in_order():
    one, two = net(), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(
        [
            {"params": [one[1].bias, two.weight]},
            {"params": [one[0].weight]},
            {"params": [torch.ones(1)]},
        ]
    )
    assert parameter_names(optimizer, {"generator": one, "critic": two}) == (
        ("generator/1.bias", "critic/weight"),
        ("generator/0.weight",),
        (None,),
    )


def test_names_the_optimizer_was_given_serve_where_no_module_has_them():
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters())
    assert parameter_names(optimizer, {}) == (("0.weight", "0.bias", "1.weight", "1.bias"),)
    assert parameter_names(optimizer, {"model": model})[0][0] == "model/0.weight"


def test_wrapped_modules_parameters_have_plain_names():
    model = nn.DataParallel(net())
    optimizer = torch.optim.SGD(model.parameters())
    assert parameter_names(optimizer, {"model": model})[0][0] == "model/0.weight"


def test_tied_parameters_have_the_first_name():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    model["b"].weight = model["a"].weight
    optimizer = torch.optim.SGD(model.parameters())
    assert parameter_names(optimizer, {"model": model}) == (
        ("model/a.weight", "model/a.bias", "model/b.bias"),
    )


def test_another_order_is_remapped(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    stepped(optimizer, model)
    store = Store(tmp_path)
    store.save(model, optimizer)
    other = net()
    turned = torch.optim.Adam(list(other.parameters())[::-1])
    store.resume(other, turned)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[one]["exp_avg"], turned.state[two]["exp_avg"])


def test_another_set_is_a_listed_mismatch_and_nothing_is_touched(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    stepped(optimizer, model)
    store = Store(tmp_path)
    store.save(model, optimizer)
    other = net()
    before = [parameter.clone() for parameter in other.parameters()]
    fewer = torch.optim.Adam(list(other.parameters())[1:])
    with pytest.raises(MismatchError, match=r"model/0\.weight"):
        store.resume(other, fewer)
    assert all(map(torch.equal, before, other.parameters()))
    assert not fewer.state


def test_state_keeps_its_dtype_and_the_step_its_place(tmp_path):
    model = net().bfloat16()
    optimizer = torch.optim.Adam(model.parameters())
    stepped(optimizer, model)
    for state in optimizer.state.values():
        state["exp_avg"] = state["exp_avg"].float() + 1e-5
    store = Store(tmp_path)
    store.save(model, optimizer)
    other = net().bfloat16()
    again = torch.optim.Adam(other.parameters())
    store.resume(other, again)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert again.state[two]["exp_avg"].dtype == torch.float32
        assert torch.equal(again.state[two]["exp_avg"], optimizer.state[one]["exp_avg"])
        assert again.state[two]["step"].dtype == torch.float32


def test_reordering_keeps_what_belongs_together():
    state = {
        "state": {0: {"m": "a"}, 2: {"m": "c"}, "global": 7},
        "param_groups": [
            {"lr": 1, "params": [0, 1], "param_names": ["a", "b"]},
            {"lr": 2, "params": [2]},
        ],
        "more": 1,
    }
    assert reorder(state, [[1, 0], [2]]) == {
        "state": {1: {"m": "a"}, 2: {"m": "c"}, "global": 7},
        "param_groups": [
            {"lr": 1, "params": [0, 1], "param_names": ["a", "b"]},
            {"lr": 2, "params": [2]},
        ],
        "more": 1,
    }


def test_a_parameter_that_gets_no_state_leaves_its_place_empty():
    state = {"state": {0: {"m": "a"}, 1: {"m": "b"}}, "param_groups": [{"params": [0, 1]}]}
    assert reorder(state, [[None, 1]])["state"] == {1: {"m": "b"}}


def test_a_parameter_that_gets_no_state_keeps_what_it_has():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    stepped(optimizer, model)
    before = dict(optimizer.state)
    place(optimizer, {**optimizer.state_dict(), "state": {}}, frozenset({1}))
    assert list(optimizer.state) == [model[0].bias]
    assert optimizer.state[model[0].bias] is before[model[0].bias]


def test_a_parameter_is_known_by_all_its_names():
    one = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    one["b"].weight = one["a"].weight
    assert aliases({"one": one, "two": one["b"]}) == {
        id(one["a"].weight): ("one/a.weight", "one/b.weight", "two/weight")
    }


def test_placing_runs_the_optimizers_own_hooks():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    stepped(optimizer, model)
    state = optimizer.state_dict()
    called = []
    optimizer.register_load_state_dict_post_hook(called.append)
    place(optimizer, state)
    assert called == [optimizer]


@pytest.mark.parametrize(
    ("kind", "decoupled"), [(torch.optim.Adam, False), (torch.optim.AdamW, True)]
)
def test_what_an_older_torch_did_not_save_is_filled_in_by_the_class(tmp_path, kind, decoupled):
    model, other = net(), net()
    optimizer, again = kind(model.parameters(), lr=0.5), kind(other.parameters())
    stepped(optimizer, model)
    for key in ("decoupled_weight_decay", "fused", "maximize"):
        del optimizer.param_groups[0][key]
    store = Store(tmp_path)
    store.save(model, optimizer)

    assert store.resume(other, again)
    assert again.param_groups[0]["lr"] == 0.5
    assert again.param_groups[0]["decoupled_weight_decay"] is decoupled
    assert again.param_groups[0]["maximize"] is False
    stepped(again, other)


def test_what_ones_own_class_has_learnt_since_is_as_it_was_built(tmp_path):
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters, **defaults):
            super().__init__(parameters, {"lr": 0.1, **defaults})

        def step(self, closure=None):
            pass

    model = net()
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    store = Store(tmp_path)
    store.save(None, Own(groups, lr=0.7))
    again = Own(groups, warmth=3)

    assert store.resume(None, again)
    assert [(group["lr"], group["warmth"]) for group in again.param_groups] == [(0.7, 3)] * 4


# ------------------------------------------------------------ hyperparameters that are tensors


def test_a_tensor_stays_the_object_that_the_script_and_a_compiled_step_hold(tmp_path):
    model, other = net(), net()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=torch.tensor(0.5), betas=(torch.tensor(0.25), torch.tensor(0.75))
    )
    stepped(optimizer, model)
    rate, betas = torch.tensor(0.1), (torch.tensor(0.5), torch.tensor(0.5))
    again = torch.optim.Adam(other.parameters(), lr=rate, betas=betas)
    store = Store(tmp_path)
    store.save(model, optimizer)

    audit = store.resume(other, again).audit

    group = again.param_groups[0]
    assert group["lr"] is rate
    assert all(one is two for one, two in zip(group["betas"], betas, strict=True))
    assert (rate.item(), [beta.item() for beta in betas]) == (0.5, [0.25, 0.75])
    assert again.defaults["lr"] is rate  # which a group that is added later gets
    assert audit.overridden[0].script == 0.1  # as it was before it was written to


def groups_of(model, *rates):
    return [
        {"params": [parameter], "lr": rate}
        for parameter, rate in zip(model.parameters(), rates, strict=True)
    ]


def test_a_tensor_that_groups_shared_is_shared_again():
    saved = torch.tensor(0.5)
    state = torch.optim.SGD(groups_of(net(), *[saved] * 4)).state_dict()
    mine = [torch.tensor(0.1), *[torch.tensor(0.2)] * 3]
    optimizer = torch.optim.SGD(groups_of(net(), *mine))
    place(optimizer, state)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [0.5] * 4
    assert all(rate is rates[0] for rate in rates)


def test_a_tensor_that_groups_share_now_takes_no_two_values():
    saved = [torch.tensor(rate) for rate in (0.1, 0.2, 0.3, 0.4)]
    state = torch.optim.SGD(groups_of(net(), *saved)).state_dict()
    mine = torch.tensor(0.5)
    optimizer = torch.optim.SGD(groups_of(net(), *[mine] * 4))
    place(optimizer, state)
    assert [group["lr"] for group in optimizer.param_groups] == saved
    assert mine == 0.5


def test_a_tensor_of_another_dtype_makes_way():
    saved = torch.tensor(0.1, dtype=torch.float64)
    state = torch.optim.SGD(groups_of(net(), *[saved] * 4)).state_dict()
    optimizer = torch.optim.SGD(groups_of(net(), *[torch.tensor(0.5)] * 4))
    place(optimizer, state)
    assert optimizer.param_groups[0]["lr"].dtype == torch.float64


# ------------------------------------------------------------ what torch's loading would ruin


def test_state_that_is_no_tensor_comes_back_as_it_was(tmp_path):
    model, other = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.5)
    stepped(optimizer, model)
    values = {
        "phase": "warm",
        "counts": np.array([1, 2]),
        "seen": deque([1, 2], maxlen=2),
        "parts": OrderedDict(a=torch.ones(1), b="text"),
        "nested": [1, {"names": ("x", "y")}],
        "nothing": None,
    }
    optimizer.state[model[0].weight].update(values)
    again = torch.optim.SGD(other.parameters(), momentum=0.5)
    store = Store(tmp_path)
    store.save(model, optimizer)
    assert store.resume(other, again)
    found = again.state[other[0].weight]
    assert frozen({key: found[key] for key in values}) == frozen(values)
    assert found["seen"].maxlen == 2
    assert torch.equal(
        found["momentum_buffer"], optimizer.state[model[0].weight]["momentum_buffer"]
    )


def test_a_graph_that_led_to_a_moment_is_not_kept(tmp_path):
    optimizer = torch.optim.Adam([torch.ones(2)], betas=(0.5, 0.5), differentiable=True)
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = torch.tensor(2.0, requires_grad=True) * torch.ones(2)
    optimizer.step()
    assert optimizer.state[parameter]["exp_avg"].grad_fn is not None
    store = Store(tmp_path)
    store.save(None, optimizer)
    again = torch.optim.Adam([torch.ones(2)], betas=(0.5, 0.5), differentiable=True)
    store.resume(None, again)
    ((parameter, moments),) = again.state.items()
    assert moments["exp_avg"].tolist() == [1.0, 1.0]
    parameter.grad = torch.ones(2)
    again.step()  # in place, which no leaf that requires gradients would let it do
    assert moments["exp_avg"].tolist() == [1.0, 1.0]


def test_groups_added_later_look_like_those_that_were_there():
    optimizer = torch.optim.Adafactor([nn.Parameter(torch.ones(2))])
    place(optimizer, optimizer.state_dict())
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    one, two = optimizer.param_groups
    assert one.keys() == two.keys()


def test_a_schedule_that_is_new_in_this_training_keeps_its_bounds(tmp_path):
    model, other = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    store = Store(tmp_path)
    store.save(model, optimizer)
    again = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(again, 0.2, total_steps=5)
    store.resume(other, again)
    assert again.param_groups[0]["max_lr"] == 0.2
    stepped(again, other)
    scheduler.step()


# ------------------------------------------------------------ L-BFGS


def test_lbfgs_is_refused_parameters_in_another_order(tmp_path):
    model, other = net(), net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    stepped(optimizer, model)
    store = Store(tmp_path)
    store.save(model, optimizer)
    turned = torch.optim.LBFGS(list(other.parameters())[::-1])
    with pytest.raises(MismatchError, match="they stand in another order here"):
        store.resume(other, turned)
    assert not turned.state


def test_lbfgs_is_refused_parameters_of_another_size(tmp_path):
    optimizer = torch.optim.LBFGS([nn.Parameter(torch.ones(3))], max_iter=2)
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = torch.ones(3)
    optimizer.step(parameter.sum)
    store = Store(tmp_path)
    store.save(None, optimizer)
    other = torch.optim.LBFGS([nn.Parameter(torch.ones(2))])
    with pytest.raises(MismatchError, match="has 3 numbers, and the parameters have 2 here"):
        store.resume(None, other)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_stays_on_the_cpu_is_taken_and_the_rest_is_moved(device):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    stepped(optimizer, model)
    state, taken = optimizer.state_dict(), []

    def take(value):
        copy = deepcopy(value)
        taken.extend([] if not isinstance(value, torch.Tensor) else [value])
        return copy

    target = torch.optim.Adam(net().to(device).parameters())
    place(target, reorder(state, [[0, 1, 2, 3]]), take=take)

    given = [value for each in state["state"].values() for value in each.values()]
    for parameter, loaded in target.state.items():
        assert loaded["exp_avg"].device == parameter.device
        assert loaded["step"].device.type == "cpu"
        assert not any(value is other for value in loaded.values() for other in given)
    assert len(taken) == (0 if device == "cpu" else 4)  # the steps; of the CPU's all at once
