"""Whether an optimizer's state has torch's layout, so that its parameters are known by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def is_kept_as_torchs(optimizer: torch.optim.Optimizer, state: Any) -> bool:
    """Say whether an optimizer's state is its own, in torch's layout, and is put back as such.

    Not so that of a wrapper around other optimizers, which keep the state: it alone knows how to
    put it back.

    Args:
        optimizer: Any.
        state: What its ``state_dict()`` gave.
    """
    if not has_torchs_layout(state) or not has_own_state(optimizer):
        return False
    gives_torchs = type(optimizer).state_dict is torch.optim.Optimizer.state_dict
    return gives_torchs or len(state["state"]) == len(optimizer.state)


def has_own_state(optimizer: object) -> bool:
    """Say whether an optimizer has what torch's have, and what its state is put into."""
    return isinstance(getattr(optimizer, "state", None), Mapping) and isinstance(
        getattr(optimizer, "defaults", None), Mapping
    )


def has_torchs_layout(state: Any) -> bool:
    """Say whether an optimizer's state numbers its parameters through all its groups."""
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not isinstance(state.get("state"), dict):
        return False
    numbers: list[Any] = []
    for group in groups:
        if not isinstance(group, dict) or not isinstance(group.get("params"), list):
            return False
        if not _are_names(group.get("param_names"), len(group["params"])):
            return False
        numbers += group["params"]
    return numbers == list(range(len(numbers)))


def _are_names(names: Any, count: int) -> bool:
    """Say whether that is a name for each of a group's parameters, or none at all."""
    return names is None or (
        isinstance(names, (list, tuple))
        and len(names) in (0, count)
        and all(isinstance(name, str) for name in names)
    )
