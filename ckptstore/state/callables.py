"""Objects with state of their own behind what a scheduler or an average calls."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

# Modules, optimizers and schedulers are parts of a training anyway; nothing changes of the rest.
_NO_STATE = (
    torch.nn.Module,
    torch.optim.Optimizer,
    LRScheduler,
    torch.Tensor,
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
    PurePath,
    enum.Enum,
    type,
)


def holders(function: object) -> Iterator[tuple[str, object]]:
    """Yield the objects with state behind a callable, and how it holds each.

    Behind a bound method is its object, behind a partial function are the function and the
    arguments, behind a cached one is the function. What a function closes over is not looked at.

    Args:
        function: What is called. If it is an object with state itself, it is yielded, held as "".
    """
    yield from _holders(function, "")


def _holders(value: Any, held: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, MethodType):
        yield from _holders(value.__self__, f"behind the bound method {value.__name__}()")
    elif isinstance(value, functools.partial):
        for each in (value.func, *value.args, *value.keywords.values()):
            yield from _holders(each, "in a functools.partial")
    elif isinstance(value, functools._lru_cache_wrapper):  # noqa: SLF001 - the type of what lru_cache returns has no other name
        yield from _holders(value.__wrapped__, "behind a cached function")
    elif _has_state(value):
        yield held, value


def _has_state(value: Any) -> bool:
    """Say whether an object has attributes of its own that may change."""
    frozen: Any = getattr(type(value), "__dataclass_params__", None)  # what dataclass() leaves
    if isinstance(value, _NO_STATE) or (frozen is not None and frozen.frozen):
        return False
    return bool(getattr(value, "__dict__", None)) or has_slots(value)


def has_slots(value: object) -> bool:
    """Say whether an object has a value in one of its class's ``__slots__``."""
    return any(
        isinstance(slot, MemberDescriptorType) and hasattr(value, name)
        for kind in type(value).__mro__
        if "__slots__" in vars(kind)
        for name, slot in vars(kind).items()
    )
