"""Dicts in dicts: where a model lies deeper than usual, or bare beside other things. Pure."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from ckptstore.importing.plain import Held
from ckptstore.importing.state_dicts import is_module_state

ONLY = re.compile(r"(?i)(model_?)?(state_?dicts?|states?|weights)")
"""What a dict's only key is called that is around a state dict."""
PARAMETER = re.compile(r"(^|\.)(weight|bias)$|\.")
"""What one key at least of a bare state dict looks like."""
MAX_DEPTH = 6
MAX_SHOWN = 3


class Flat(NamedTuple):
    """A dict with its model at the top, as far as that could be."""

    rest: dict[Any, Any]
    held: Mapping[str, Held]
    notes: list[str]
    """What was moved, one sentence each."""


def flat(rest: Mapping[Any, Any], held: Mapping[str, Held], is_fact: Callable[[str], bool]) -> Flat:
    """Take what lies one dict too deep out of it.

    ``{"model": {"state_dict": …}}`` is the model's state dict, and ``{"checkpoint": {…}}`` is what
    it holds, if there is a model in it and none beside it.

    Args:
        rest: A checkpoint's dict; it is not changed.
        held: Which values in it were objects, by path.
        is_fact: Says whether a key is that of an epoch, a step or a metric.
    """
    made, notes = dict(rest), list[str]()
    for key, value in rest.items():
        if str(key) not in held and isinstance(value, Mapping) and len(value) == 1:
            ((inner, state),) = value.items()
            path = f"{key}/{inner}"
            if isinstance(inner, str) and ONLY.fullmatch(inner) and isinstance(state, Mapping):
                made[key] = state
                held = _moved(held, path, str(key))
    if _has_model(made, held, ""):
        return Flat(made, held, notes)
    around = [
        key
        for key, value in made.items()
        if isinstance(value, Mapping) and _has_model(value, held, f"{key}/")
    ]
    if len(around) == 1 and not made.keys() & made[around[0]].keys() - {around[0]}:
        (key,) = around
        inside = made.pop(key)
        notes.append(f"what {str(key)!r} holds was taken as if it lay at the top")
        return Flat({**made, **inside}, _moved(held, str(key), ""), notes)
    bare = _bare(made, is_fact)
    if bare is not None:
        state, made = bare
        notes.append(
            f"{len(state)} tensors beside other values were taken for the model's state dict"
        )
        made = {"state_dict": state, **made}
    return Flat(made, held, notes)


def states_in(value: object) -> list[str]:
    """Return the paths, as ``keys=`` has them, of the first few state dicts in nested dicts."""
    return [path for path, _ in zip(_states(value, "", 0), range(MAX_SHOWN), strict=False)]


def _states(value: object, path: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH or not isinstance(value, Mapping):
        return
    for key, item in value.items():
        if isinstance(key, str):
            here = f"{path}/{key}" if path else key
            if is_module_state(item):
                yield here
            else:
                yield from _states(item, here, depth + 1)


def _has_model(value: Mapping[Any, Any], held: Mapping[str, Held], above: str) -> bool:
    return any(
        is_module_state(item)
        or (f"{above}{key}" in held and held[f"{above}{key}"].kind == "module")
        for key, item in value.items()
    )


def _bare(
    rest: Mapping[Any, Any], is_fact: Callable[[str], bool]
) -> tuple[OrderedDict[str, Any], dict[Any, Any]] | None:
    """Part a state dict from what was added to it, None if it doesn't look like that."""
    state: OrderedDict[str, Any] = OrderedDict()
    others: dict[Any, Any] = {}
    for key, value in rest.items():
        is_weight = isinstance(key, str) and isinstance(value, torch.Tensor) and not is_fact(key)
        (state if is_weight else others)[key] = value
    if len(state) < len(others) or not any(map(PARAMETER.search, state)):
        return None
    if hasattr(rest, "_metadata"):
        state._metadata = rest._metadata  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
    return state, others


def _moved(held: Mapping[str, Held], before: str, after: str) -> dict[str, Held]:
    """Return objects by path, those below one path below another."""
    moved = {}
    for path, each in held.items():
        if path == before:
            moved[after or path] = each
        elif path.startswith(f"{before}/"):
            below = path[len(before) + 1 :]
            moved[f"{after}/{below}" if after else below] = each
        else:
            moved.setdefault(path, each)
    return moved
