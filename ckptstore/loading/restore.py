"""Saved state back into the live objects it came from: all of it checked first, then applied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from ckptstore.audit import Audit, Overridden, StateLeft
from ckptstore.errors import MismatchError
from ckptstore.key_report import KeyReport
from ckptstore.loading.choice import EVERYTHING
from ckptstore.loading.fetch import copies
from ckptstore.loading.fit import Fit, overrides, prefixes
from ckptstore.loading.frozen import of_other_values
from ckptstore.loading.loaded import Loaded
from ckptstore.loading.loading_code import run_loading_code
from ckptstore.loading.mismatches import (
    fit_module,
    kind_problems,
    object_problems,
)
from ckptstore.loading.moments import Around, Moments, left_by_scaler, plan_moments
from ckptstore.loading.overridden import of_object, of_optimizer
from ckptstore.loading.tensors import copied_value, is_plain
from ckptstore.loading.undo import Before
from ckptstore.loading.values import Values, plan_values
from ckptstore.state import loaders, rng
from ckptstore.state.generators import restore_generator
from ckptstore.state.keywords import is_generator
from ckptstore.state.metrics import has_weights, is_metric, put_metric_state
from ckptstore.state.modules import raw_state, unkept_buffers
from ckptstore.state.optimizers import VALUES, place, reorder

RNG_PART = "rng"
EXTRA_PART = "extra"


@dataclass(frozen=True)
class Plan:
    """How each part's state goes into its object; making it changes nothing."""

    loaded: Loaded
    parts: Mapping[str, Any]
    """The objects whose state was saved, by part."""
    moments: Mapping[str, Moments]
    """For each optimizer, which saved state goes onto which of its parameters."""
    values: Mapping[str, Values]
    """For each optimizer, what goes into parameters that no module has."""
    fits: Mapping[str, Fit]
    """How each module and its state go together."""
    overridden: tuple[Overridden, ...]
    left: Mapping[str, StateLeft]
    """What of the state of optimizers and scalers is not put back."""
    parts_left: Mapping[str, tuple[str, ...]]
    """Loaders that stay as they are, and why."""

    @property
    def unforeseen(self) -> list[str]:
        """The modules with loading code of their own, which may yet refuse their state."""
        return [
            name
            for name, found in self.fits.items()
            if found.custom or prefixes(self.parts[name], _sets_extra_state)
        ]


def make_plan(loaded: Loaded, parts: Mapping[str, Any]) -> Plan:
    """Compare every part with the object it is to go into.

    Raises:
        MismatchError: Something does not fit; it lists every mismatch of every part.
    """
    infos = {info.name: info for info in loaded.opened.head.parts}
    moments: dict[str, Moments] = {}
    values: dict[str, Values] = {}
    overridden: list[Overridden] = []
    saved_parts = {name: part for name, part in parts.items() if name not in loaded.not_saved}
    parts_left = {} if loaded.strict else loaders.made_otherwise(loaded.states, saved_parts)
    saved_parts = {name: part for name, part in saved_parts.items() if name not in parts_left}
    mismatches = {
        name: kind_problems(part, infos[name], loaded.states[name])
        for name, part in saved_parts.items()
    }
    fitting = {name: part for name, part in saved_parts.items() if not mismatches[name]}
    fits = _fit_modules(loaded, fitting, mismatches)
    around = Around(
        {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)},
        loaded.choices,
        loaded.chosen,
        {name: found.report.mismatched for name, found in fits.items()},
        loaded.strict,
    )
    restored = {
        id(parameter)
        for part in saved_parts.values()
        if isinstance(part, torch.nn.Module)
        for parameter in part.parameters()
    }
    for name, part in fitting.items():
        state = loaded.states[name]
        if infos[name].kind == "optimizer":
            moments[name] = plan_moments(part, state, loaded.parameters[name], around)
            values[name] = plan_values(
                part,
                state.pop(VALUES, {}),
                moments[name].numbers,
                restored,
                strict=loaded.strict,
                converts=any(choice.dtype is not None for choice in loaded.choices.values()),
            )
            moments[name] = moments[name].leaving(values[name].mismatched)
            mismatches[name] = [*moments[name].problems, *values[name].problems]
            if not mismatches[name]:
                ordered = reorder(state, moments[name].numbers)
                overridden += of_optimizer(name, part, ordered, saved_parts)
        elif not has_weights(part):
            mismatches[name] = object_problems(part, state)
            if not mismatches[name]:
                overridden += of_object(name, part, state, saved_parts)
    problems = [f"{name}: {each}" for name, found in mismatches.items() for each in found]
    if problems:
        raise _mismatch(loaded, problems)
    left = {name: found.left for name, found in moments.items()}
    left |= {
        name: left_by_scaler(part, loaded.states[name])
        for name, part in fitting.items()
        if name not in moments
    }
    return Plan(loaded, saved_parts, moments, values, fits, tuple(overridden), left, parts_left)


def _fit_modules(
    loaded: Loaded, parts: Mapping[str, Any], mismatches: dict[str, list[str]]
) -> dict[str, Fit]:
    """Return how each module and its state go together; what keeps them apart goes to the rest."""
    fits = {}
    for name, part in parts.items():
        if has_weights(part):
            converts = loaded.choices.get(name, EVERYTHING).dtype is not None
            found, mismatches[name] = fit_module(
                part, loaded.states[name], name, loaded.chosen[name].leave, converts=converts
            )
            if found is not None:
                fits[name] = found
    return fits


def _mismatch(loaded: Loaded, problems: Sequence[str]) -> MismatchError:
    return MismatchError(
        f"{loaded.opened.head.ref} does not fit what it was to be restored into",
        problems,
        "Nothing was changed. Build the objects as they were built for that training, or load "
        "single parts with checkpoint.state(part).",
    )


def apply(plan: Plan, agree: Callable[[bool], object] = bool) -> Audit:
    """Put every part's state in place; the process's generators last.

    Modules take their values in place, each tensor straight to its parameter's device; optimizers
    let their old state go before the new one is placed, so a device never holds both. Modules with
    loading code of their own come first: if it fails, they are as they were.

    Args:
        plan: What goes where.
        agree: Called once, with whether these modules took their state, before anything else is
            touched; what it raises stops the restore, as their failure does.

    Raises:
        MismatchError: A module's own loading code refuses its state; nothing was changed.
    """
    loaded = plan.loaded
    states = dict(loaded.states)
    done = plan.unforeseen
    keys = _load_unforeseen(plan, states, agree)
    for name in sorted(plan.parts, key=lambda name: _rank(plan.parts[name])):
        if name in done:
            continue
        part, state = plan.parts[name], states.pop(name)
        with _telling(loaded, name, done):
            if has_weights(part):
                keys[name] = _load_module(
                    part, state, plan.fits[name], is_mapped=name in loaded.mapped
                )
            elif name in plan.moments:
                found = plan.moments[name]
                place(part, reorder(state, found.numbers), found.kept, **_taking(loaded, name))
                plan.values[name].put()
            else:
                _load_object(part, _taking(loaded, name).get("take", _as_it_is)(state))
        done.append(name)
    if RNG_PART in states:
        rng.apply(states[RNG_PART])
    saved = {info.name for info in loaded.opened.head.parts}
    restored = (*plan.parts, *([RNG_PART] if RNG_PART in states else []))
    return Audit(
        restored=restored,
        not_asked_for=tuple(sorted(saved - {*restored, *plan.parts_left} - {EXTRA_PART, RNG_PART})),
        not_saved=tuple(name for name in loaded.not_saved if name != EXTRA_PART),
        parts_left=plan.parts_left,
        redrawn=tuple(
            name
            for name, part in plan.parts.items()
            if loaders.is_loader(part) and loaders.redraws(loaded.states[name])
        ),
        not_kept=unkept_buffers(plan.parts),
        overridden=plan.overridden,
        keys={name: report for name, report in _compared(plan, keys).items() if report},
        state_left={name: left for name, left in plan.left.items() if left},
        converted=_converted(plan),
    )


def _compared(plan: Plan, keys: Mapping[str, KeyReport]) -> dict[str, KeyReport]:
    """Say of what was left out of the save whether it has other values now."""
    chosen = plan.loaded.chosen
    return {
        name: replace(
            report,
            changed=of_other_values(
                plan.parts[name], plan.fits[name], chosen[name].leave, report.left_out
            ),
        )
        for name, report in keys.items()
    }


def _converted(plan: Plan) -> dict[str, tuple[str, ...]]:
    found = {name: {*chosen.stored} for name, chosen in plan.loaded.chosen.items()}
    for name, each in plan.fits.items():
        found[name].update(each.converted)
    return {name: tuple(sorted(dtypes)) for name, dtypes in found.items() if dtypes}


def _load_unforeseen(
    plan: Plan, states: dict[str, Any], agree: Callable[[bool], object]
) -> dict[str, KeyReport]:
    """Load the modules whose own loading code may refuse: all of them, or none is changed.

    Returns:
        What of each was left.
    """
    before: list[Before] = []
    keys: dict[str, KeyReport] = {}
    problems: list[str] = []
    all_took_it = False
    try:
        try:
            # All of them first: one may be part of another.
            before += [Before(plan.parts[name]) for name in plan.unforeseen]
            for name in plan.unforeseen:
                with _telling(plan.loaded, name, None):
                    found, keys[name] = _try_module(
                        plan.parts[name],
                        states.pop(name),
                        plan.fits[name],
                        is_mapped=name in plan.loaded.mapped,
                    )
                problems += [f"{name}: {problem}" for problem in found]
            if problems:
                raise _mismatch(plan.loaded, problems)
            all_took_it = True
        finally:
            agree(all_took_it)
    except BaseException:
        for each in reversed(before):
            each.put_back()
        raise
    return keys


@contextmanager
def _telling(loaded: Loaded, name: str, done: Sequence[str] | None) -> Iterator[None]:
    """Let an error from code of others say which part it was, and what was restored before it."""
    try:
        yield
    except BaseException as error:
        if done is None:
            then = "the modules are as they were"
        else:
            listed = ", ".join(map(repr, done))
            then = f"restored before it: {listed}" if done else "nothing was restored before it"
        error.add_note(
            f"ckptstore: part {name!r} of {loaded.opened.head.ref} was not restored; {then}"
        )
        raise


def _as_it_is(state: Any) -> Any:
    return state


def _taking(loaded: Loaded, name: str) -> dict[str, Any]:
    """Return how an optimizer takes what was read of it: mapped tensors are copied."""
    if name not in loaded.mapped:
        return {}
    return {"take": functools.partial(_copied_at_once, memo={})}


def _copied_at_once(value: Any, memo: dict[int, Any]) -> Any:
    plain = {id(tensor): tensor for tensor in _plain_tensors(value) if id(tensor) not in memo}
    memo.update(zip(plain, copies(list(plain.values())), strict=True))
    return copied_value(value, memo)


def _plain_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor) and is_plain(value):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _plain_tensors(item)


def _rank(part: object) -> int:
    if has_weights(part):
        return 0
    return 1 if isinstance(part, torch.optim.Optimizer) else 2


def _try_module(
    module: torch.nn.Module, state: Mapping[str, Any], found: Fit, *, is_mapped: bool
) -> tuple[list[str], KeyReport]:
    try:
        return [], _load_module(module, state, found, is_mapped=is_mapped)
    except MismatchError as error:
        return list(error.problems), found.report
    except RuntimeError as error:  # how torch reports keys and shapes
        return [str(error)], found.report


def _sets_extra_state(module: torch.nn.Module) -> bool:
    return overrides(module, "set_extra_state")


def _load_module(
    module: torch.nn.Module, state: Mapping[str, Any], found: Fit, *, is_mapped: bool
) -> KeyReport:
    # In place, on the module's own device and in its own memory; hooks and extra state run too.
    raw = raw_state(module, state, getattr(state, "_metadata", {}))
    if is_mapped:
        # Code of its own may keep what it is given, and so may a tensor's; torch's copies.
        is_own = bool(found.custom or prefixes(module, _sets_extra_state))
        memo: dict[int, Any] = {}
        for key, value in raw.items():
            if is_own or not (isinstance(value, torch.Tensor) and is_plain(value)):
                raw[key] = copied_value(value, memo)
    return run_loading_code(module, raw, found, "its saved state", assign=False)


def _load_object(part: Any, state: Any) -> None:
    if is_generator(part):
        restore_generator(part, state)
    elif is_metric(part):
        put_metric_state(part, state)
    elif loaders.is_loader(part):
        loaders.load(part, state)
    else:
        part.load_state_dict(state)
