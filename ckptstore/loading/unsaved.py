"""Tensors that a module holds beside its state dict: attributes, tables, what hooks close over."""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Container, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import torch

# From these the whole process can be reached, and nothing a module owns.
_OUTSIDE = (type, ModuleType, FrameType, CodeType, logging.Logger)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device)
_PASSED = (*_PLAIN, *_OUTSIDE)


def unsaved_tensors(module: torch.nn.Module, saved: Container[int]) -> Iterator[torch.Tensor]:
    """Yield every tensor reachable from a module that is not part of its state.

    Looks into non-persistent buffers and every attribute, of tensors too, through containers,
    objects, closures, hooks and modules that are hidden in them; not into globals.

    Args:
        module: With all its submodules.
        saved: The ids of the tensor objects that its state dict holds.
    """
    registered = list(module.modules())
    known = {id(child) for child in registered}
    stack: list[Any] = []
    for child in registered:
        for name, value in vars(child).items():
            if name in ("_parameters", "_buffers"):
                stack.extend(value.values())
            elif name != "_modules":
                stack.append(value)
    seen: set[int] = set()
    alive: list[Any] = []  # what getters make on the fly must not give its id to the next object
    while stack:
        value = stack.pop()
        if isinstance(value, _PASSED) or id(value) in seen or id(value) in known:
            continue
        seen.add(id(value))
        alive.append(value)
        if isinstance(value, torch.Tensor) and id(value) not in saved:
            yield value
        stack.extend(_held_by(value))


def _held_by(value: object) -> list[Any]:
    if isinstance(value, torch.Tensor):
        # Attributes that people put on it, and its hooks, which the collector does not see.
        hooks = ("_backward_hooks", "_post_accumulate_grad_hooks")
        return [vars(value), *(getattr(value, name, None) for name in hooks)]
    if isinstance(value, FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return [*cells, *(value.__defaults__ or ()), value.__kwdefaults__, value.__dict__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return gc.get_referents(value)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
