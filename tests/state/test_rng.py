"""Random generators: every one in use comes back, and looking moves none."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch

from ckptstore import Store
from ckptstore.format.tree import encode
from ckptstore.format.untree import decode
from ckptstore.state import rng


def draws():
    return (
        random.random(),  # noqa: S311 - the generator that is tested
        random.gauss(0, 1),
        np.random.rand(),  # noqa: NPY002 - the generator that is tested
        np.random.randn(),  # noqa: NPY002 - the global one
        torch.rand(1).item(),
        torch.randn(3).tolist(),
    )


@pytest.mark.parametrize("odd", [False, True])
def test_what_is_drawn_next_is_drawn_again(odd):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global one
    torch.manual_seed(3)
    if odd:  # the second of a pair of normal numbers is kept for later
        random.gauss(0, 1)
        np.random.randn()  # noqa: NPY002 - the global one
    state = decode(encode(rng.capture(), "rng"), "here")
    first = draws()
    rng.apply(state)
    assert draws() == first


def test_looking_moves_nothing():
    before = rng.capture()
    rng.capture()
    assert rng.capture() == before


def test_what_is_drawn_inside_leaves_no_trace():
    def fail():
        with rng.forked():
            draws()
            raise KeyError

    before = rng.capture()
    with rng.forked():
        draws()
    with pytest.raises(KeyError):
        fail()
    assert rng.capture() == before


@pytest.mark.parametrize(
    ("draw", "written"),
    [
        (lambda: None, []),
        (random.random, ["python"]),
        (lambda: torch.rand(1), ["torch"]),
        (np.random.rand, ["numpy"]),
    ],
    ids=["none", "python", "torch", "numpy"],
)
def test_only_a_generator_that_moved_is_written_to(monkeypatch, draw, written):
    found = []
    for name, module, setter in (
        ("python", random, "setstate"),
        ("torch", torch, "set_rng_state"),
        ("numpy", np.random, "set_state"),
    ):
        real = getattr(module, setter)
        monkeypatch.setattr(
            module, setter, lambda state, n=name, r=real: (found.append(n), r(state))
        )
    before = rng.capture()
    with rng.forked():
        draw()

    assert found == written
    assert rng.capture() == before


def test_of_several_gpus_only_those_that_moved_are_written_to(monkeypatch):
    states = {0: b"a", 1: b"b", 2: b"c"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_rng_state", lambda index: torch.tensor(list(states[index])).byte()
    )
    written = []
    monkeypatch.setattr(
        torch.cuda,
        "set_rng_state",
        lambda state, index: written.append((index, bytes(state.tolist()))),
    )
    with rng.forked():
        states[1] = b"x"

    assert written == [(1, b"b")]


def test_a_state_is_small_and_plain():
    state = rng.capture()
    assert state["python"]["words"] == struct.pack("<625I", *random.getstate()[1])
    assert len(state["torch"]) == len(torch.get_rng_state())
    assert "cuda" not in state or torch.cuda.is_available()


def test_another_generator_set_as_numpys_global_one_is_passed_over(tmp_path):
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(7))
        state = rng.capture()
        assert "numpy" not in state
        rng.apply(state)
        Store(tmp_path).save({"a": 1})
    finally:
        np.random.set_bit_generator(before)


def test_generators_of_ones_own_come_back(tmp_path):
    sampler, augment, old = (
        torch.Generator().manual_seed(3),
        np.random.default_rng(3),
        np.random.Generator(np.random.MT19937(3)),
    )
    store = Store(tmp_path)
    store.save({"a": 1}, sampler=sampler, augment=augment, old=old)
    first = torch.rand(2, generator=sampler).tolist(), augment.random(2).tolist(), old.random()
    store.resume(sampler=sampler, augment=augment, old=old)
    assert (
        torch.rand(2, generator=sampler).tolist(),
        augment.random(2).tolist(),
        old.random(),
    ) == first
