"""Which keys of modules a save keeps: the trainable ones, or those that patterns name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ckptstore.errors import ArgumentError
from ckptstore.format.keys import keys_of
from ckptstore.format.paths import tensors_by_path
from ckptstore.format.untree import tensor_places
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.ownerless import memories
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
        owners = _owners(part, module)
        lost = [key for key in part.unchosen if any(id(each) in trained for each in owners[key])]
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
        frozen = _frozen(part, given)
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


def _frozen(part: CapturedPart, module: Any) -> set[str]:
    """Return the keys of a module's parameters that require no gradient.

    Raises:
        ArgumentError: It is no module, or none of them does.
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(
            f"only='trainable': part {part.name!r} is a state dict, which doesn't say what is "
            "trained: pass the module, or patterns of its keys"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ArgumentError(
            f"only='trainable': no parameter of part {part.name!r} requires gradients, so all of "
            "them would be left out; name the parts that it is about: only={'model': 'trainable'}"
        )
    return {
        key
        for key, owners in _owners(part, module).items()
        if owners and not any(parameter.requires_grad for parameter in owners)
    }


def _owners(part: CapturedPart, module: torch.nn.Module) -> dict[str, list[torch.nn.Parameter]]:
    """Return for each key of a module's state the parameters that it is the value of.

    Those are the ones of the same memory, whatever a hook of the module calls it; else the one of
    that name, whose value may be a copy. A buffer's key has none.
    """
    names = plain_names(module)
    named: dict[str, torch.nn.Parameter] = {}
    by_memory: dict[object, list[torch.nn.Parameter]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        named[names(name)] = parameter
        for memory in memories(parameter):
            by_memory.setdefault(memory, []).append(parameter)
    buffers = {names(name) for name, _ in module.named_buffers(remove_duplicate=False)}
    nodes = tensors_by_path(part.tree)
    owners: dict[str, list[torch.nn.Parameter]] = {}
    for key in keys_of(part.tree) or ():
        held = [part.tensors[place] for place in tensor_places(nodes.get(key))]
        found = [
            one for each in held for memory in memories(each) for one in by_memory.get(memory, ())
        ]
        by_name = [named[key]] if key in named else []
        owners[key] = [] if key in buffers else found or by_name
    return owners
