"""Generators that are parts: where they stand, and what they would spawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ckptstore import Store
from ckptstore.errors import ArgumentError, MismatchError
from ckptstore.state.generators import generator_problems, generator_state, restore_generator


def twister(words, position):
    """Return the state of a Mersenne Twister with so many words, that stands there."""
    state = {"key": np.zeros(words, np.uint32), "pos": position}
    state = {"bit_generator": "MT19937", "state": state, "has_gauss": 0, "gauss": 0.0}
    return {"bit_generator": state}


def drawn(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(3, generator=generator).tolist()
    if isinstance(generator, random.Random):
        return [generator.gauss(0, 1) for _ in range(3)]  # an odd number: one is kept for later
    if isinstance(generator, np.random.RandomState):
        return generator.standard_normal(3).tolist()
    return generator.random(3).tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: torch.Generator().manual_seed(seed),
        lambda seed: np.random.Generator(np.random.PCG64(seed)),
        lambda seed: np.random.Generator(np.random.MT19937(seed)),
        np.random.RandomState,
        lambda seed: np.random.RandomState(np.random.PCG64(seed)),
        random.Random,
    ],
)
def test_a_generator_draws_on_from_where_another_stood(make, tmp_path):
    one, other = make(1), make(2)
    drawn(one)
    Store(tmp_path).save(None, source=one).restore(None, source=other)
    assert drawn(other) == drawn(one)


def test_what_asks_the_system_has_no_state_to_keep(tmp_path):
    with pytest.raises(ArgumentError, match="SystemRandom is neither a part"):
        Store(tmp_path).save(None, source=random.SystemRandom())


@pytest.mark.parametrize(
    ("saved", "other"),
    [
        (random.Random(1), np.random.RandomState(1)),  # noqa: S311 - no secret
        (np.random.RandomState(1), np.random.default_rng(1)),
        (np.random.RandomState(1), np.random.RandomState(np.random.PCG64(1))),
    ],
)
def test_a_generator_of_another_kind_is_a_mismatch(tmp_path, saved, other):
    checkpoint = Store(tmp_path).save(None, source=saved)
    with pytest.raises(MismatchError, match=r"saved (by|from)"):
        checkpoint.restore(None, source=other)


@pytest.mark.parametrize(
    ("make", "changed"),
    [
        (random.Random, {"words": b"1234"}),
        (random.Random, {"words": b"\xff" * 2500}),
        (random.Random, {"words": b"123"}),
        (random.Random, {"words": None}),
        (random.Random, {"version": 9}),
        (np.random.RandomState, {"bit_generator": {"bit_generator": "MT19937"}}),
        (np.random.RandomState, twister(3, 0)),
        (np.random.RandomState, twister(625, 0)),
        (np.random.RandomState, twister(624, 5000)),
        (np.random.RandomState, twister(624, -1)),
    ],
)
def test_a_state_that_is_none_is_refused_and_nothing_is_touched(
    tmp_path, monkeypatch, make, changed
):
    one, other = make(1), make(2)
    state = generator_state(one) | changed
    monkeypatch.setattr("ckptstore.saving.capture.generator_state", lambda _: state)
    checkpoint = Store(tmp_path).save(None, source=one)
    with pytest.raises(MismatchError, match="its state is none that"):
        checkpoint.restore(None, source=other)

    assert drawn(other) == drawn(make(2))


def test_a_generator_spawns_the_children_that_come_next(tmp_path):
    one, other = np.random.default_rng([1, 2]), np.random.default_rng(3)
    one.spawn(2)
    Store(tmp_path).save(None, source=one)
    Store(tmp_path).latest().restore(None, source=other)
    assert [drawn(child) for child in other.spawn(2)] == [drawn(child) for child in one.spawn(2)]


def test_a_seed_sequence_of_another_kind_is_left_as_it_is():
    class Own(np.random.SeedSequence):
        pass

    generator = np.random.Generator(np.random.PCG64(Own(1)))
    assert generator_state(generator).keys() == {"bit_generator"}
    sequence = generator.bit_generator.seed_seq
    restore_generator(generator, generator_state(generator))
    assert generator.bit_generator.seed_seq is sequence


@pytest.mark.parametrize(
    "changed",
    [
        {"pool_size": 2**40},
        {"pool_size": 0},
        {"pool_size": "4"},
        {"entropy": "text"},
        {"entropy": -1},
        {"n_children_spawned": 2**80},
        {"more": 1},
    ],
)
def test_a_seed_sequence_that_is_none_is_refused_and_nothing_is_touched(
    tmp_path, monkeypatch, changed
):
    one, other = np.random.default_rng(1), np.random.default_rng(2)
    state = generator_state(one)
    state["seed_sequence"].update(changed)
    (problem,) = generator_problems(one, state)
    assert problem.startswith("its seed sequence is none that NumPy makes")

    monkeypatch.setattr("ckptstore.saving.capture.generator_state", lambda _: state)
    checkpoint = Store(tmp_path).save(None, source=one)
    before = other.bit_generator.state
    with pytest.raises(MismatchError):
        checkpoint.restore(None, source=other)
    assert other.bit_generator.state == before


def test_a_state_without_a_seed_sequence_is_whole():
    assert generator_problems(np.random.default_rng(1), {"bit_generator": {}}) == []
