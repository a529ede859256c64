"""Which keys of modules a save keeps: the trainable ones, or those that patterns name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ckptstore.errors import ArgumentError
from ckptstore.format.keys import keys_of
from ckptstore.saving.capture import CapturedPart
from ckptstore.state.key_patterns import listed, matches, meant, patterns_of, per_part
from ckptstore.state.modules import plain_names

TRAINABLE = "trainable"


def select(parts: Mapping[str, Any], captured: Sequence[CapturedPart], only: Any) -> None:
    """Mark the keys of module parts that need not be saved.

    ``"trainable"`` marks the parameters that require no gradient, and nothing else: buffers change
    in training too. Patterns mark all keys that they don't fit.

    Args:
        parts: As handed to ``save``, by name.
        captured: The same, captured; those that are modules are marked.
        only: As handed to ``save``; a dict says it for single parts.

    Raises:
        ArgumentError: It makes no sense, fits nothing in one of the parts, or there is no module.
    """
    if only is None or only == {}:
        return
    chosen = [part for part in captured if part.kind in ("module", "state_dict")]
    if not chosen:
        raise ArgumentError("only= is about the keys of modules, and none was given")
    said = per_part("only", only, [part.name for part in chosen])
    for part in chosen:
        wanted = said(part.name)
        if wanted is not None:
            part.unchosen = _unchosen(part, parts.get(part.name), wanted)


def trained_and_left_out(parts: Mapping[str, Any], captured: Sequence[CapturedPart]) -> list[str]:
    """Return a warning for each module of which keys are marked that an optimizer trains."""
    trained = {
        id(parameter)
        for part in parts.values()
        if isinstance(part, torch.optim.Optimizer)
        for group in part.param_groups
        for parameter in group["params"]
        if parameter.requires_grad
    }
    found = []
    for part in captured:
        module = parts.get(part.name)
        if not part.unchosen or not isinstance(module, torch.nn.Module):
            continue
        names, unchosen = plain_names(module), set(part.unchosen)
        lost = [
            key
            for name, parameter in module.named_parameters(remove_duplicate=False)
            if (key := names(name)) in unchosen and id(parameter) in trained
        ]
        if lost:
            found.append(
                f"only= leaves out what an optimizer trains: {listed(lost)} of part "
                f"{part.name!r}; a training that resumes from this has its optimizer's state and "
                "not these weights"
            )
    return found


def _unchosen(part: CapturedPart, given: Any, only: str | Iterable[str]) -> tuple[str, ...]:
    keys = keys_of(part.tree)
    what = f"part {part.name!r}"
    if keys is None:
        raise ArgumentError(f"only=: {what} is no state dict, so it has no keys")
    if only == TRAINABLE:
        frozen = _frozen(part.name, given)
        return tuple(key for key in keys if key in frozen)
    patterns = patterns_of("only", only)
    if not patterns:
        raise ArgumentError(f"only=[] would save nothing of {what}: leave the part out instead")
    for pattern in patterns:
        if not any(matches(pattern, key) for key in keys):
            raise ArgumentError(
                f"only={pattern!r} fits no key of {what}{meant(pattern, keys)}; it has "
                f"{listed(keys)}. Of several modules, name those that it is about: "
                f"only={{'model': {pattern!r}}}"
            )
    return tuple(key for key in keys if not any(matches(pattern, key) for pattern in patterns))


def _frozen(name: str, module: Any) -> set[str]:
    """Return the names of a module's parameters that require no gradient.

    Raises:
        ArgumentError: It is no module, or none of them does.
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(
            f"only='trainable': part {name!r} is a state dict, which doesn't say what is trained: "
            "pass the module, or patterns of its keys"
        )
    names = plain_names(module)
    parameters = list(module.named_parameters(remove_duplicate=False))
    if not any(parameter.requires_grad for _, parameter in parameters):
        raise ArgumentError(
            f"only='trainable': no parameter of part {name!r} requires gradients, so all of them "
            "would be left out; name the parts that it is about: only={'model': 'trainable'}"
        )
    return {names(key) for key, parameter in parameters if not parameter.requires_grad}
