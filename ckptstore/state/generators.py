"""Random generators that are parts: torch's, NumPy's and Python's, as trees and back."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.state.rng import put_python_state, python_state

# NumPy makes pools of 4 words (numpy/random/bit_generator.pyx); nobody needs more than a few.
MOST_POOL_WORDS = 1024
MT19937_WORDS = 624
SEED_SEQUENCE = "seed_sequence"


def generator_state(generator: Any) -> dict[str, Any]:
    """Return a generator's state as a tree of plain values.

    Of a NumPy generator its seed sequence too, which its state has not: ``spawn`` draws on it.
    """
    if isinstance(generator, torch.Generator):
        return {
            "device": str(generator.device),
            "state": bytes(generator.get_state().numpy().tobytes()),
        }
    if isinstance(generator, random.Random):
        return python_state(generator)
    if _is_random_state(generator):
        return {"bit_generator": generator.get_state(legacy=False)}
    state = {"bit_generator": generator.bit_generator.state}
    sequence = generator.bit_generator.seed_seq
    if type(sequence) is sys.modules["numpy"].random.SeedSequence:
        state[SEED_SEQUENCE] = dict(sequence.state)
    return state


def generator_problems(generator: Any, state: Mapping[str, Any]) -> list[str]:
    """Say what keeps a saved state, or seed sequence, from being one that a generator can take."""
    if isinstance(generator, random.Random) or _is_random_state(generator):
        # They check what they are given only as they take it.
        trial = random.Random() if isinstance(generator, random.Random) else _like(generator)  # noqa: S311 - draws nothing
        try:
            _check_position(state)
            restore_generator(trial, state)
        except (TypeError, ValueError, LookupError, OverflowError, struct.error) as error:
            return [f"its state is none that {type(generator).__qualname__} takes: {error}"]
        return []
    if SEED_SEQUENCE not in state:
        return []
    try:
        _seed_sequence(state[SEED_SEQUENCE])
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        return [f"its seed sequence is none that NumPy makes: {error}"]
    return []


def restore_generator(generator: Any, state: Mapping[str, Any]) -> None:
    """Put a generator where another of its kind stood.

    Args:
        generator: One of torch, NumPy or Python.
        state: From :func:`generator_state`, without :func:`generator_problems`.
    """
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.frombuffer(bytearray(state["state"]), dtype=torch.uint8))
        return
    if isinstance(generator, random.Random):
        put_python_state(generator, state)
        return
    if _is_random_state(generator):
        generator.set_state(state["bit_generator"])
        return
    source = generator.bit_generator
    source.state = state["bit_generator"]
    if SEED_SEQUENCE in state:
        import numpy as np

        # What unpickling calls. Before NumPy 2 it takes no seed sequence, and children that are
        # spawned later are those of the generator as it was built.
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            source.__setstate__((state["bit_generator"], _seed_sequence(state[SEED_SEQUENCE])))


def _check_position(state: Mapping[str, Any]) -> None:
    """Refuse a place behind the words of a Mersenne Twister, which NumPy would read from."""
    words = state["bit_generator"]["state"] if "bit_generator" in state else {}
    if "pos" in words and not 0 <= words["pos"] <= len(words["key"]) == MT19937_WORDS:
        raise ValueError(f"place {words['pos']} of {len(words['key'])} words")


def _is_random_state(generator: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(generator, numpy.random.RandomState)


def _like(generator: Any) -> Any:
    """Return another ``RandomState``, over bits of the same kind."""
    import numpy as np

    kind = generator.get_state(legacy=False)["bit_generator"]
    return np.random.RandomState(getattr(np.random, kind)(0))


def _seed_sequence(fields: Mapping[str, Any]) -> Any:
    import numpy as np

    if not 0 < fields["pool_size"] <= MOST_POOL_WORDS:  # which NumPy allocates at once
        raise ValueError(f"a pool of {fields['pool_size']} words")
    return np.random.SeedSequence(**fields)
