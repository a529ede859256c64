"""Dtypes that tensors had, and those they are asked for in."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import ArgumentError, IntegrityError
from ckptstore.loading.chosen import chosen_state
from ckptstore.loading.dtypes import check_dtype, convert_module, converted, dtype_was, in_dtype
from ckptstore.manifest import open_manifest
from ckptstore.storage.opening import open_storage
from tests.loading.forging import forge


@pytest.mark.parametrize(
    ("values", "was", "words"),
    [
        (torch.ones(3), "int64", "no such dtype of floating numbers"),
        (torch.ones(3), "no_such_dtype", "no such dtype of floating numbers"),
        (torch.ones(3), "nn", "no such dtype of floating numbers"),
        (torch.ones(3), "complex64", "no such dtype of floating numbers"),
        (torch.arange(3), "float32", "nobody converts"),
    ],
)
def test_a_dtype_that_nothing_can_have_had_is_refused(tmp_path, values, was, words):
    url = str(tmp_path / "store")
    saved = Store(url).save({"w": values}, rng=False)
    forge(url, "default", lambda _, parts: parts["model"]["tensors"][0].update(was=was))

    with pytest.raises(IntegrityError, match=words) as caught:
        chosen_state(open_manifest(open_storage(url), "default", 1), "model")
    assert caught.value.ref == saved.ref


def test_a_name_of_a_dtype_is_torchs():
    assert dtype_was("bfloat16", "a test") is torch.bfloat16


def test_only_floating_dtypes_can_be_asked_for():
    assert check_dtype(torch.float16) is torch.float16
    assert check_dtype(None) is None
    with pytest.raises(ArgumentError, match="dtype= takes a dtype of floating numbers"):
        check_dtype(torch.int8)


def test_a_state_dicts_ties_and_metadata_outlive_its_dtypes():
    shared = torch.ones(2, requires_grad=True)
    state = OrderedDict(a=shared, b=shared, n=torch.arange(2), _extra_state=torch.ones(1), t="x")
    state._metadata = {"": {"version": 1}}
    made = in_dtype(state, torch.float16)

    assert made["a"] is made["b"]
    assert made["a"].dtype == torch.float16
    assert made["a"].requires_grad
    assert made["a"].is_leaf
    assert made["n"] is state["n"]
    assert made["_extra_state"] is state["_extra_state"]
    assert made._metadata is state._metadata


def test_what_has_the_dtype_already_is_not_copied():
    tensor = torch.ones(2)
    assert converted(tensor, torch.float32) is tensor


def test_a_module_keeps_its_integers_and_complex_numbers():
    module = nn.BatchNorm1d(2)
    module.register_buffer("phases", torch.ones(2) * 1j)
    convert_module(module, torch.float64)

    kinds = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    assert kinds.pop("num_batches_tracked") == torch.int64
    assert kinds.pop("phases") == torch.complex64
    assert set(kinds.values()) == {torch.float64}
