"""Random generators that are parts of their own: torch's and NumPy's, as trees and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

# NumPy makes pools of 4 words (numpy/random/bit_generator.pyx); nobody needs more than a few.
MOST_POOL_WORDS = 1024
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
    state = {"bit_generator": generator.bit_generator.state}
    sequence = generator.bit_generator.seed_seq
    if type(sequence) is sys.modules["numpy"].random.SeedSequence:
        state[SEED_SEQUENCE] = dict(sequence.state)
    return state


def generator_problems(state: Mapping[str, Any]) -> list[str]:
    """Say what keeps a saved seed sequence from being one."""
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
        generator: A torch or NumPy one.
        state: From :func:`generator_state`, without :func:`generator_problems`.
    """
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.frombuffer(bytearray(state["state"]), dtype=torch.uint8))
        return
    source = generator.bit_generator
    source.state = state["bit_generator"]
    if SEED_SEQUENCE in state:
        import numpy as np

        # What unpickling calls. Before NumPy 2 it takes no seed sequence, and children that are
        # spawned later are those of the generator as it was built.
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            source.__setstate__((state["bit_generator"], _seed_sequence(state[SEED_SEQUENCE])))


def _seed_sequence(fields: Mapping[str, Any]) -> Any:
    import numpy as np

    if not 0 < fields["pool_size"] <= MOST_POOL_WORDS:  # which NumPy allocates at once
        raise ValueError(f"a pool of {fields['pool_size']} words")
    return np.random.SeedSequence(**fields)
