"""Modules under plain names: wrappers are taken off by type, at any depth, never by string."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import parametrize

from ckptstore.state.metrics import has_weights

ASSIGN = "assign_to_params_buffers"
CHECKPOINTED = "_checkpoint_wrapped_module"


def inner_name(module: torch.nn.Module) -> str | None:
    """Return the attribute under which a wrapper holds its module, None for any other module."""
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return "module"
    # A compiled module can only exist once this was imported, and importing it takes a second.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return "_orig_mod"
    # One that recomputes its activations (checkpoint_wrapper), or keeps them on the CPU.
    recompute = sys.modules.get("torch.distributed.algorithms._checkpoint.checkpoint_wrapper")
    if recompute is not None and isinstance(module, recompute.ActivationWrapper):
        return CHECKPOINTED
    return None


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside any number of wrappers."""
    while (name := inner_name(module)) is not None:
        module = getattr(module, name)
    return module


def class_name(thing: object) -> str:
    """Return module and qualified name of a thing's class, for people; it is never imported."""
    if isinstance(thing, torch.nn.Module):
        # A parametrization puts a class of its own in front of a module's.
        kind = parametrize.type_before_parametrizations(unwrap(thing))
    else:
        kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True)
class _Place:
    """A module in a tree of modules, and how its path is spelled."""

    module: torch.nn.Module
    path: str
    """With every wrapper's own component, as ``named_modules()`` has it."""
    saved: str
    """As its state dict spells it: wrappers that recompute activations leave theirs out."""
    plain: str
    """Without any wrapper's."""


def plain_names(module: torch.nn.Module) -> PlainNames:
    """Return the mapping from a module's own names to plain ones."""
    return PlainNames(_places(module))


class PlainNames:
    """Takes the wrappers' own path components out of names, or puts them in.

    Args:
        places: Every module of a tree, its wrappers included.
    """

    def __init__(self, places: Iterable[_Place]) -> None:
        places = list(places)
        self._wrapped = {
            _dotted(path): _dotted(place.plain)
            for place in places
            for path in (place.path, place.saved)
            if path != place.plain
        }
        # A wrapper comes before what it holds, so the last of a plain path is the module itself.
        self._saved = {_dotted(place.plain): _dotted(place.saved) for place in places}
        self._paths = {place.plain: place.path for place in places}

    def __bool__(self) -> bool:
        """Say whether there is any wrapper."""
        return bool(self._wrapped)

    def __call__(self, name: str) -> str:
        """Return the plain name of a parameter, buffer or module."""
        return _respelled(f"{name}.", self._wrapped)[:-1] if self._wrapped else name

    def saved(self, name: str) -> str:
        """Return the name that a plain one has in the module's own state dict."""
        return _respelled(name, self._saved) if self._wrapped else name

    def path(self, plain: str) -> str:
        """Return the path of the module with a plain path, wrappers included."""
        return self._paths.get(plain, plain)


def _dotted(path: str) -> str:
    return f"{path}." if path else ""


def _respelled(name: str, spellings: Mapping[str, str]) -> str:
    """Return a name with the longest start that has another spelling spelled so."""
    end = len(name)
    while (end := name.rfind(".", 0, end)) >= 0:
        if (other := spellings.get(name[: end + 1])) is not None:
            return other + name[end + 1 :]
    return spellings.get("", "") + name


def unkept_buffers(parts: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return, by module part, the names of its buffers that are not persistent."""
    found: dict[str, tuple[str, ...]] = {}
    for name, part in parts.items():
        if not has_weights(part):
            continue
        plain = plain_names(part)
        names = [
            plain(_dotted(path) + buffer)
            for path, module in part.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
            for buffer in sorted(module._non_persistent_buffers_set)  # noqa: SLF001 - the one place that knows
            if module._buffers.get(buffer) is not None  # noqa: SLF001 - as above
        ]
        if names:
            found[name] = tuple(names)
    return found


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
    # What hooks call a thing is theirs to say, so the module's own keys come first.
    own = {names(key): key for key in module.state_dict()} if names else {}
    raw: OrderedDict[str, Any] = OrderedDict(
        (own.get(key) or names.saved(key), value) for key, value in state.items()
    )
    raw._metadata = OrderedDict(  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
        (names.path(key), dict(value)) for key, value in metadata.items()
    )
    return raw


def _places(
    module: torch.nn.Module, path: str = "", saved: str = "", plain: str = ""
) -> Iterator[_Place]:
    yield _Place(module, path, saved, plain)
    inner = inner_name(module)
    for name, child in module._modules.items():  # noqa: SLF001 - named_children() skips shared modules
        if child is None:
            continue
        yield from _places(
            child,
            _dotted(path) + name,
            saved if inner == name == CHECKPOINTED else _dotted(saved) + name,
            plain if inner == name else _dotted(plain) + name,
        )
