"""Constructor arguments: recorded by a class that asks for it, or said to be unknown."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ckptstore.errors import UnsupportedValueError
from ckptstore.format.tree import encode

ATTRIBUTE = "_ckptstore_init_args"
REASON = "_ckptstore_init_args_unrecorded"

C = TypeVar("C", bound=type)


def remember_init(cls: C) -> C:
    """Make a class record the arguments its instances were built with.

    ::

        @ckptstore.remember_init
        class SimpleNN(nn.Module):
            def __init__(self, width: int = 32): ...

    ``store.save(SimpleNN(width=64))`` then needs no ``model_config=``. Arguments are recorded by
    parameter name, defaults included, and copied when the instance is built, so changing them later
    changes nothing. A subclass that is not decorated itself records nothing.

    Args:
        cls: The class; it is changed in place and returned.

    Raises:
        TypeError: It has no ``__init__`` whose parameters can be read.
    """
    kind: Any = cls  # a class whose __init__ we replace is none that mypy can follow
    original = kind.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is cls:
            recorded = _bind(signature, self, args, kwargs)
            name, value = (REASON, recorded) if isinstance(recorded, str) else (ATTRIBUTE, recorded)
            object.__setattr__(self, name, value)
        original(self, *args, **kwargs)

    kind.__init__ = init
    return cls


def remembered(thing: object) -> dict[str, Any] | None:
    """Return the arguments that a decorated class recorded, None if there are none.

    An argument that can't be kept or passed by name leaves nothing recorded; see
    :func:`unrecorded`. One that is the parameter's own default is left to the constructor.
    """
    recorded: dict[str, Any] | None = getattr(thing, "__dict__", {}).get(ATTRIBUTE)
    return recorded


def unrecorded(thing: object) -> str | None:
    """Return why a decorated class recorded nothing, None if it did or isn't decorated."""
    reason: str | None = getattr(thing, "__dict__", {}).get(REASON)
    return reason


def required_parameters(factory: Callable[..., object]) -> list[str]:
    """Return the parameters that a class's constructor needs and has no defaults for."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def accepted(factory: Callable[..., object], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that a callable takes by name."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return arguments
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    named = {
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return {name: value for name, value in arguments.items() if name in named}


def _bind(
    signature: inspect.Signature, self: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | str | None:
    """Return the arguments by name, or a word on the one that can't be recorded."""
    try:
        bound = signature.bind(self, *args, **kwargs)
    except TypeError:
        return None  # the constructor itself is about to raise the better error
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.POSITIONAL_ONLY or (
            kind is inspect.Parameter.VAR_POSITIONAL and value
        ):
            return f"{name!r} can't be passed by name"
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = value
    for name, value in list(named.items()):
        try:
            encode(value, name)
        except UnsupportedValueError as error:
            if name not in signature.parameters or value is not signature.parameters[name].default:
                return str(error)
            del named[name]
    # What has a tree holds plain values alone, so it can be copied, and that costs little.
    return copy.deepcopy(named)
