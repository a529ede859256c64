"""Modules under plain names: wrappers are taken off by type, at any depth, never by string."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch

ASSIGN = "assign_to_params_buffers"


def inner_name(module: torch.nn.Module) -> str | None:
    """Return the attribute under which a wrapper holds its module, None for any other module."""
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return "module"
    # A compiled module can only exist once this was imported, and importing it takes a second.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return "_orig_mod"
    return None


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside any number of wrappers."""
    while (name := inner_name(module)) is not None:
        module = getattr(module, name)
    return module


def class_name(thing: object) -> str:
    """Return module and qualified name of a thing's class, for people; it is never imported."""
    kind = type(unwrap(thing) if isinstance(thing, torch.nn.Module) else thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def plain_names(module: torch.nn.Module) -> PlainNames:
    """Return the mapping from a module's own names to plain ones."""
    wrappers = [
        (f"{prefix}.{inner}." if prefix else f"{inner}.", f"{prefix}." if prefix else "")
        for prefix, child in _named_modules(module, "")
        if (inner := inner_name(child)) is not None
    ]
    # Longest first: an inner wrapper's prefix is spelled with the outer ones still in it.
    return PlainNames(sorted(wrappers, key=lambda pair: -len(pair[0])))


class PlainNames:
    """Takes the wrappers' own path components out of names."""

    def __init__(self, wrappers: list[tuple[str, str]]) -> None:
        self._wrappers = wrappers

    def __call__(self, name: str) -> str:
        """Return the plain name of a parameter, buffer or module."""
        path = name + "."
        for wrapped, plain in self._wrappers:
            if path.startswith(wrapped):
                path = plain + path[len(wrapped) :]
        return path[:-1]


def plain_state(module: torch.nn.Module) -> Mapping[str, Any]:
    """Return a module's state dict under plain names, ``_metadata`` included."""
    names = plain_names(module)
    raw = module.state_dict()
    state: OrderedDict[str, Any] = OrderedDict((names(key), value) for key, value in raw.items())
    metadata: OrderedDict[str, Any] = OrderedDict()
    for key, value in getattr(raw, "_metadata", {}).items():
        metadata[names(key)] = value
    state._metadata = metadata  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
    return unassigned(state)


def unassigned(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state dict without the mark that ``load_state_dict(assign=True)`` leaves in it.

    It stands in the metadata and makes a later plain load assign too
    (torch/nn/modules/module.py, ``_load_from_state_dict``).
    """
    metadata = getattr(state, "_metadata", None)
    if type(state) is not OrderedDict or not isinstance(metadata, dict):
        return state
    cleaned: OrderedDict[str, Any] = OrderedDict(state)
    cleaned._metadata = type(metadata)(  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
        (key, {k: v for k, v in value.items() if k != ASSIGN} if type(value) is dict else value)
        for key, value in metadata.items()
    )
    return cleaned


def raw_state(
    module: torch.nn.Module, state: Mapping[str, Any], metadata: Mapping[str, Any]
) -> OrderedDict[str, Any]:
    """Return a state dict under plain names as one under the names *module* itself uses."""
    names = plain_names(module)
    own = {names(key): key for key in module.state_dict()}
    raw: OrderedDict[str, Any] = OrderedDict(
        (own.get(key, key), value) for key, value in state.items()
    )
    modules = {names(key): key for key, _ in _named_modules(module, "")}
    raw._metadata = OrderedDict(  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
        (modules.get(key, key), dict(value)) for key, value in metadata.items()
    )
    return raw


def _named_modules(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.nn.Module]]:
    yield prefix, module
    for name, child in module._modules.items():  # noqa: SLF001 - named_children() skips shared modules
        if child is not None:
            yield from _named_modules(child, f"{prefix}.{name}" if prefix else name)
