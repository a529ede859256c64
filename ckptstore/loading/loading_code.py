"""A module's own loading code, run: ``load_state_dict`` with everything it calls."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ckptstore.key_report import KeyReport
from ckptstore.loading.fit import Fit, mismatch, overrides
from ckptstore.loading.tensors import put_by_hand
from ckptstore.state.modules import plain_names


def run_loading_code(
    module: torch.nn.Module, state: Mapping[str, Any], found: Fit, what: str, *, assign: bool
) -> KeyReport:
    """Run a module's ``load_state_dict``: overrides, hooks and extra state.

    How strict an override is, is for it to say; where something may be left it is asked not to be.

    Args:
        module: The module.
        state: Under the module's own names, with ``_metadata``; it may be written into.
        found: How the two go together.
        what: Names the saved state in errors.
        assign: Whether tensors become the module's, instead of being copied into its own.

    Returns:
        What was left as it was.

    Raises:
        MismatchError: Something was passed over that must not be.
        RuntimeError: How torch reports shapes, and an override its keys.
    """
    handed: Any = OrderedDict(
        (name, value) for name, value in state.items() if name not in found.dropped
    )
    handed._metadata = getattr(state, "_metadata", OrderedDict())  # noqa: SLF001 - where torch keeps it
    if not assign:
        put_by_hand(found.own, found.adopted, handed)
    if overrides(module, "load_state_dict"):
        lax = {"strict": False} if found.is_partial and _takes_strict(module) else {}
        module.load_state_dict(handed, **lax)
        return found.report
    loaded = module.load_state_dict(handed, strict=False, assign=assign)
    missing = [name for name in loaded.missing_keys if name not in found.left_out]
    unexpected = list(loaded.unexpected_keys)
    if found.is_strict and (missing or unexpected):
        raise mismatch(
            module,
            what,
            [f"{name!r} is in the module, and loading did not find it" for name in missing]
            + [f"{name!r} was saved, and loading did not use it" for name in unexpected],
        )
    return _settled(module, found, set(loaded.missing_keys), missing, unexpected)


def _settled(
    module: torch.nn.Module,
    found: Fit,
    gone: set[str],
    missing: list[str],
    unexpected: list[str],
) -> KeyReport:
    """Return what was left once code that decides about names of its own has decided."""
    if not found.is_partial:
        return found.report
    plain, report = plain_names(module), found.report
    decided = {plain(name) for name in found.left_out if found.is_custom(name) and name not in gone}

    def still(names: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
        listed = [*(name for name in names if name not in decided), *map(plain, more)]
        return tuple(dict.fromkeys(listed))

    return replace(
        report,
        missing=still(report.missing, missing),
        unexpected=still(report.unexpected, unexpected),
        left_out=still(report.left_out, []),
    )


def _takes_strict(module: torch.nn.Module) -> bool:
    parameters = inspect.signature(module.load_state_dict).parameters.values()
    return any(
        each.name == "strict" or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters
    )
