"""Saved state back into the live objects it came from: all of it checked first, then applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ckptstore.errors import IntegrityError, MismatchError
from ckptstore.format.manifest import PartInfo
from ckptstore.loading.fit import fit
from ckptstore.loading.load import load_state
from ckptstore.loading.manifest import OpenManifest
from ckptstore.state import rng
from ckptstore.state.keywords import is_generator
from ckptstore.state.modules import class_name, raw_state, unwrap
from ckptstore.state.optimizers import Groups, given_names, match, parameter_names, place, reorder
from ckptstore.text import plain

RNG_PART = "rng"
EXTRA_PART = "extra"
# State of torch's own optimizers that has its parameter's shape (torch/optim/*.py).
SHAPED_LIKE_PARAMETER = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_inf",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
    }
)


@dataclass(frozen=True)
class Overridden:
    """A hyperparameter of the script that the checkpoint replaced."""

    name: str
    """E.g. ``optimizer/param_groups/0/lr``."""
    script: Any
    checkpoint: Any


@dataclass(frozen=True)
class Audit:
    """What a restore did and did not do."""

    restored: tuple[str, ...] = ()
    """Parts that were put back, the generators of the process (``rng``) included."""
    not_asked_for: tuple[str, ...] = ()
    """Parts that were saved and that nobody asked for."""
    overridden: tuple[Overridden, ...] = ()
    """Hyperparameters of optimizers that the checkpoint replaced."""
    environment: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """What differs between then and now: name -> (then, now)."""


@dataclass(frozen=True)
class Loaded:
    """A version's state in memory, every byte of it checked, nothing touched yet."""

    opened: OpenManifest
    states: Mapping[str, Any]
    parameters: Mapping[str, Groups | None]
    """Parameters of each optimizer by name, as they were saved."""
    tags: tuple[str, ...] = ()
    """The tags that pointed at the version when it was looked up."""


def fetch_states(
    opened: OpenManifest, names: Sequence[str], *, if_saved: Sequence[str] = ()
) -> Loaded:
    """Read and check the parts asked for, and those of *if_saved* that the version has.

    Raises:
        VersionNotFoundError: The version has no such part.
        IntegrityError: Some bytes are not what was saved.
    """
    kinds = {info.name: info.kind for info in opened.head.parts}
    wanted = [*names, *(name for name in if_saved if name in kinds)]
    # Mapped memory may be unaligned for some kernels, so training never gets any.
    states = {name: load_state(opened, name, map_files=False) for name in wanted}
    parameters = {
        name: opened.part(name).parameters for name in names if kinds[name] == "optimizer"
    }
    return Loaded(opened, states, parameters)


@dataclass(frozen=True)
class Plan:
    """How each part's state goes into its object; making it changes nothing."""

    loaded: Loaded
    parts: Mapping[str, Any]
    numbers: Mapping[str, list[list[int]]]
    """For each optimizer, which saved parameter each of its own is."""
    overridden: tuple[Overridden, ...]


def make_plan(loaded: Loaded, parts: Mapping[str, Any]) -> Plan:
    """Compare every part with the object it is to go into.

    Raises:
        MismatchError: Something does not fit; it lists every mismatch of every part.
    """
    infos = {info.name: info for info in loaded.opened.head.parts}
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    problems: list[str] = []
    numbers: dict[str, list[list[int]]] = {}
    overridden: list[Overridden] = []
    for name, part in parts.items():
        state = loaded.states[name]
        mismatches = _kind_problems(part, infos[name], state)
        if not mismatches and isinstance(part, torch.nn.Module):
            mismatches = _module_problems(part, state, name)
        elif not mismatches and isinstance(part, torch.optim.Optimizer):
            present = parameter_names(part, modules)
            saved = loaded.parameters[name] or _unnamed(state)
            given = given_names(state["param_groups"]), given_names(part.param_groups)
            numbers[name], mismatches = match(saved, present, given)
            mismatches += _optimizer_problems(part, state, numbers[name], saved)
            if not mismatches:
                overridden += _overridden(name, part, reorder(state, numbers[name]))
        problems += [f"{name}: {problem}" for problem in mismatches]
    if problems:
        raise MismatchError(
            f"{loaded.opened.head.ref} does not fit what it was to be restored into",
            problems,
            "Nothing was changed. Build the objects as they were built for that training, or "
            "load single "
            "parts with checkpoint.state(part).",
        )
    return Plan(loaded, parts, numbers, tuple(overridden))


def apply(plan: Plan) -> Audit:
    """Put every part's state in place; the process's generators last.

    Modules take their values in place, each tensor straight to its parameter's device; optimizers
    let their old state go before the new one is placed, so a device never holds both.
    """
    loaded = plan.loaded
    order = sorted(plan.parts, key=lambda name: _rank(plan.parts[name]))
    states = dict(loaded.states)
    for name in order:
        part, state = plan.parts[name], states.pop(name)
        if isinstance(part, torch.nn.Module):
            _load_module(part, state)
        elif isinstance(part, torch.optim.Optimizer):
            place(part, reorder(state, plan.numbers[name]))
        else:
            _load_object(part, state)
    if RNG_PART in states:
        rng.apply(states[RNG_PART])
    saved = {info.name for info in loaded.opened.head.parts}
    restored = (*plan.parts, *([RNG_PART] if RNG_PART in states else []))
    return Audit(
        restored=restored,
        not_asked_for=tuple(sorted(saved - set(restored) - {EXTRA_PART, RNG_PART})),
        overridden=plan.overridden,
    )


def _rank(part: object) -> int:
    if isinstance(part, torch.nn.Module):
        return 0
    return 1 if isinstance(part, torch.optim.Optimizer) else 2


def _kind_problems(part: object, info: PartInfo, state: Any) -> list[str]:
    """Say whether a part was saved by another kind of thing than it is to go into."""
    if isinstance(part, torch.nn.Module):
        fits = info.kind in ("module", "state_dict")
    elif isinstance(part, torch.optim.Optimizer):
        fits = info.kind == "optimizer" and _same_class(info, part)
    elif is_generator(part):
        fits = info.kind == "generator" and info.class_name == class_name(part)
    else:
        fits = info.kind == "object" and _same_class(info, part)
    if not fits:
        saver = plain(info.class_name or "a state dict")
        return [f"saved by {saver}, and this is {class_name(part)}"]
    if isinstance(part, torch.optim.Optimizer) and not _has_torchs_layout(state):
        problem = "its state has not the layout of torch's optimizers, so its parameters can't be "
        return [f"{problem}matched; hand checkpoint.state({info.name!r}) to its load_state_dict()"]
    if not is_generator(part) and not callable(getattr(part, "load_state_dict", None)):
        return [f"{class_name(part)} has no load_state_dict()"]
    if info.kind == "generator":
        drawn, draws = _source_of(part, state)
        if drawn != draws:
            return [f"saved from {plain(str(drawn))}, and this draws from {draws}"]
    return []


def _same_class(info: PartInfo, part: object) -> bool:
    # By the last word: a script's own class is of __main__ in one process and of its module in
    # another.
    return info.class_name is None or (
        info.class_name.rpartition(".")[2] == class_name(part).rpartition(".")[2]
    )


def _has_torchs_layout(state: Any) -> bool:
    """Say whether an optimizer's state numbers its parameters through all its groups."""
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not isinstance(state.get("state"), dict):
        return False
    numbers: list[Any] = []
    for group in groups:
        if not isinstance(group, dict) or not isinstance(group.get("params"), list):
            return False
        numbers += group["params"]
    return numbers == list(range(len(numbers)))


def _source_of(part: Any, state: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a generator's saved state was drawn from, and what it itself draws from."""
    if isinstance(part, torch.Generator):
        return torch.device(state["device"]).type, part.device.type
    return state["bit_generator"]["bit_generator"], type(part.bit_generator).__name__


def _module_problems(module: torch.nn.Module, state: Any, name: str) -> list[str]:
    if not isinstance(state, Mapping):
        return [f"its state is a {type(state).__qualname__}, and should be a dict"]
    raw = raw_state(module, state, getattr(state, "_metadata", {}))
    try:
        found = fit(module, raw, f"part {name!r}")
    except MismatchError as error:
        return list(error.problems)
    own: Mapping[str, Any] = found.own
    return [
        f"{key!r} is {own[key].dtype}, and was saved as {raw[key].dtype}; convert the module first"
        for key in found.adopted
        if own[key].dtype != raw[key].dtype
    ]


def _optimizer_problems(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    numbers: list[list[int]],
    saved: Groups,
) -> list[str]:
    if not type(optimizer).__module__.startswith("torch.optim"):
        return []  # a class of one's own may keep anything under those keys
    names = [name for group in saved for name in group]
    problems = []
    for group, wanted in zip(optimizer.param_groups, numbers, strict=False):
        for parameter, number in zip(group["params"], wanted, strict=True):
            called = repr(names[number]) if names[number] else f"parameter {number}"
            problems += [
                f"{key!r} of {called} has shape {list(value.shape)}, and the parameter has "
                f"{list(parameter.shape)}"
                for key, value in state["state"].get(number, {}).items()
                if key in SHAPED_LIKE_PARAMETER
                and isinstance(value, torch.Tensor)
                and value.dim()
                and value.shape != parameter.shape
            ]
    return problems


def _overridden(
    name: str, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> list[Overridden]:
    found = []
    for index, (mine, saved) in enumerate(
        zip(optimizer.param_groups, state["param_groups"], strict=True)
    ):
        for key, value in mine.items():
            if key in ("params", "param_names", "initial_lr") or key not in saved:
                continue
            if not _same(value, saved[key]):
                found.append(Overridden(f"{name}/param_groups/{index}/{key}", value, saved[key]))
    return found


def _same(one: object, other: object) -> bool:
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    """Return a hyperparameter so that it can be compared: tensors and arrays as numbers."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _unnamed(state: Mapping[str, Any]) -> Groups:
    return tuple((None,) * len(group["params"]) for group in state["param_groups"])


def _load_module(module: torch.nn.Module, state: Mapping[str, Any]) -> None:
    # In place, on the module's own device and in its own memory; hooks and extra state run too.
    result = module.load_state_dict(
        raw_state(module, state, getattr(state, "_metadata", {})), strict=False
    )
    if result.missing_keys or result.unexpected_keys:
        raise IntegrityError(
            f"{type(unwrap(module)).__qualname__}: its loading code did not use "
            f"{result.unexpected_keys} and did "
            f"not find {result.missing_keys}"
        )


def _load_object(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(torch.frombuffer(bytearray(state["state"]), dtype=torch.uint8))
    elif hasattr(part, "bit_generator") and not hasattr(part, "load_state_dict"):
        part.bit_generator.state = state["bit_generator"]
    else:
        part.load_state_dict(state)
