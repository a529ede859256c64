from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptstore.errors import ArgumentError, ImportRefusedError
from ckptstore.importing.contents import is_config, recognise
from ckptstore.importing.plain import Held
from tests.importing.files import full, trained

W = {"w": torch.ones(2)}


def parts(value, **how):
    return {name: part.kind for name, part in recognise(value, "torch", "it", **how).parts.items()}


def test_the_usual_keys_are_recognised():
    found = recognise(full(best="x", lr=0.1), "torch", "it")
    assert {name: part.kind for name, part in found.parts.items()} == {
        "model": "state_dict",
        "optimizer": "optimizer",
        "scheduler": "object",
    }
    assert (found.epoch, found.step) == (3, None)
    assert found.metrics == {"train_loss": 0.5, "val_loss": 0.25}
    assert found.model_config == {"width": 4}
    assert found.extra == {"best": "x", "lr": 0.1}


def test_a_bare_state_dict_is_the_model():
    found = recognise(trained()[0].state_dict(), "torch", "it")
    assert list(found.parts) == ["model"]
    assert not found.extra


@pytest.mark.parametrize(
    "key", ["model_state_dict", "state_dict", "model", "net", "network", "model_state", "weights"]
)
def test_the_model_goes_by_many_names(key):
    assert parts({key: W, "epoch": 1}) == {"model": "state_dict"}


@pytest.mark.parametrize("key", ["optimizer", "optimizer_state_dict", "optim", "opt_state"])
def test_so_does_the_optimizer(key):
    state = trained()[1].state_dict()
    assert parts({"model": W, key: state}) == {"model": "state_dict", "optimizer": "optimizer"}


def test_the_only_state_dict_is_the_model_whatever_its_name():
    assert parts({"resnet": W, "ema": W}) == {"model": "state_dict", "ema": "state_dict"}


def test_several_modules_and_optimizers_are_parts_of_their_own():
    state = trained()[1].state_dict()
    found = parts(
        {
            "netG": W, "netD_state_dict": W, "optimizerG": state, "optimizerD": state,
            "lr_scheduler": {"last_epoch": 3}, "scaler": {"scale": 2.0}, "model_ema": W,
        }
    )  # fmt: skip
    assert found == {
        "netG": "state_dict", "netD": "state_dict", "optimizerG": "optimizer",
        "optimizerD": "optimizer", "scheduler": "object", "scaler": "object",
        "model_ema": "state_dict",
    }  # fmt: skip


def test_a_list_of_optimizers_is_several_parts():
    state = trained()[1].state_dict()
    assert list(parts({"model": W, "optimizers": [state, state]})) == [
        "model",
        "optimizer",
        "optimizer_1",
    ]


def test_nothing_is_dropped():
    odd = {"model": W, "epoch": 1.5, "loss": "low", "args": [1], "config": {1: 2}, 7: "x"}
    assert recognise(odd, "torch", "it").extra == {
        "epoch": 1.5, "loss": "low", "args": [1], "config": {1: 2}, "7": "x",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["rng", "extra", "only", "strict"])
def test_no_part_takes_the_name_of_an_option(name):
    found = parts({"model": W, f"{name}_state_dict": W})
    assert list(found) == ["model", f"{name}_state_dict"]


def test_two_states_of_one_name_are_both_kept():
    found = parts({"model": W, "net": W, "net_state_dict": W})
    assert len(found) == 3


@pytest.mark.parametrize("epoch", ["12", torch.tensor([12]), np.array([12]), 12.0])
def test_an_epoch_may_be_text_or_one_element(epoch):
    assert recognise({"model": W, "epoch": epoch}, "torch", "it").epoch == 12
    assert recognise({"m": W, "e": epoch}, "torch", "it", keys={"e": "epoch"}).epoch == 12


def test_the_likeliest_key_says_the_epoch():
    found = recognise({"model": W, "epochs": 100, "epoch": 3}, "torch", "it")
    assert (found.epoch, found.extra) == (3, {"epochs": 100})


def test_numbers_of_nested_metrics_have_their_paths():
    value = {"model": W, "metrics": {"val": {"loss": 0.1, "acc": np.array([0.5])}, "lr": 1}}
    found = recognise(value, "torch", "it")
    assert found.metrics == {"lr": 1, "val/loss": 0.1, "val/acc": 0.5}
    assert not found.extra
    value["metrics"]["names"] = ["a"]
    found = recognise(value, "torch", "it")
    assert found.metrics["val/loss"] == 0.1
    assert found.extra == {"metrics": value["metrics"]}
    assert "of metrics these are no numbers, and all of it was kept in extra too: names" in str(
        found.notes
    )


def test_facts_that_are_none_are_said():
    value = {"model": W, "epoch": 1.5, "val_loss": [0.5, 0.4], "args": [1], "best_acc": None}
    found = recognise(value, "torch", "it")
    assert found.extra == {key: value[key] for key in ("epoch", "val_loss", "args", "best_acc")}
    (note,) = found.notes
    assert "epoch (1.5), val_loss (list of 2), args (list of 1);" in note


def test_an_epoch_among_the_tensors_is_taken_and_left():
    found = recognise({**W, "epoch": torch.tensor(2)}, "torch", "it")
    assert (found.epoch, list(found.parts["model"].state)) == (2, ["w", "epoch"])
    assert "is among the model's tensors" in found.notes[0]


def test_what_keys_are_can_be_told():
    value = {"a": W, "b": {"c": {"x": 1}, "d": 5}, "n": 7, "m": 0.5, "big": [1], "q": {"z": 1}}
    found = recognise(
        value,
        "torch",
        "it",
        keys={"a": "model", "b/d": "epoch", "n": "step", "m": "val_acc", "big": None,
              "q": "config", "b/c": "extra"},
    )  # fmt: skip
    assert list(found.parts) == ["model"]
    assert (found.epoch, found.step, found.metrics) == (5, 7, {"val_acc": 0.5})
    assert found.config == {"z": 1}
    assert found.extra == {"b/c": {"x": 1}}


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"gone": "model"}, "no such key"),
        ({"b/gone": "model"}, "no such key"),
        ({"b/c": "epoch"}, "no whole number"),
        ({"a": "config"}, "no dict of plain values"),
        ({"a": "metrics"}, "no dict of numbers"),
        ({"a": "strict"}, "no name of a part"),
        ({"n": "model"}, "has no state"),
        ({"n": "acc", "m": "metrics"}, r"say otherwise of acc \(2\)"),
        ({"m": "metrics", "n": "acc"}, "another key says otherwise"),
        ({"text": "model"}, "has no state"),
    ],
)
def test_what_is_told_and_not_so_is_refused(keys, why):
    with pytest.raises(ArgumentError, match=why):
        recognise(
            {"a": W, "b": {"c": 1.5}, "text": "x", "n": 1, "m": {"acc": 2}},
            "torch",
            "it",
            keys=keys,
        )


def test_what_is_taken_for_a_part_beside_those_that_are_told_is_said():
    value = {"student": W, "teacher": W, "ema": W, "optim": trained()[1].state_dict()}

    found = recognise(value, "torch", "it", keys={"student": "small", "ema": None})

    assert list(found.parts) == ["small", "model", "optimizer"]
    (note,) = found.notes
    assert "form: 'teacher' as 'model', 'optim' as 'optimizer'; keys= says" in note
    told = {"student": "model", "teacher": "teacher", "ema": None, "optim": "optimizer"}
    assert not recognise(value, "torch", "it", keys=told).notes
    assert not recognise(value, "torch", "it", keys={"ema": "extra"}).notes


@pytest.mark.parametrize("first", ["val_loss", "metrics"])
def test_one_metric_with_two_numbers_is_said_and_both_are_kept(first):
    value = {"model": W, "val_loss": 0.5, "metrics": {"val_loss": 0.25, "acc": 1}}

    found = recognise(dict(sorted(value.items(), key=lambda item: item[0] != first)), "torch", "it")

    (note,) = found.notes
    if first == "val_loss":
        assert found.metrics == {"val_loss": 0.5, "acc": 1}
        assert found.extra == {"metrics": value["metrics"]}
        assert "another number, which stands beside it" in note
        assert "val_loss (0.25)" in note
    else:
        assert found.metrics == {"val_loss": 0.25, "acc": 1}
        assert found.extra == {"val_loss": 0.5}
        assert "val_loss (0.5)" in note


@pytest.mark.parametrize("number", [0.5, float("nan")])
def test_one_metric_twice_with_one_number_is_one(number):
    for value in (
        {"model": W, "val_loss": number, "metrics": {"val_loss": number}},
        {"model": W, "metrics": {"val_loss": number}, "val_loss": number},
    ):
        found = recognise(value, "torch", "it")
        assert list(found.metrics) == ["val_loss"]
        assert not found.extra
        assert not found.notes


def test_objects_are_parts_of_their_kind():
    held = {"model": Held("module", "a.Net", {"width": 2}), "sched": Held("object", "b.S")}
    found = recognise({"model": W, "sched": {"x": 1}}, "torch", "it", held)
    assert (found.parts["model"].class_name, found.parts["model"].kind) == ("a.Net", "module")
    assert found.parts["scheduler"].class_name == "b.S"
    alone = recognise(W, "torch", "it", {"": Held("module", "a.Net")})
    assert alone.parts["model"].class_name == "a.Net"


@pytest.mark.parametrize("value", [[], 3, torch.ones(2), None])
def test_what_is_no_dict_is_refused(value):
    with pytest.raises(ImportRefusedError, match="neither a state dict"):
        recognise(value, "torch", "it")


def test_a_config_has_no_tensors():
    assert is_config({"a": [1, {"b": (2,)}]})
    assert not is_config({"a": [torch.ones(1)]})
    assert not is_config({1: 2})
