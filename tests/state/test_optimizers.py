"""Optimizers: parameters by name, state put onto the parameters it belongs to."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from ckptstore import Store
from ckptstore.errors import MismatchError
from ckptstore.state.optimizers import match, parameter_names, place, reorder


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


def test_the_same_names_in_another_order_are_matched():
    assert match((("a", "b"), ("c",)), (("b", "a"), ("c",))) == ([[1, 0], [2]], [])
    assert match(((None, "b"),), (("x", None),)) == ([[0, 1]], [])
    assert match((("a", "a"),), (("b", "c"),)) == ([[0, 1]], [])
    assert match((), ()) == ([], [])


@pytest.mark.parametrize(
    ("saved", "present", "given", "numbers"),
    [
        ((("model/a", "model/b"),), (("b", "a"),), None, [[1, 0]]),
        ((("a", "b"),), (("model/b", "model/a"),), None, [[1, 0]]),
        # A module's name may have a slash in it too.
        (
            (("x/a", "x/b"),),
            (("model/x/b", "model/x/a"),),
            ((("x/a", "x/b"),), ((None, None),)),
            [[1, 0]],
        ),
        # Two parts with the same names: without the part nothing tells them apart.
        ((("g/w", "c/w"),), (("w", "w"),), None, [[0, 1]]),
        # Nothing in common, so they are names of two kinds.
        ((("model/a", "model/b"),), (("net.b", "net.a"),), None, [[0, 1]]),
        (
            (("model/a", "model/b"),),
            (("net.b", "net.a"),),
            ((("net.a", "net.b"),), (("net.b", "net.a"),)),
            [[1, 0]],
        ),
    ],
)
def test_names_are_compared_in_one_namespace(saved, present, given, numbers):
    assert match(saved, present, given) == (numbers, [])


def test_names_that_differ_in_one_namespace_are_listed():
    assert match((("model/a", "model/b"),), (("a", "c"),))[1] == [
        "no state was saved for 'c'",
        "state was saved for 'b', which it lacks",
    ]
    other = match((("model/a",),), (("net/a",),), ((("a",),), (("a",),)))[1]
    assert other[0] == "no state was saved for 'net/a'"


@pytest.mark.parametrize(
    ("saved", "present", "said"),
    [
        (
            (("a",),),
            (("b",),),
            ["no state was saved for 'b'", "state was saved for 'a', which it lacks"],
        ),
        (
            (("a", "b"),),
            (("a",), ("b",)),
            ["1 parameter groups were saved, and this optimizer has 2"],
        ),
        (
            ((None,),),
            ((None, None),),
            ["groups of [1] parameters were saved, and this optimizer has [2]"],
        ),
        (
            (("a",), ("b",)),
            (("b",), ("a",)),
            [
                "group 0 had other parameters: ['a']; now ['b']",
                "group 1 had other parameters: ['b']; now ['a']",
            ],
        ),
    ],
)
def test_every_mismatch_is_listed(saved, present, said):
    assert match(saved, present)[1] == said


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "adamw": torch.optim.AdamW,
    "adamw fused": lambda p: torch.optim.AdamW(p, fused=True),
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "asgd": torch.optim.ASGD,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.1),
    "rprop": torch.optim.Rprop,
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=2),
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_goes_on_bit_for_bit(tmp_path, name):
    make = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = net()
    optimizer = make(model.parameters())
    for _ in range(3):
        stepped(optimizer, model)
    store = Store(tmp_path)
    store.save(model, optimizer)

    other = net()
    again = make(other.parameters())
    assert store.resume(other, again)

    for _ in range(3):
        stepped(optimizer, model)
        stepped(again, other)
    assert all(map(torch.equal, model.parameters(), other.parameters()))


SCHEDULERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "multi": lambda o: lr_scheduler.MultiStepLR(o, [1, 2]),
    "linear": lr_scheduler.LinearLR,
    "polynomial": lr_scheduler.PolynomialLR,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.StepLR(o, 2)], [3]
    ),
    "swa": lambda o: SWALR(o, 0.05),
}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_goes_on(tmp_path, name):
    def start():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        return model, optimizer, SCHEDULERS[name](optimizer)

    def turn(model, optimizer, scheduler):
        stepped(optimizer, model)
        scheduler.step()
        return optimizer.param_groups[0]["lr"]

    one = start()
    for _ in range(4):
        turn(*one)
    store = Store(tmp_path)
    store.save(*one[:2], scheduler=one[2])
    two = start()
    store.resume(*two[:2], scheduler=two[2])
    assert [turn(*one) for _ in range(5)] == [turn(*two) for _ in range(5)]


def test_plateaus_go_on(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    for _ in range(3):
        scheduler.step(1.0)
    store = Store(tmp_path)
    store.save(model, optimizer, scheduler=scheduler)
    other = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    store.resume(scheduler=other)
    assert other.state_dict() == scheduler.state_dict()


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
            {"lr": 1, "params": [0, 1], "param_names": ["b", "a"]},
            {"lr": 2, "params": [2]},
        ],
        "more": 1,
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
