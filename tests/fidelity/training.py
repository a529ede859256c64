"""A training of six steps, cut before each of them and gone on with in objects built afresh."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckptstore import Store
from ckptstore.state.generators import generator_state
from ckptstore.state.keywords import is_generator
from tests.loading.trainings import frozen

STEPS = 6


@dataclass
class Training:
    """Live objects, and what one step does with them."""

    parts: dict[str, Any]
    """What is saved and resumed, by the keywords of ``save``."""
    step: Callable[[int], float]
    """Trains the step of that number, from 0 on, and returns its loss."""


Build = Callable[[int], Training]
"""Builds a training as a script does that knows how many steps were done before."""


def goes_on(
    folder: Path,
    build: Build,
    other: Build | None = None,
    overridden: Mapping[str, tuple[object, object]] | None = None,
) -> list[str]:
    """Check that a training cut before any step goes on bit for bit.

    Args:
        folder: Where the store is to be.
        build: The training.
        other: The same training by a script with other hyperparameters.
        overridden: What the audit is to say of *other*: name -> (script, checkpoint).

    Returns:
        What was checked.
    """
    truth = _uninterrupted(build)
    store = Store(folder / "store")
    _seed(0)
    training = build(0)
    for done in range(STEPS):
        store.save(run=f"cut/{done}", step=done, **training.parts)
        training.step(done)
    assert _state(training) == truth[-1][1], "saving changed the training"
    for done in range(STEPS):
        _seed(100 + done)
        again = build(done)
        resumed = store.resume(run=f"cut/{done}", **again.parts)
        assert resumed, f"cut before step {done}: nothing was resumed"
        assert resumed.audit.overridden == (), f"cut before step {done}"
        _compare(_state(again), truth[done][1], f"cut before step {done}")
        for step in range(done, STEPS):
            loss = again.step(step).hex()
            where = f"cut before step {done}, after step {step}"
            assert loss == truth[step + 1][0], f"{where}: another loss"
            _compare(_state(again), truth[step + 1][1], where)
    checked = [_listed(training.parts), "losses", "generators"]
    if other is not None:
        _seed(99)
        again = other(STEPS - 1)
        resumed = store.resume(run=f"cut/{STEPS - 1}", **again.parts)
        said = {
            one.name: (plain(one.script), plain(one.checkpoint)) for one in resumed.audit.overridden
        }
        assert said == {
            name: (plain(mine), plain(saved)) for name, (mine, saved) in (overridden or {}).items()
        }
        _compare(_state(again), truth[STEPS - 1][1], "resumed by another script")
        checked.append("audit")
    return checked


def _uninterrupted(build: Build) -> list[tuple[str, Any]]:
    """Return the loss and the state after each step, beginning with before the first."""
    _seed(0)
    training = build(0)
    found = [("", _state(training))]
    for step in range(STEPS):
        loss = training.step(step).hex()
        found.append((loss, _state(training)))
    return found


def _state(training: Training) -> dict[str, Any]:
    return {
        **{
            name: frozen(generator_state(part) if is_generator(part) else part.state_dict())
            for name, part in training.parts.items()
        },
        "generators": _generators(),
    }


def _generators() -> Any:
    _, words, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what is saved
    return random.getstate(), words.tobytes(), rest, torch.get_rng_state().numpy().tobytes()


def _compare(found: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    for name, state in expected.items():
        assert found[name] == state, f"{where}: {name} differs"


def plain(value: Any) -> Any:
    """A hyperparameter without its tensors."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _listed(parts: Mapping[str, Any]) -> str:
    names = {"model": "weights", "optimizer": "optimizer state", "scheduler": "schedule"}
    return ", ".join(names.get(name, name) for name in parts)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what is saved
    random.seed(seed)
