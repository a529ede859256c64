"""What ``save`` takes: parts, metrics, options, tags; all checked before a byte is written."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    InvalidNameError,
    StateWarning,
    UnsupportedValueError,
)
from ckptstore.saving.checkpoint import checked_tags


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(1, width)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://")


def test_everything_comes_back_under_its_name(store):
    net, critic = Net(2), nn.Sequential(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    saved = store.save(
        net,
        optimizer,
        epoch=3,
        step=torch.tensor(70),
        model_config={"width": 2},
        config={"lr": 0.5},
        metrics={"mAP@0.5": 0.25},
        extra={"seen": {1, 2}},
        tags=["first"],
        critic=critic,
        scheduler=None,
        val_loss=torch.tensor(0.5),
        acc=float("nan"),
    )
    for found in (saved, Store(store.url, catalog="sqlite://").get("default@1")):
        assert found.parts == ("model", "optimizer", "critic", "extra", "rng")
        assert (found.epoch, found.step) == (3, 70)
        assert found.model_config == {"width": 2}
        assert found.config == {"lr": 0.5}
        assert found.metrics["val_loss"] == 0.5
        assert found.metrics["mAP@0.5"] == 0.25
        assert math.isnan(found.metrics["acc"])
        assert found.extra == {"seen": {1, 2}}
        assert found.tags == ("first",)
        assert found.head.kind == "checkpoint"
        assert found.state("optimizer")["param_groups"][0]["lr"] == 0.5
        assert torch.equal(found.state("critic")["0.weight"], critic[0].weight)


def test_metrics_of_any_size_come_back(store):
    metrics = {"huge": 10**300, "small": -(2**60), "inf": float("inf"), "zero": -0.0}
    found = store.save({"a": 1}, metrics=metrics).metrics
    assert found == metrics
    assert math.copysign(1, found["zero"]) == -1
    assert store.history()[0].metrics == metrics
    assert store.best(metric="huge", mode="max").version == 1


def test_parts_without_a_model_are_a_checkpoint(store):
    assert store.save(sampler=torch.Generator(), rng=False).parts == ("sampler",)
    assert store.save(extra=0, rng=False).extra == 0


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ({"rng": False}, ArgumentError, "no state"),
        (
            {"model": None, "optimizer": None, "epoch": 1, "val_loss": 0.1},
            ArgumentError,
            "no state",
        ),
        ({"model": 7}, ArgumentError, "model= takes"),
        ({"model": Net}, ArgumentError, "is a class"),
        ({"optimizer": nn.Linear(1, 1)}, ArgumentError, "keyword of its own"),
        ({"model": {"a": 1}, "blockng": False}, ArgumentError, "blockng"),
        ({"model": {"a": 1}, "scheduler": "cosine"}, ArgumentError, "scheduler"),
        ({"model": {"a": 1}, "epochs": 3}, ArgumentError, "did you mean 'epoch'"),
        ({"model": {"a": 1}, "epoch": "3"}, ArgumentError, "epoch="),
        ({"model": {"a": 1}, "step": 1.5}, ArgumentError, "step="),
        ({"model": {"a": 1}, "metrics": 0.5}, ArgumentError, "metrics="),
        ({"model": {"a": 1}, "metrics": {"a": "b"}}, ArgumentError, "metrics"),
        ({"model": {"a": 1}, "metrics": {"acc": 1}, "acc": 2}, ArgumentError, "acc stand both"),
        ({"model": {"a": 1}, "config": 7}, ArgumentError, "config takes a dict"),
        ({"model": {"a": 1}, "config": {"f": print}}, UnsupportedValueError, "config/f"),
        ({"model": {"a": 1}, "config": {"f": torch.ones(1)}}, UnsupportedValueError, "config/f"),
        ({"model": {"a": 1}, "model_config": {1: 2}}, ArgumentError, "model_config takes"),
        (
            {"model": {"a": 1}, "model_config": {"f": object()}},
            UnsupportedValueError,
            "model_config/f",
        ),
        ({"model": {"a": 1}, "tags": "prod"}, ArgumentError, "list of names"),
        ({"model": {"a": 1}, "tags": ["7"]}, InvalidNameError, "no number"),
        ({"model": {"a": 1}, "tags": [None]}, InvalidNameError, "tag"),
        ({"model": {"a": 1}, "run": "../x"}, InvalidNameError, "segments"),
        ({"model": {"a": lambda: 0}}, UnsupportedValueError, "model/a"),
        ({"model": {"a": 1}, "extra": open}, UnsupportedValueError, "extra"),
        ({"model": {"a": torch.ones(1, device="meta")}}, UnsupportedValueError, "meta"),
        ({"model": {"\ud800": 1}}, UnsupportedValueError, "surrogate"),
        ({"model": {"a": 1}, "parent": "no such@1"}, InvalidNameError, "no name for a run"),
        ({"model": {"a": 1}, "preprocessing": {}}, ArgumentError, "is an option"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(store, tmp_path, call, error, said):
    with pytest.raises(error, match=said):
        store.save(**call)
    assert list(tmp_path.iterdir()) == []


def test_the_first_save_says_what_could_not_be_built_again(store):
    with pytest.warns(StateWarning, match="Net needs width") as caught:
        store.save(Net(2))
    assert caught[0].filename == __file__
    store.save(Net(2))


def test_a_runs_model_config_serves_all_its_saves(store):
    run = store.run("a", model_config={"width": 3})
    assert run.save(Net(3)).model_config == {"width": 3}
    assert run.save(Net(4), model_config={"width": 4}).model_config == {"width": 4}
    assert run.load_latest(Net, device="cpu").layer.out_features == 4


def test_a_state_dict_may_have_a_model_config_too(store):
    store.save(Net(3).state_dict(), model_config={"width": 3})
    assert store.load_latest(Net, device="cpu").layer.out_features == 3


def test_none_stands_for_whatever_is_absent(store):
    saved = store.save(
        {"a": 1},
        None,
        epoch=None,
        step=None,
        config=None,
        metrics=None,
        extra=None,
        parent=None,
        loss=None,
    )
    assert saved.parts == ("model", "rng")
    assert saved.metrics == {}
    assert saved.extra is None
    assert saved.config is None


def test_tags_are_names():
    assert checked_tags(("a", "b")) == ("a", "b")
    assert checked_tags([]) == ()
    for wrong in ("a", None, 7, {"a"}):
        with pytest.raises(ArgumentError, match="list of names"):
            checked_tags(wrong)
