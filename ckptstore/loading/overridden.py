"""Which hyperparameters of the script a checkpoint replaces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ckptstore.audit import Overridden
from ckptstore.state.schedulers import (
    BASE,
    CHILDREN,
    FUNCTIONS,
    PHASES,
    argument_keys,
    function_states,
    functions,
    scheduler_state,
)

# Of a parameter group: who is in it.
_MEMBERS = frozenset({"params", "param_names"})
# Of a scheduler: lists with an item for each group.
_BY_GROUP = ("_lrs", "_momentums")
_MOST_REDUCTIONS = 10_000  # a learning rate that went down more often is not followed


def of_optimizer(
    name: str,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    parts: Mapping[str, Any],
) -> Iterator[Overridden]:
    """Say which hyperparameters an optimizer is about to lose to a saved state.

    A learning rate that a scheduler moves is no hyperparameter, but the one it starts from is
    (``initial_lr``); so is no momentum that is cycled.

    Args:
        name: The part's name.
        optimizer: As the script built it.
        state: Saved, its groups and parameters in the optimizer's order.
        parts: All that is restored: whether a scheduler goes on with this optimizer.
    """
    schedulers = [
        part
        for part in parts.values()
        if isinstance(part, LRScheduler) and part.optimizer is optimizer
    ]
    for index, (mine, saved) in enumerate(
        zip(optimizer.param_groups, state["param_groups"], strict=True)
    ):
        moved = _moved(mine, saved, schedulers, index)
        for key, value in mine.items():
            if key in _MEMBERS or key in moved or key not in saved:
                continue
            if not _same(value, saved[key]):
                yield _found(f"{name}/param_groups/{index}/{key}", value, saved[key])


def of_object(
    name: str, part: object, state: Any, parts: Mapping[str, Any]
) -> Iterator[Overridden]:
    """Say which hyperparameters a scheduler or gradient scaler is about to lose.

    Of other objects nobody knows what of their state is one.

    Args:
        name: The part's name.
        part: As the script built it.
        state: Saved.
        parts: All that is restored.
    """
    if isinstance(part, LRScheduler):
        yield from _of_scheduler(name, part, state, parts)
    elif isinstance(part, torch.amp.GradScaler) and isinstance(state, Mapping):
        mine = part.state_dict()
        yield from _differences(name, mine, state, argument_keys(type(part), mine))


def _of_scheduler(
    name: str, scheduler: LRScheduler, state: Any, parts: Mapping[str, Any]
) -> Iterator[Overridden]:
    mine = scheduler_state(scheduler)
    if not isinstance(mine, Mapping) or not isinstance(state, Mapping):
        return  # a class of one's own
    keys = argument_keys(type(scheduler), mine) - {CHILDREN, FUNCTIONS}
    keys |= {BASE} & mine.keys()
    if BASE in keys and _is_said_of_optimizer(scheduler, mine[BASE], parts):
        keys -= {BASE}
    if "total_steps" in keys and not _same(mine["total_steps"], state.get("total_steps")):
        keys -= {PHASES}  # which are parts of them
    yield from _differences(name, mine, state, keys)
    called, saved = functions(scheduler), function_states(state)
    for place, own in function_states(mine).items():
        if place in called and place in saved:
            arguments = argument_keys(type(called[place]), own)
            yield from _differences(f"{name}/{place}", own, saved[place], arguments)
    for index, (child, its) in enumerate(
        zip(vars(scheduler).get(CHILDREN, ()), state.get(CHILDREN, ()), strict=False)
    ):
        yield from _of_scheduler(f"{name}/{CHILDREN}/{index}", child, its, parts)


def _is_said_of_optimizer(scheduler: LRScheduler, base: Any, parts: Mapping[str, Any]) -> bool:
    """Say whether the optimizer is restored too and has these rates as its groups' initial ones."""
    if not any(part is scheduler.optimizer for part in parts.values()):
        return False
    return _same(base, [group.get("initial_lr") for group in scheduler.optimizer.param_groups])


def _differences(
    name: str, mine: Mapping[str, Any], saved: Mapping[str, Any], keys: set[str]
) -> Iterator[Overridden]:
    for key, value in mine.items():
        if key in keys and key in saved:
            script, checkpoint = value, saved[key]
            if key.endswith(_BY_GROUP) and isinstance(value, list) and isinstance(checkpoint, list):
                # Groups that were added later have theirs at the end.
                script, checkpoint = value[: len(checkpoint)], checkpoint[: len(value)]
            if not _same(script, checkpoint):
                yield _found(f"{name}/{key}", value, saved[key])


def _moved(
    mine: Mapping[str, Any], saved: Mapping[str, Any], schedulers: list[LRScheduler], index: int
) -> set[str]:
    """Return the keys of a group that schedulers move, and that say nothing of the script."""
    if not schedulers:
        return set()
    moved = set()
    has_initial = "initial_lr" in mine and "initial_lr" in saved
    if has_initial or any(
        isinstance(each, ReduceLROnPlateau)
        and _is_reduced(_plain(mine.get("lr")), _plain(saved.get("lr")), each, index)
        for each in schedulers
    ):
        moved.add("lr")
    if "max_momentum" in mine and "max_momentum" in saved:
        moved.add("momentum")
        if _same(_after_first(mine.get("betas")), _after_first(saved.get("betas"))):
            moved.add("betas")
    return moved


def _after_first(values: Any) -> Any:
    return values[1:] if isinstance(values, (list, tuple)) else values


def _is_reduced(script: Any, saved: Any, plateau: ReduceLROnPlateau, index: int) -> bool:
    """Say whether reductions lead from the script's learning rate to the saved one.

    A plateau's scheduler records no initial rate; but it computes (torch/optim/lr_scheduler.py,
    ``_reduce_lr``), so its steps can be taken again.
    """
    if not isinstance(script, (int, float)) or not isinstance(saved, (int, float)):
        return False
    rate, goal, least = float(script), float(saved), plateau.min_lrs[index]
    for _ in range(_MOST_REDUCTIONS):
        if rate <= goal:
            return rate == goal
        lower = max(rate * plateau.factor, least)
        if rate - lower <= plateau.eps:
            return False
        rate = lower
    return False


def _found(name: str, script: Any, checkpoint: Any) -> Overridden:
    return Overridden(name, _kept(script), checkpoint)


def _kept(value: Any) -> Any:
    """Return a value whose tensors stay as they are when the script's own are written to."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return type(value)(map(_kept, value)) if type(value) in (list, tuple) else value


def _same(one: object, other: object) -> bool:
    one, other = _plain(one), _plain(other)
    return bool(one == other) or (_is_nan(one) and _is_nan(other))


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _plain(value: Any) -> Any:
    """Return a hyperparameter so that it can be compared: tensors and arrays as numbers."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
