"""What each keyword of ``save`` is: a part, a metric, nothing, or a mistake that is named."""

from __future__ import annotations

import inspect
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler

from ckptstore import Store
from ckptstore.errors import ArgumentError
from ckptstore.state.keywords import (
    OPTIONS,
    check_model,
    check_optimizer,
    is_part,
    metric_dict,
    number,
    only_parts,
    sort,
    whole,
)


class Scheduler:
    def state_dict(self):
        return {}


def test_parts_and_metrics_are_told_apart_in_their_order():
    scheduler, generator = Scheduler(), torch.Generator()
    parts, metrics = sort(
        {
            "val_loss": 0.5,
            "scheduler": scheduler,
            "acc": 1,
            "sampler": generator,
            "augment": np.random.default_rng(),
            "ema": nn.Linear(1, 1),
        }
    )
    assert list(parts) == ["scheduler", "sampler", "augment", "ema"]
    assert metrics == {"val_loss": 0.5, "acc": 1}
    assert list(metrics) == ["val_loss", "acc"]


@pytest.mark.parametrize("name", ["scheduler", "val_loss", "blockng", "anything"])
def test_none_is_absent(name):
    assert sort({name: None}) == ({}, {})


@pytest.mark.parametrize(
    ("value", "metric"),
    [
        (3, 3),
        (2.5, 2.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array(2.0), 2.0),
        (torch.tensor(1.5), 1.5),
        (torch.tensor(3), 3),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (Fraction(1, 4), 0.25),
        (float("inf"), float("inf")),
        (10**300, 10**300),
        (2**1023, 2**1023),
    ],
)
def test_a_real_number_is_a_metric(value, metric):
    found = number("loss", value)
    assert found == metric
    assert type(found) is type(metric)


def test_nan_is_a_metric():
    assert number("loss", torch.tensor(float("nan"))) != number("loss", float("nan"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("blockng", False, "bool"),
        ("verbose", True, r"extra=\{'verbose': True\}"),
        ("done", np.True_, "bool"),
        ("done", torch.tensor(1) > 0, "bool"),
        ("scheduler", Scheduler, "Scheduler is a class; pass an instance"),
        ("loss", torch.ones(2), r"shape \[2\] is no metric"),
        ("loss", torch.tensor(1j), "no metric"),
        ("loss", torch.tensor(1.0, device="meta"), "no metric"),
        ("loss", 1j, "complex"),
        ("loss", "0.5", "a str"),
        ("loss", Decimal("0.5"), "Decimal"),
        ("loss", Fraction(10**400), "too large for a float"),
        ("loss", 10**400, r"loss=: this int is too large for a float, .* extra="),
        pytest.param("loss", -(10**5000), "too large for a float", id="an int of 5000 digits"),
        ("loss", [0.5], "a list"),
        ("facts", {"a": 1}, "extra= or config="),
        ("loss", np.ones(2), "ndarray"),
        ("loss", np.datetime64("2026-01-01"), "loss"),
        ("hook", print, "hook"),
        ("x", object(), "neither a part .* nor a real number"),
    ],
)
def test_anything_else_is_refused_and_named(name, value, said):
    with pytest.raises(ArgumentError, match=said) as raised:
        sort({name: value})
    assert name in str(raised.value)
    assert isinstance(raised.value, TypeError)


@pytest.mark.parametrize(
    ("slip", "meant"), [("epochs", "epoch"), ("steps", "step"), ("tag", "tags"), ("paren",
    "parent"), ("configs", "config"), ("modelconfig", "model_config"), ("optimiser", "optimizer")],
)  # fmt: skip
def test_a_name_close_to_an_options_is_a_slip(slip, meant):
    with pytest.raises(ArgumentError, match=rf"no option '{slip}': did you mean '{meant}'"):
        sort({slip: 3.0})


@pytest.mark.parametrize("name", ["optimizer2", "model_ema", "g_optimizer", "optimizer_d"])
def test_a_part_named_after_an_option_is_none(name):
    assert list(sort({name: Scheduler()})[0]) == [name]


@pytest.mark.parametrize("name", ["stepped_loss", "models_seen", "train_loss", "lr", "acc"])
def test_a_name_further_away_is_ones_own(name):
    assert sort({name: 1.0}) == ({}, {name: 1.0})


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_options_name_is_kept_for_it(name):
    with pytest.raises(ArgumentError, match=f"{name}= is an option|metric"):
        sort({name: 1.0})
    with pytest.raises(ArgumentError):
        sort({name: Scheduler()})


def test_all_options_of_save_are_reserved():
    for verb in (Store.save, Store.save_package, Store.load, Store.resume):
        for name, parameter in inspect.signature(verb).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert name in OPTIONS


@pytest.mark.parametrize("name", ["\ud800", "loss\udfff"])
def test_a_lone_surrogate_is_no_name(name):
    with pytest.raises(ArgumentError, match="surrogate"):
        sort({name: 1.0})
    with pytest.raises(ArgumentError, match="surrogate"):
        sort({name: Scheduler()})
    with pytest.raises(ArgumentError, match="surrogate"):
        metric_dict({name: 1.0})


def test_metrics_take_any_names():
    assert metric_dict(
        {"epoch": 1, "mAP@0.5": 0.3, "a/b c": torch.tensor(2), "none": None, "": 0}
    ) == {
        "epoch": 1,
        "mAP@0.5": 0.3,
        "a/b c": 2,
        "": 0,
    }


@pytest.mark.parametrize(
    "metrics", [[("a", 1)], 7, "a", {1: 2}, {"a": "b"}, {"a": True}, {"a": [1]}]
)
def test_metrics_are_a_dict_of_names_to_numbers(metrics):
    with pytest.raises(ArgumentError, match="metrics"):
        metric_dict(metrics)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (None, None),
        (3, 3),
        (-1, -1),
        (3.0, 3),
        (np.int32(3), 3),
        (torch.tensor(3), 3),
        (np.array(3), 3),
    ],
)
def test_an_epoch_is_a_whole_number(value, number):
    found = whole("epoch", value)
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    "value", [True, 1.5, "3", float("nan"), float("inf"), 2**62, -(2**62), 10**400, -(10**5000),
    [1], torch.ones(2), torch.tensor(1) > 0, torch.tensor(1.0, device="meta"), 1j, np.array([1])],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_anything_else_is_no_epoch(value):
    with pytest.raises(ArgumentError, match="epoch= takes a whole number"):
        whole("epoch", value)


def test_a_model_is_a_module_or_a_state_dict():
    for model in (nn.Linear(1, 1), {}, nn.Linear(1, 1).state_dict(), Scheduler()):
        check_model(model)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters())
    with pytest.raises(ArgumentError, match=r"save\(model, optimizer\)"):
        check_model(optimizer)
    for wrong in (7, "model.pt", nn.Linear, [nn.Linear(1, 1)], torch.ones(1)):
        with pytest.raises(ArgumentError, match="model= takes a module or a state dict"):
            check_model(wrong)


def test_an_optimizer_is_no_module():
    check_optimizer(torch.optim.SGD(nn.Linear(1, 1).parameters()))
    check_optimizer(Scheduler())
    with pytest.raises(ArgumentError, match=r"the module Linear.*keyword of its own"):
        check_optimizer(nn.Linear(1, 1))
    for wrong in (torch.optim.SGD, 0.1, {}):
        with pytest.raises(ArgumentError, match="optimizer= takes"):
            check_optimizer(wrong)


def test_only_parts_can_be_restored_into():
    scheduler = Scheduler()
    assert only_parts({"model": None, "scheduler": scheduler}, "resume") == {"scheduler": scheduler}
    with pytest.raises(ArgumentError, match=r"resume\(loss=…\)"):
        only_parts({"loss": 0.5}, "resume")
    with pytest.raises(ArgumentError, match="is a class"):
        only_parts({"model": nn.Linear}, "restore")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("schedulr", 3, r"a int has no state to put back: pass .*\.metrics, \.config, \.extra"),
        ("model", {"w": torch.ones(1)}, r"no live object: .*module; .*checkpoint.state\('model'\)"),
        ("ring", False, "did you mean 'rng'"),
        ("optimiser", 3, "did you mean 'optimizer'"),
        ("model", "net.pt", "a str has no state to put back: pass"),
        ("loss", torch.ones(2), "a Tensor has no state"),
    ],
)
@pytest.mark.parametrize("verb", ["resume", "restore"])
def test_what_cannot_be_restored_into_gets_advice_that_its_verb_has(verb, name, value, said):
    with pytest.raises(ArgumentError, match=said) as raised:
        only_parts({name: value}, verb)
    assert str(raised.value).startswith(f"{verb}({name}=…): ")
    for option in ("extra=", "config=", "metrics=", ".item()"):
        assert option not in str(raised.value)


def test_only_resume_is_said_to_take_a_run():
    with pytest.raises(ArgumentError, match="did you mean 'run'"):
        only_parts({"runs": "a"}, "resume")
    with pytest.raises(ArgumentError, match="a str has no state to put back: pass"):
        only_parts({"runs": "a"}, "restore")


def test_a_class_is_no_part():
    assert not is_part(Scheduler)
    assert not is_part(nn.Linear)
    assert is_part(Scheduler())
    assert not is_part(type("Odd", (), {"state_dict": 7})())


@pytest.mark.parametrize("what", [DataLoader([1]), SequentialSampler([1])])
def test_what_keeps_nothing_of_where_it_is_is_refused_with_the_way_out(what):
    told = "keeps nothing of where it is.*StatefulDataLoader.*generator=.*set_epoch"
    with pytest.raises(ArgumentError, match=told):
        sort({"data": what})
    with pytest.raises(ArgumentError, match=told):
        only_parts({"data": what}, "resume")
