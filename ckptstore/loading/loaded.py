"""A version's state in memory: as much of it as was asked for, every byte checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptstore.described import NOTHING_LATER
from ckptstore.errors import VersionNotFoundError
from ckptstore.format.facts import VersionFacts
from ckptstore.loading.choice import EVERYTHING, Choice
from ckptstore.loading.chosen import Chosen, chosen_state
from ckptstore.loading.pinned import CPU, has_room, takes
from ckptstore.manifest import OpenManifest
from ckptstore.state.environment import device_types
from ckptstore.state.metrics import has_weights
from ckptstore.state.optimizers import Groups
from ckptstore.text import plain

# How many times its size a GPU must have free for a module's values to be sent there first: the
# copy, two moments of each parameter, and one for what else there is.
ROOM = 4


@dataclass(frozen=True)
class Loaded:
    """A version's state in memory, every byte of it checked, nothing touched yet."""

    opened: OpenManifest
    chosen: Mapping[str, Chosen]
    parameters: Mapping[str, Groups | None]
    """Parameters of each optimizer by name, as they were called in the modules."""
    choices: Mapping[str, Choice]
    """What is to be put back of each module part."""
    not_saved: tuple[str, ...] = ()
    """Parts asked for that the version does not have: their objects stay as they are."""
    facts: VersionFacts = NOTHING_LATER
    """What was recorded about the version later, as of when it was looked up."""
    strict: bool = True
    """Whether what does not fit is refused; else it is left as it is, and told."""
    mapped: frozenset[str] = frozenset()
    """Parts whose tensors are mapped, and may not be kept."""

    @property
    def states(self) -> dict[str, Any]:
        """The state of each part."""
        return {name: chosen.state for name, chosen in self.chosen.items()}


@dataclass(frozen=True)
class Ways:
    """How parts that are copied into memory that is there come to it; all others are read."""

    mapped: frozenset[str] = frozenset()
    """Their tensors may be mapped: nobody may keep them."""
    devices: Mapping[str, torch.device] = field(default_factory=dict)
    """Their tensors are sent to a device."""


READ = Ways()


def ways_in(parts: Mapping[str, Any]) -> Ways:
    """Return how parts come into the objects that are there; see the two functions below."""
    devices = sent_first(parts)
    return Ways(frozenset(copied_in(parts)) - {*devices}, devices)


def fetch_states(
    opened: OpenManifest,
    names: Sequence[str],
    *,
    if_saved: Sequence[str] = (),
    strict: bool = True,
    choices: Mapping[str, Choice] | None = None,
    ways: Ways = READ,
) -> Loaded:
    """Read and check the parts asked for, and those of *if_saved* that the version has.

    Args:
        opened: The version.
        names: The parts asked for.
        if_saved: Parts that a version may well lack.
        strict: Whether a version must have all of *names*.
        choices: What is to be read of module parts, where that is not all.
        ways: How parts come into memory that is there.

    Raises:
        VersionNotFoundError: The version lacks a part, and *strict* is true.
        IntegrityError: Some bytes are not what was saved.
    """
    kinds = {info.name: info.kind for info in opened.head.parts}
    not_saved = tuple(name for name in (*names, *if_saved) if name not in kinds)
    missing = [name for name in not_saved if name in names]
    if missing and strict:
        there = ", ".join(repr(plain(name)) for name in kinds) or "none"
        raise VersionNotFoundError(
            f"{opened.head.ref} has no part {', '.join(map(repr, missing))}; it has {there}. "
            "strict=False goes on without, and leaves the objects of parts it lacks as they are"
        )
    wanted = [name for name in (*names, *if_saved) if name in kinds]
    choices = choices or {}
    chosen = {
        name: chosen_state(
            opened,
            name,
            choices.get(name, EVERYTHING),
            map_files=name in ways.mapped,
            device=ways.devices.get(name, CPU),
        )
        for name in wanted
    }
    parameters = {
        name: opened.part(name).parameters for name in names if kinds.get(name) == "optimizer"
    }
    return Loaded(opened, chosen, parameters, choices, not_saved, strict=strict, mapped=ways.mapped)


def copied_in(parts: Mapping[str, Any]) -> list[str]:
    """Return the parts into which values are copied, so that what is read need not be kept.

    These are mapped and checked where they lie, and then copied once. A module has its memory. An
    optimizer lets its old state go before the new comes, one tensor after the other, so that there
    is never more than one of both; one that has none yet takes what is read for its own.
    """
    return [
        name
        for name, part in parts.items()
        if has_weights(part)
        or (
            isinstance(part, torch.optim.Optimizer)
            and (bool(getattr(part, "state", None)) or device_types(_parameters(part)) != ["cpu"])
        )
    ]


def sent_first(parts: Mapping[str, Any]) -> dict[str, torch.device]:
    """Return the modules whose values are sent to their GPU before they are copied in, and it.

    There all of it is checked, in memory of its own, before the module is touched; so the GPU must
    have room for that copy, and for an optimizer's moments after it. Optimizers let their old state
    go before they get the new, so nothing of it is sent before that.
    """
    found = {}
    for name, part in parts.items():
        tensors = [*part.parameters(), *part.buffers()] if has_weights(part) else []
        devices = {tensor.device for tensor in tensors}
        if len(devices) == 1 and not any(map(is_lazy, tensors)):
            (device,) = devices
            if takes(device) and has_room(device, ROOM * sum(each.nbytes for each in tensors)):
                found[name] = device
    return found


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
