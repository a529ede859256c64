"""Packages: one model out of a checkpoint or a live module, and nothing else of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    InvalidNameError,
    StateWarning,
    VersionNotFoundError,
)


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(self.layer(x))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://")


def trained(store, **options):
    net = Net(3)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return net, store.save(net, optimizer, model_config={"width": 3}, epoch=4, loss=0.5, **options)


def test_a_checkpoints_model_becomes_a_package_of_its_run(store):
    net, checkpoint = trained(store, run="digits", config={"lr": 1})
    package = store.save_package(
        checkpoint,
        class_names=["a", "b"],
        preprocessing={"mean": [0.0] * 3, "std": [1.0] * 3},
        tags=["prod"],
    )
    assert package.ref == "digits@2"
    assert package.parts == ("model", "preprocessing")
    assert package.parent == "digits@1"
    assert package.tags == ("prod",)
    assert (package.epoch, package.metrics, package.config) == (4, {"loss": 0.5}, {"lr": 1})
    assert package.model_config == {"width": 3}
    state = package.state("model")
    assert list(state) == list(net.state_dict())
    assert state._metadata == net.state_dict()._metadata
    assert all(map(torch.equal, state.values(), net.state_dict().values()))
    assert package.size_bytes < checkpoint.size_bytes
    assert store.get("digits@prod") == package


def test_packages_are_no_checkpoints(store):
    _, checkpoint = trained(store)
    store.save_package(checkpoint)
    assert store.latest() == checkpoint
    assert store.best(metric="loss", mode="min") == checkpoint
    other, again = trained(store)
    assert again.version == 3
    assert again.parent == "default@1"
    assert other is not None


def test_a_package_of_another_run_names_where_it_came_from(store):
    _, checkpoint = trained(store)
    package = store.save_package("default@1", run="served")
    assert package.ref == "served@1"
    assert package.parent == "default@1" == checkpoint.ref


def test_another_part_may_be_the_model(store):
    ema = Net(3)
    with pytest.warns(StateWarning, match="part 'ema'"):
        _, checkpoint = trained(store, ema=ema, critic=nn.Sequential(nn.Linear(1, 1)))
    package = store.save_package(checkpoint, part="ema", model_config={"width": 3})
    assert torch.equal(package.state("model")["layer.weight"], ema.layer.weight)
    with pytest.raises(VersionNotFoundError, match=r"'optimizer'; it has 'model', 'ema', 'critic'"):
        store.save_package(checkpoint, part="optimizer")


@pytest.mark.filterwarnings("ignore::ckptstore.errors.StateWarning")
def test_a_package_may_be_made_of_a_package(store):
    _, checkpoint = trained(store)
    first = store.save_package(checkpoint)
    second = store.save_package(first, class_names=["a", "b"])
    assert second.parent == first.ref
    assert second.model_config == {"width": 3}


@pytest.mark.parametrize("training", [True, False])
def test_a_live_module_is_left_as_it_is(store, training):
    net = Net(3).train(training)
    package = store.save_package(net, model_config={"width": 3})
    assert net.training is training
    assert package.parent is None
    loaded = store.load_package(Net, device="cpu")
    assert not loaded.model.training
    x = torch.randn(5, 3)
    assert torch.equal(loaded.model(x), net.eval()(x))


def test_a_live_module_that_could_not_be_built_again_is_said(store):
    with pytest.warns(StateWarning, match="Net needs width"):
        store.save_package(Net(3))


@pytest.mark.parametrize(
    ("source", "options", "error", "said"),
    [
        (7.5, {}, ArgumentError, "checkpoint, its ref or a module"),
        (Net, {}, ArgumentError, "checkpoint, its ref or a module"),
        ({"a": 1}, {}, ArgumentError, "checkpoint, its ref or a module"),
        (nn.Linear(1, 1), {"part": "ema"}, ArgumentError, "live module is the model itself"),
        (nn.Linear(1, 1), {"tags": "prod"}, ArgumentError, "list of names"),
        (nn.Linear(1, 1), {"tags": ["latest"]}, InvalidNameError, "tag"),
        (nn.Linear(1, 1), {"model_config": 7}, ArgumentError, "model_config"),
        (nn.Linear(1, 1), {"run": "a::b"}, InvalidNameError, "run"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(source, options, error, said, request):
    store, tmp_path = request.getfixturevalue("store"), request.getfixturevalue("tmp_path")
    with pytest.raises(error, match=said):
        store.save_package(source, **options)
    assert list(tmp_path.iterdir()) == []
