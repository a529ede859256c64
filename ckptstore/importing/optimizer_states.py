"""Optimizers' states of others: parameters as numbers, as torch has them, and their names.

torch.distributed.checkpoint spells the numbers as text, or names the parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ckptstore.state.optimizers import Groups, given_names


def numbered(state: Mapping[str, Any], model_keys: Collection[str]) -> tuple[Any, Groups | None]:
    """Return an optimizer's state with its parameters numbered through all groups, and their names.

    Args:
        state: As it was found; returned as it is where it is not torch's.
        model_keys: The keys of the model's state dict, which may be what parameters are called.

    Returns:
        The state; and for each group the name of each parameter, ``model/key`` where the model has
        that key, or None. The groups are None where the state is not torch's.
    """
    groups, by = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not isinstance(by, Mapping):
        return state, None
    if not all(isinstance(g, Mapping) and isinstance(g.get("params"), list) for g in groups):
        return state, None
    listed = [parameter for group in groups for parameter in group["params"]]
    if not all(isinstance(each, int | str) for each in listed) or len(set(listed)) != len(listed):
        return state, None
    if listed == list(range(len(listed))) and all(isinstance(key, int) for key in by):
        return state, _known(given_names(groups), model_keys)
    places: dict[Any, int] = {each: place for place, each in enumerate(listed)}
    places |= {str(each): place for each, place in places.items()}
    if not all(key in places for key in by):
        return state, None
    made, count = [], 0
    for group in groups:
        length = len(group["params"])
        made.append({**group, "params": list(range(count, count + length))})
        count += length
    names = (
        given_names(groups)
        if all(isinstance(each, int) for each in listed)
        else tuple(tuple(map(str, group["params"])) for group in groups)
    )
    ordered = sorted(((places[key], value) for key, value in by.items()), key=lambda pair: pair[0])
    return {**state, "state": dict(ordered), "param_groups": made}, _known(names, model_keys)


def _known(names: Groups, model_keys: Collection[str]) -> Groups:
    return tuple(
        tuple(f"model/{name}" if name in model_keys else name for name in group) for group in names
    )
