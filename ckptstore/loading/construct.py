"""A module built from its class: with its random initialisation skipped, or plainly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.parameter import is_lazy

from ckptstore.errors import UsageError
from ckptstore.loading.skipping import Skipping
from ckptstore.loading.unsaved import unsaved_tensors
from ckptstore.state.rng import forked

Make = Callable[[], torch.nn.Module]


def construct_skipping(make: Make) -> tuple[torch.nn.Module | None, str | None]:
    """Build a module whose parameters are going to be overwritten, without drawing random ones.

    Returns:
        The module, and None; or None, and why it must be built plainly.
    """
    mode = Skipping()
    module: object = None
    reason: str | None = None
    with forked():  # a plain build is to begin where this one did
        try:
            with mode:
                module = make()
        except Exception as error:  # noqa: BLE001 - the class's own code; a plain build shows its error
            # Only the words are kept: the traceback holds the half-built module and its memory.
            reason = f"without its random initialisation it raised {_worded(error)}"
        if reason is None:
            reason = _doubt(module, mode) if mode.skipped else _no_module(module)
        built = module if isinstance(module, torch.nn.Module) and reason is None else None
        del module
        # Of a module that is not kept, what is still alive belongs to something else.
        its_own = set() if built is None else {id(parameter) for parameter in built.parameters()}
        mode.fill_others(its_own)
    return built, reason


def construct_plainly(make: Make, what: str) -> torch.nn.Module:
    """Build a module as its class does it.

    Args:
        make: Builds it.
        what: Names it in errors.

    Raises:
        UsageError: It raised, or what it built is no module; the class's own error is the cause.
    """
    try:
        module = make()
    except Exception as error:
        raise UsageError(
            f"building the module for {what} raised {_worded(error)}. If it lacks constructor "
            "arguments or got others than it was trained with, pass them: "
            "model_config={...}, by parameter name"
        ) from error
    return checked(module, what)


def checked(module: object, what: str) -> torch.nn.Module:
    """Return the module, once it is known to be one.

    Raises:
        UsageError: It is none.
    """
    if isinstance(module, torch.nn.Module):
        return module
    raise UsageError(
        f"the callable given to build the module for {what} returned "
        f"{type(module).__qualname__}; it must return a torch.nn.Module"
    )


def _no_module(module: object) -> str | None:
    return None if isinstance(module, torch.nn.Module) else "it is no module"


def _doubt(module: object, mode: Skipping) -> str | None:
    """Say why a module built without random initialisation may differ from one built plainly."""
    if not isinstance(module, torch.nn.Module):
        return _no_module(module)
    lazy = [name for name, tensor in _named_tensors(module) if is_lazy(tensor)]
    if lazy:
        return f"{lazy[0]!r} is lazy"
    if mode.escaped is not None:
        return f"its code depends on random initial values, through {mode.escaped}"
    return _unsaved_doubt(module, mode)


def _unsaved_doubt(module: torch.nn.Module, mode: Skipping) -> str | None:
    moved = mode.generators_moved()
    saved = {id(tensor) for tensor in torch.nn.Module.state_dict(module, keep_vars=True).values()}
    for tensor in unsaved_tensors(module, saved):
        form = "lazy" if is_lazy(tensor) else f"{tensor.dtype}, shape {list(tensor.shape)}"
        if moved:
            return f"it draws random numbers and keeps a tensor that is not saved ({form})"
        if mode.depends(tensor):
            return f"a tensor that is not saved ({form}) is made from random initial values"
    return None


def _named_tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _worded(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
