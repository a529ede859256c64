"""What a save left out is compared with what is there when the rest is put back."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import KeysWarning


class Adapted(nn.Module):
    def __init__(self, seed=0, width=40):
        super().__init__()
        torch.manual_seed(seed)
        self.base = nn.Linear(width, width).requires_grad_(requires_grad=False)
        self.head = nn.Linear(width, 2)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def saved(store):
    model = Adapted()
    store.save(model, torch.optim.Adam(model.head.parameters()), only={"model": "trainable"})
    return model


def resumed(store, model, **how):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        audit = store.resume(model, **how).audit
    return audit.keys["model"], [each for each in told if each.category is KeysWarning]


@pytest.mark.usefixtures("saved")
def test_the_same_frozen_weights_are_no_news(store):
    report, told = resumed(store, Adapted(0))
    assert report.left_out == ("base.weight", "base.bias")
    assert report.changed == ()
    assert told == []


@pytest.mark.usefixtures("saved")
def test_other_frozen_weights_are_warned_of_by_name(store):
    other = Adapted(0)
    other.base.weight.data[3, 3] += 1
    report, (told,) = resumed(store, other)
    assert report.changed == ("base.weight",)
    assert "of other values here than when it was saved: base.weight" in str(told.message)
    assert "base.bias" not in str(told.message)


def test_restore_compares_too_whatever_lies_in_memory_how(store, saved):
    turned = Adapted(0)
    turned.base.weight.data = saved.base.weight.data.t().contiguous().t()
    audit = store.latest().restore(turned)
    assert audit.keys["model"].changed == ()


@pytest.mark.usefixtures("saved")
def test_what_is_converted_on_request_is_not_compared(store):
    report, told = resumed(store, Adapted(1).to(torch.bfloat16), dtype="own")
    assert report.changed == ()
    assert told == []


def test_renamed_keys_are_compared_under_their_new_names(store):
    model = nn.ModuleDict({"old": Adapted()})
    store.save(model, only="trainable", model_config={})
    report, _ = resumed(store, nn.ModuleDict({"new": Adapted(1)}), rename={"old.": "new."})
    assert report.changed == ("new.base.weight", "new.base.bias")
