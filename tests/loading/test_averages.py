"""A moving average is loaded into the class of what it averages, by its recorded class."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from ckptstore import Store, remember_init
from ckptstore.errors import ArgumentError, MismatchError
from ckptstore.format.part import Part
from ckptstore.loading.averages import inside
from tests.format.trees import bits


@remember_init
class Net(nn.Module):
    def __init__(self, width=3, sizes=2):
        super().__init__()
        self.body = nn.BatchNorm1d(sizes)
        self.head = nn.Linear(sizes, width)


class Other(nn.Module):
    """Has a key that begins like an average's, and is none."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 2)


def averaged(module):
    average = swa_utils.AveragedModel(module, use_buffers=True)
    average.update_parameters(module)
    return average


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def average(store):
    net = Net(width=4)
    made = averaged(net)
    store.save(net, ema=made, val_loss=0.1)
    return made


def test_it_is_loaded_as_the_module_inside(store, average):
    loaded = store.load_best(Net, part="ema", device="cpu")
    assert type(loaded) is Net
    assert bits(loaded.state_dict()) == bits(average.module.state_dict())
    assert loaded.head.out_features == 4


def test_patterns_are_those_of_the_modules_keys(store, average):
    loaded = store.latest().load(Net, part="ema", device="cpu", only="head.*")
    assert torch.equal(loaded.head.weight, average.module.head.weight)


def test_a_wrapped_average_of_a_wrapped_module_is_loaded_too(store):
    net = nn.DataParallel(nn.Linear(2, 2))
    store.save(net, ema=nn.DataParallel(averaged(net)), model_config={})
    config = {"in_features": 2, "out_features": 2}
    checkpoint = store.latest()
    loaded = checkpoint.load(nn.Linear, part="ema", device="cpu", model_config=config)
    assert torch.equal(loaded.weight, net.module.weight)


def test_a_package_of_it_is_loaded_into_the_plain_class(store, average):
    store.save_package(store.latest(), part="ema")
    loaded = store.load_package(Net, device="cpu")
    assert torch.equal(loaded.model.head.weight, average.module.head.weight)


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (lambda: averaged(Net(width=4)), {}),
        (swa_utils.AveragedModel, {"model_config": {"model": Net(width=4)}}),
    ],
)
def test_an_average_itself_takes_it_as_it_is(store, average, make, more):
    loaded = store.latest().load(make, part="ema", device="cpu", **more)
    assert bits(loaded.state_dict()) == bits(average.state_dict())


@pytest.mark.usefixtures("average")
def test_an_average_is_not_built_with_its_modules_arguments(store):
    with pytest.raises(ArgumentError, match="needs model"):
        store.latest().load(swa_utils.AveragedModel, part="ema")


def test_whoever_renames_its_keys_names_them_as_they_were_saved(store, average):
    loaded = store.latest().load(
        Net, part="ema", device="cpu", rename={"module.": ""}, skip="n_averaged"
    )
    assert torch.equal(loaded.head.weight, average.module.head.weight)


@pytest.mark.usefixtures("average")
def test_what_does_not_fit_is_told_by_the_names_inside(store):
    with pytest.raises(MismatchError, match=r"'head.weight' is shape \[4, 3\]"):
        store.latest().load(Net, part="ema", device="cpu", model_config={"width": 4, "sizes": 3})


def test_nothing_is_taken_for_an_average_by_its_keys(store):
    net = Other()
    store.save(net)
    assert torch.equal(store.latest().load(Other, device="cpu").module.weight, net.module.weight)


def test_what_is_no_state_dict_stays_as_it_is():
    part = Part([1], ())
    assert inside(part) is part
