"""State dicts of others: told by their form, and their keys put in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.errors import ArgumentError

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel, DDP and torch.compile put before every key."""
EXTRA_STATE = "_extra_state"
"""Where a module keeps state of its own that need be no tensor (torch/nn/modules/module.py)."""


def is_module_state(value: object) -> bool:
    """Say whether something has the form of a module's state dict: tensors by name."""
    if not isinstance(value, Mapping) or not value:
        return False
    tensors = 0
    for key, item in value.items():
        if not isinstance(key, str):
            return False
        if isinstance(item, torch.Tensor):
            tensors += 1
        elif not key.endswith(EXTRA_STATE):
            return False
    return tensors > 0


def is_optimizer_state(value: object) -> bool:
    """Say whether something has the form of an optimizer's state dict."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("state"), Mapping)
        and isinstance(value.get("param_groups"), list)
    )


def without_wrappers(state: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Take wrappers' prefixes off, if every key has them.

    Returns:
        The state dict, itself if there was nothing to do; and what was taken off.
    """
    taken = ""
    if not state or not all(isinstance(key, str) for key in state):
        return state, taken  # of no keys, all have every prefix, and for ever
    while prefix := next(
        (each for each in WRAPPERS if all(key.startswith(each) for key in state)), None
    ):
        state = _with_keys(state, {prefix: ""})
        taken += prefix
    return state, taken


def renamed(state: Mapping[str, Any], rename: Mapping[str, str]) -> Mapping[str, Any]:
    """Put other beginnings in the place of keys' beginnings; the longest that fits counts.

    Raises:
        ArgumentError: No key begins so, or two keys would be one.
    """
    if not all(isinstance(key, str) for key in state):
        raise ArgumentError(f"rename={dict(rename)!r:.200}: not all of the model's keys are names")
    for before in rename:
        if not any(key.startswith(before) for key in state):
            raise ArgumentError(
                f"rename={{{before!r}: …}}: no key of the model begins so; its first is "
                f"{next(iter(state), None)!r}"
            )
    made = _with_keys(state, rename)
    if len(made) != len(state):
        raise ArgumentError(f"rename={dict(rename)!r:.200}: two keys of the model would be one")
    return made


def tied(state: Mapping[str, Any], ties: Mapping[str, str]) -> Mapping[str, Any]:
    """Add keys that are other names of tensors that the state dict has.

    Raises:
        ArgumentError: The tensor is not there, or the new key is.
    """
    made = _copy(state, dict(state))
    for new, old in ties.items():
        if old not in state:
            raise ArgumentError(f"ties={{{new!r}: {old!r}}}: the model has no {old!r}")
        if new in state:
            raise ArgumentError(f"ties={{{new!r}: …}}: the model has {new!r} already")
        made[new] = state[old]
    return made


def _with_keys(state: Mapping[str, Any], rename: Mapping[str, str]) -> Mapping[str, Any]:
    longest_first = sorted(rename.items(), key=lambda pair: -len(pair[0]))

    def name(key: str, dot: str = "") -> str:
        path = key + dot if key else ""
        for before, after in longest_first:
            if path.startswith(before):
                return (after + path[len(before) :]).removesuffix(dot or "\0")
        return key

    made = _copy(state, {name(key): value for key, value in state.items()})
    metadata = getattr(state, "_metadata", None)
    if isinstance(metadata, Mapping):
        # Keys are modules here: "module.fc" beside "module.fc.weight", and "" for all of it. That
        # of a wrapper goes where what it wraps has its own.
        kept = {
            name(key, ".") if isinstance(key, str) else key: value
            for key, value in metadata.items()
        }
        made._metadata = OrderedDict(kept)  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
    return made


def _copy(state: Mapping[str, Any], items: Mapping[str, Any]) -> OrderedDict[str, Any]:
    made = OrderedDict(items)
    if hasattr(state, "_metadata"):
        made._metadata = state._metadata  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
    return made
