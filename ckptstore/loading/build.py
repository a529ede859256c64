"""A module from its class and its saved state: built without wasted work, checked bit by bit."""

from __future__ import annotations

import copy
import functools
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn.parameter import is_lazy

from ckptstore.errors import IntegrityError
from ckptstore.key_report import KeyReport
from ckptstore.loading.construct import Make, construct_plainly, construct_skipping
from ckptstore.loading.fit import (
    NOTHING_LEFT,
    Fit,
    Leave,
    fit,
    mismatch,
    overrides,
    prefixes,
)
from ckptstore.loading.loading_code import run_loading_code
from ckptstore.loading.tensors import (
    copied,
    copied_value,
    copies_into,
    copy_into,
    is_plain,
    memory,
    place,
    same_bits,
    same_memory,
    stand_in,
    writes,
)
from ckptstore.loading.unsaved import unsaved_tensors
from ckptstore.state.devices import on_cpu
from ckptstore.state.modules import raw_state
from ckptstore.state.rng import forked

# Where a parameter or buffer sits: its module, its name there, its name in the whole, itself.
Slot = tuple[torch.nn.Module, str, str, torch.Tensor]


@dataclass(frozen=True)
class Built:
    """A module with its saved state.

    Attributes:
        module: In eval mode, on the device asked for.
        plainly: Why its random initialisation was not skipped; None where it was.
        report: What of it stayed as the class made it, though a value was asked for.
    """

    module: torch.nn.Module
    plainly: str | None
    report: KeyReport = NOTHING_LEFT


def build(
    make: Make,
    state: Mapping[str, object],
    *,
    device: torch.device,
    metadata: Mapping[str, object] | None = None,
    what: str,
    mode: Literal["auto", "plain"] = "auto",
    leave: Leave | None = None,
    check: Callable[[], object] = bool,
) -> Built:
    """Build a module and give it its saved state.

    The module adopts the tensors of *state*: on the CPU it shares their memory, and nothing is
    copied. Ends with the same bits whether random initialisation was skipped or not. No random
    generator is moved.

    Args:
        make: Builds the module; class and constructor arguments are bound in it.
        state: The state dict as saved, in its order: tensors on the CPU, each with a storage of its
            own; tied names may hold one tensor. It may hold other values as extra state.
        device: Where the module goes.
        metadata: The saved state dict's ``_metadata``.
        what: Names the state in errors, e.g. ``part 'model' of digits@7``.
        mode: ``"plain"`` builds the module as its class does it, without skipping anything.
        leave: What may stay as the class makes it; None for nothing that was saved.
        check: Is called before anything looks at the values in *state*, or gives them away; what it
            raises ends the building. Until then they may be unchecked.

    Raises:
        MismatchError: The module does not fit; it lists every mismatch.
        UsageError: The class raised; its own error is the cause.
        IntegrityError: The module ended with another tensor than was saved.
    """
    # Built on the CPU whatever the caller's default device is, and out of inference mode: what is
    # made in it could never be trained.
    load = functools.partial(
        _load,
        state=state,
        metadata=metadata or {},
        device=device,
        what=what,
        leave=leave,
        check=check,
    )
    with torch.inference_mode(mode=False), on_cpu(), forked():
        reason: str | None = "asked for"
        if mode == "auto":
            module, reason = construct_skipping(make)
            if module is not None:
                found = load(module, skipped=True)
                if isinstance(found, KeyReport):
                    return Built(module, None, found)
                reason = found
            del module
        module = construct_plainly(make, what)
        found = load(module, skipped=False)
        return Built(module, reason, found if isinstance(found, KeyReport) else NOTHING_LEFT)


def _load(
    module: torch.nn.Module,
    *,
    state: Mapping[str, object],
    metadata: Mapping[str, Any],
    device: torch.device,
    what: str,
    leave: Leave | None,
    check: Callable[[], object],
    skipped: bool,
) -> KeyReport | str:
    """Give a new module its state.

    Returns:
        What was left, or why a module whose random initialisation was *skipped* must be built
        plainly; it is then unusable.
    """
    # Wrappers inside of it (torch.compile) have names of their own.
    state = raw_state(module, state, metadata)
    metadata = getattr(state, "_metadata", {})
    found = fit(module, state, what, leave, check=check)
    if skipped and found.unsettled:
        return f"{found.unsettled[0]!r} is left to the module's own loading code"
    alone = _left_alone(found)
    if skipped and alone:
        return f"{alone[0]!r} is not loaded, so it stays as the class makes it"
    check()
    given = _apart(found, state)
    overlapping = _overlapping(module, found)
    found = _adopt(module, found, given, overlapping)
    slots = list(_slots(module))
    report = _run_loading_code(module, found, given, metadata, what)
    kept = _put_back(found, slots, overlapping)
    if skipped and kept:
        return f"{kept[0]!r} keeps what the class made it"
    # A tensor shares its memory with what it is compared to: only its version tells of a write.
    written = {name: writes(tensor) for name, tensor in _adopted(module, found)}
    module.to(device)
    module.eval()
    _check(module, found, given, written, what)
    return report


def _apart(found: Fit, state: Mapping[str, object]) -> dict[str, object]:
    """Return the state with tensors copied that would come to share memory without being tied.

    Equal tensors may be stored once, which says nothing about ties: the module does.
    """
    owners: dict[int, object] = {}
    apart: dict[str, object] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            apart[name] = copied_value(value)  # loading code may change it
            continue
        mine = found.own.get(name)
        owner = place(mine) if isinstance(mine, torch.Tensor) else name
        shared = owners.setdefault(memory(value), owner) != owner
        # Memory written by no one outside inference mode has no version counter to watch.
        apart[name] = copied(value) if shared or value.is_inference() else value
    return apart


def _left_alone(found: Fit) -> list[str]:
    """Return the names of tensors that get no saved value, by no other name either."""
    own: Mapping[str, Any] = found.own
    taken = {place(own[name]) for name in found.adopted}
    return [
        name
        for name in found.left_out
        if isinstance(own[name], torch.Tensor) and place(own[name]) not in taken
    ]


def _overlapping(module: torch.nn.Module, found: Fit) -> set[int]:
    """Return the storages of which more than one view is held: in the state or beside it."""
    own = {name: each for name, each in found.own.items() if isinstance(each, torch.Tensor)}
    tensors = list(own.values())
    views = {place(tensor) for tensor in tensors if not is_lazy(tensor)}
    counts = Counter(where[0] for where in views)
    overlapping = {memory(tensor) for tensor in tensors if not is_lazy(tensor)}
    overlapping = {storage for storage in overlapping if counts[storage] > 1}
    adopting = {id(found.own[name]) for name in found.adopted}
    left = [tensor for name, tensor in own.items() if name in found.left_out]
    beside = [
        *(tensor for tensor in left if id(tensor) not in adopting),
        *unsaved_tensors(module, {id(tensor) for tensor in tensors}),
    ]
    return overlapping | {memory(tensor) for tensor in beside if not is_lazy(tensor)}


def _take(mine: torch.Tensor, value: torch.Tensor, overlapping: set[int]) -> None:
    """Give one of the module's tensors another's memory, or, where that would be wrong, values."""
    if not is_lazy(mine) and memory(mine) in overlapping and copies_into(mine, value):
        # Something else of the module looks at this memory: it is to see the saved values.
        copy_into(mine, value)
        return
    if not (value.is_floating_point() or value.is_complex()):
        mine.requires_grad = False  # integers have no gradient
    mine.data = value


def _adopt(
    module: torch.nn.Module, found: Fit, given: Mapping[str, Any], overlapping: set[int]
) -> Fit:
    """Make the module's tensors use the memory of the given ones.

    Those that can't, because one of the two is sparse, quantised or a subclass, are replaced,
    wherever the module holds them.

    Returns:
        What was found, with the tensors that the module holds now.
    """
    own: dict[str, Any] = dict(found.own)
    # Places first: adopting one of two tied tensors parts them until the other follows.
    places = {name: place(own[name]) for name in found.adopted}
    taken: dict[tuple[object, ...], torch.Tensor] = {}
    replaced: dict[int, torch.Tensor] = {}
    for name in found.adopted:
        mine, value = own[name], taken.setdefault(places[name], given[name])
        if is_plain(mine) and is_plain(value):
            _take(mine, value, overlapping)
        elif memory(mine) in overlapping and copies_into(mine, value):
            copy_into(mine, value)
        else:
            replaced.setdefault(id(mine), stand_in(mine, value))
    if not replaced:
        return found
    for owner, name, _, tensor in list(_slots(module)):
        if id(tensor) in replaced:
            setattr(owner, name, replaced[id(tensor)])
    return replace(found, own={name: replaced.get(id(each), each) for name, each in own.items()})


def _run_loading_code(
    module: torch.nn.Module,
    found: Fit,
    given: Mapping[str, Any],
    metadata: Mapping[str, Any],
    what: str,
) -> KeyReport:
    """Run ``load_state_dict`` with everything it calls: overrides, hooks, extra state.

    Adopted tensors are handed in as the module's own objects, which assigns each to itself.
    """
    adopted = set(found.adopted)
    handed: OrderedDict[str, Any] = OrderedDict(
        (name, found.own[name] if name in adopted else value) for name, value in given.items()
    )
    # A copy: torch writes assign_to_params_buffers into it.
    handed._metadata = copy.deepcopy(OrderedDict(metadata))  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
    try:
        return run_loading_code(module, handed, found, what, assign=True)
    except RuntimeError as error:  # how torch reports shapes, and an overridden load its keys
        raise mismatch(module, what, [str(error)]) from error


def _slots(module: torch.nn.Module) -> Iterator[Slot]:
    for prefix, owner in module.named_modules():
        for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:  # noqa: SLF001 - as torch loads
            if tensor is not None:
                yield owner, name, f"{prefix}.{name}" if prefix else name, tensor


def _held(owner: torch.nn.Module, name: str) -> torch.Tensor | None:
    # By "in": the tables of a scripted module have no get().
    for table in (owner._parameters, owner._buffers):  # noqa: SLF001 - as torch loads
        if name in table:
            return table[name]
    return None


def _put_back(found: Fit, slots: list[Slot], overlapping: set[int]) -> list[str]:
    """Return the module's own objects to where loading code put others.

    They take those objects' memory, so that ties and other references to them hold.

    Returns:
        Names that loading code decides about and that are still as the class made them.
    """
    originals = {id(tensor) for *_, tensor in slots}
    owner_of: dict[int, torch.Tensor] = {}
    instead: dict[int, torch.Tensor] = {}  # of those whose memory can't be taken
    passed = {*found.adopted, *found.left_out}
    kept: list[str] = []
    for owner, name, key, original in slots:
        current = _held(owner, name)
        if current is original:
            if key in found.own and key not in passed and not is_lazy(current):
                kept.append(key)
        elif current is not None and id(current) not in originals:
            if not (is_plain(original) and is_plain(current)):
                setattr(owner, name, instead.setdefault(id(original), current))
                continue
            tensor = owner_of.setdefault(id(current), original)
            _take(tensor, current.data, overlapping)
            setattr(owner, name, tensor)
    return kept


def _adopted(module: torch.nn.Module, found: Fit) -> Iterator[tuple[str, torch.Tensor]]:
    now = torch.nn.Module.state_dict(module, keep_vars=True)
    for name in found.adopted:
        if name in now:
            yield name, now[name]


def _check(
    module: torch.nn.Module,
    found: Fit,
    given: Mapping[str, Any],
    written: Mapping[str, int],
    what: str,
) -> None:
    """Compare what the module ended with and what was saved.

    Raises:
        IntegrityError: A tensor differs, and no code of the module's own can have meant it.
    """
    meant = prefixes(module, lambda child: overrides(child, "train", "eval", "set_extra_state"))
    now = dict(_adopted(module, found))
    for name in found.adopted:
        tensor = now.get(name)
        if name.startswith(meant) or (
            tensor is not None
            and writes(tensor) == written.get(name)
            and (same_memory(tensor, given[name]) or same_bits(tensor, given[name]))
        ):
            continue
        raise IntegrityError(
            f"{what}: {name!r} is not what was saved once the module is built: its memory was "
            "changed on the way. Load again; if it recurs, look for code of the module that writes "
            "to its weights when moved (_apply, to)"
        )
