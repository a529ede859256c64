"""The golden store of format 1: written once, and read bit for bit ever after.

``tests/data/make_format_1.py`` says what is in it, and made it.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3

from ckptstore import Checkpoint, Package, Store
from tests.data import make_format_1 as made
from tests.data.make_format_1 import Net

GOLDEN = Path(__file__).parent / "data" / "format-1"
VERSIONS = ["digits@1", "digits@2", "digits@3", "Sweep/lr=0.1@1", "sharded@1"]
BLAKE3 = "70c031dbfe706bac2e6c6c5fef30a13a5eae71f3b74c62e87869184dddb7c350"


@pytest.fixture
def store() -> Store:
    return Store(GOLDEN, catalog="sqlite://")


def test_nobody_changed_it():
    files = sorted(file for file in GOLDEN.rglob("*") if file.is_file())
    listed = [
        f"{blake3(file.read_bytes()).hexdigest()}  {file.relative_to(GOLDEN).as_posix()}\n"
        for file in files
    ]
    assert blake3("".join(listed).encode()).hexdigest() == BLAKE3


def test_reading_leaves_nothing_behind(store):
    before = sorted(GOLDEN.rglob("*"))
    for entry in store.history():
        for part in entry.parts:
            entry.state(part)
    assert sorted(GOLDEN.rglob("*")) == before


def test_history_lists_every_version(store):
    assert sorted(entry.ref for entry in store.history()) == sorted(VERSIONS)
    assert store.history().damaged == ()


def test_facts_of_a_checkpoint(store):
    first = store.get("digits@1")

    assert isinstance(first, Checkpoint)
    assert (first.epoch, first.step, first.parent) == (0, 10, None)
    assert first.metrics["accuracy"] == 0.5
    assert math.isnan(first.metrics["loss"])
    assert first.metrics["gap"] == math.inf
    assert first.metrics["seen"] == 2**60
    assert first.config == made.CONFIG
    assert first.model_config == {"width": 4}
    assert first.environment == made.ENVIRONMENT
    assert first.parts == ("model", "optimizer", "scheduler", "shuffling", "extra", "rng")
    assert store.get("digits@2").parent == "digits@1"


def test_settings_and_tags_are_what_the_journal_adds_up_to(store):
    assert store.best(run="digits").ref == "digits@2"  # the monitor is accuracy, more is better
    assert store.get("digits@old").ref == "digits@1"
    assert store.get("digits@prod").ref == "digits@3"
    assert store.get("digits@2").tags == ()


@pytest.mark.parametrize("ref", ["digits@1", "digits@2", "digits@3"])
def test_module(store, ref):
    module = store.load(Net, ref, device="cpu")

    same(OrderedDict(module.state_dict()), OrderedDict(made.net().state_dict()), "model")
    assert module.embed.weight is module.decode.weight
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not module.training


def test_module_state_keeps_versions_of_its_modules(store):
    state, expected = store.get("digits@1").state("model"), made.net().state_dict()

    assert state._metadata == expected._metadata
    same(state, expected, "model")


def test_training_state_goes_back_into_live_objects(store):
    model, shuffling = made.net(), torch.Generator()
    for parameter in model.parameters():
        parameter.data.zero_()
    optimizer = made.optimizer(model)
    for state in optimizer.state.values():
        state["exp_avg"].zero_()
    for group in optimizer.param_groups:
        group["lr"] = 1.0

    store.get("digits@1").restore(model, optimizer, shuffling=shuffling, rng=True)
    drawn = draw()

    expected = made.net()
    same(OrderedDict(model.state_dict()), OrderedDict(expected.state_dict()), "model")
    same(optimizer.state_dict()["state"], made.optimizer(expected).state_dict()["state"], "state")
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    same(shuffling.get_state(), made.generator().get_state(), "shuffling")
    made.seed()
    assert drawn == draw()


def test_every_kind_of_value(store):
    same(store.get("digits@1").extra, made.extra(), "extra")
    same(store.get("digits@1").state("scheduler"), made.scheduler().state, "scheduler")


def test_every_dtype(store):
    entry, expected = store.get("Sweep/lr=0.1@1"), made.dtypes()
    expected["slice"] = expected["slice"].contiguous()  # memory between its elements is not kept
    expected["conjugate"] = expected["conjugate"].resolve_conj()

    same(entry.state("model"), expected, "model")
    same(entry.state("newer"), made.newer_dtypes().state, "newer")


def test_a_run_is_found_in_any_case_and_spelled_as_it_was(store):
    assert store.get("sweep/LR=0.1@latest").ref == "Sweep/lr=0.1@1"


def test_a_tensor_of_several_chunks(store):
    state = store.get("sharded@1").state("model")

    same(state, {"w": made.sharded().requires_grad_()}, "model")


def test_package(store):
    package = store.load_package(Net, "digits@prod", device="cpu")

    assert isinstance(package, Package)
    assert package.class_names == ["zero", "one", 2, "größer", "4"]
    assert package.preprocessing is not None
    same(package.preprocessing["mean"], np.array([0.0, 0.5, 1.0]), "mean")
    same(package.preprocessing["std"], np.array([1.0, 2.0, 4.0]), "std")
    assert package.metadata["package"]["sample_shape"] == [3]


def draw() -> tuple[float, float, list[float]]:
    """A number from each of the process's generators."""
    return random.random(), float(np.random.random()), torch.rand(2).tolist()  # noqa: S311, NPY002 - the global ones


def same(one: Any, other: Any, path: str) -> None:
    """Assert that two states are equal in type, order and every bit."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.requires_grad) == (
            other.dtype, other.shape, other.requires_grad
        ), path  # fmt: skip
        assert one.stride() == other.stride() or one.numel() == 0, path
        assert raw(one) == raw(other), path
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.flags.fortran) == (
            other.dtype, other.shape, other.flags.fortran
        ), path  # fmt: skip
        assert one.tobytes() == other.tobytes(), path
    elif isinstance(one, dict):
        assert [repr(key) for key in one] == [repr(key) for key in other], path
        assert getattr(one, "_metadata", None) == getattr(other, "_metadata", None), path
        assert getattr(one, "default_factory", None) == getattr(other, "default_factory", None)
        for key in one:
            same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)) or hasattr(one, "maxlen"):
        assert len(one) == len(other), path
        assert getattr(one, "maxlen", None) == getattr(other, "maxlen", None), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{path}/{index}")
    elif isinstance(one, (set, frozenset, Counter)):
        assert one == other, path
    else:
        assert repr(one) == repr(other), path


def raw(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
