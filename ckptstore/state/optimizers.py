"""Optimizers' parameters by name, and saved state put onto the parameters it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch

from ckptstore.state.modules import plain_names

Groups = tuple[tuple[str | None, ...], ...]
Take = Callable[[Any], Any]
VALUES = "ckptstore_values"
"""Of a saved state: by number, the values of parameters that nothing else has."""


def parameter_names(
    optimizer: torch.optim.Optimizer, modules: Mapping[str, torch.nn.Module]
) -> Groups:
    """Return the name of each parameter of an optimizer, in its groups' order.

    A name is ``part/key`` (``model/fc.weight``), plain, of the first of *modules* that has the
    parameter. Where none has it, it is the name the optimizer was given
    (``Adam(model.named_parameters())``), or None.
    """
    known = aliases(modules)
    return tuple(
        tuple(
            known.get(id(parameter), (name,))[0]
            for parameter, name in zip(group["params"], given, strict=True)
        )
        for group, given in zip(
            optimizer.param_groups, given_names(optimizer.param_groups), strict=True
        )
    )


def aliases(modules: Mapping[str, torch.nn.Module]) -> dict[int, tuple[str, ...]]:
    """Return all the names ``part/key`` of each parameter, by its ``id``, the first one first."""
    known: dict[int, dict[str, None]] = {}
    for part, module in modules.items():
        names = plain_names(module)
        for key, parameter in module.named_parameters(remove_duplicate=False):
            known.setdefault(id(parameter), {})[f"{part}/{names(key)}"] = None
    return {number: tuple(names) for number, names in known.items()}


def given_names(groups: Sequence[Mapping[str, Any]]) -> Groups:
    """Return the name that each parameter was given to the optimizer with, None without one."""
    return tuple(
        tuple(group.get("param_names") or [None] * len(group["params"])) for group in groups
    )


def reorder(state: Mapping[str, Any], numbers: Sequence[Sequence[int | None]]) -> dict[str, Any]:
    """Return an optimizer's state dict with its parameters numbered in another order.

    The names that they were given are left in the order in which they were saved: an optimizer
    keeps those that it has (:func:`place`).

    Args:
        state: As ``state_dict()`` gives it.
        numbers: For each group the saved number of each present parameter, None if nothing is to
            be loaded for it.
    """
    renumbered: dict[Any, Any] = {}
    groups = []
    count = 0
    for group, wanted in zip(state["param_groups"], numbers, strict=True):
        places = list(range(count, count + len(wanted)))
        count += len(wanted)
        groups.append({**group, "params": places})
        for place, number in zip(places, wanted, strict=True):
            if number in state["state"]:
                renumbered[place] = state["state"][number]
    others = {key: value for key, value in state["state"].items() if not isinstance(key, int)}
    rest = {key: value for key, value in state.items() if key not in ("state", "param_groups")}
    return {**rest, "state": renumbered | others, "param_groups": groups}


def without_graph(state: Any) -> Any:
    """Return an optimizer's state with what autograd computed detached.

    ``differentiable=True`` leaves the graph that led to a moment on it. A graph is not kept; and a
    leaf that requires gradients, which is what would come back, can't be stepped in place.
    """
    if isinstance(state, torch.Tensor):
        return state if state.is_leaf else state.detach()
    if type(state) is dict:
        return {key: without_graph(item) for key, item in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map(without_graph, state))
    return state


def _as_it_is(value: Any) -> Any:
    return value


def place(
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    left: AbstractSet[int] = frozenset(),
    *,
    take: Take = _as_it_is,
) -> None:
    """Load a state dict so that each tensor keeps its dtype and lands on its parameter's device.

    The old state is let go first, so that the device never holds both.
    ``Optimizer.load_state_dict`` runs as the class has it, hooks included. What it would not carry
    over as it was saved is put right: it casts state to its parameter's dtype, which would round
    fp32 moments of bf16 parameters; it makes iterables anew from their items, which ruins strings
    and arrays; and it replaces hyperparameters that are tensors, while a compiled or captured step,
    and the script, hold on to those that were there.

    Args:
        optimizer: Its parameters must be those of *state*, in that order.
        state: On the CPU; emptied as its tensors are moved. The optimizer keeps the names that its
            parameters were given.
        left: The numbers of parameters that keep what state they have, if any.
        take: Returns what the optimizer may keep of a value on the CPU: a copy, if it may not keep
            the tensors of *state* themselves. Each is taken when its turn comes.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # torch keeps "step" on the CPU unless a kernel reads it there (torch/optim/optimizer.py,
    # _process_value_according_to_param_policy); the saved groups decide, as they will be loaded.
    on_device = [
        bool(group.get("capturable") or group.get("fused"))
        for group in state["param_groups"]
        for _ in group["params"]
    ]
    kept = {
        parameters[number]: optimizer.state[parameters[number]]
        for number in left
        if parameters[number] in optimizer.state
    }
    optimizer.state.clear()
    take = _take_what_stays(state, parameters, take)
    held_back: dict[int, dict[Any, Any]] = {}
    for number, parameter in enumerate(parameters):
        if number in state["state"]:
            moved = {
                key: _moved(
                    value, parameter.device if key != "step" or on_device[number] else None, take
                )
                for key, value in state["state"][number].items()
            }
            held_back[number] = {key: item for key, item in moved.items() if not _carried(item)}
            state["state"][number] = {
                key: item for key, item in moved.items() if key not in held_back[number]
            }
    has_differentiable = "differentiable" in optimizer.defaults
    before = [dict(group) for group in optimizer.param_groups]
    state["param_groups"] = [
        _under_own_names(*pair) for pair in zip(state["param_groups"], before, strict=True)
    ]
    optimizer.load_state_dict(state)
    optimizer.state.update(kept)
    if not has_differentiable:
        # torch's __setstate__ adds it; a group that is added later would have it, and others not.
        optimizer.defaults.pop("differentiable", None)
    for group, built in zip(optimizer.param_groups, before, strict=True):
        # What the class has learnt since that save: torch's __setstate__ fills in its own, with
        # what older versions did; a class of one's own gets what it was built with. So does a
        # scheduler that is new in this training, which keeps its bounds in the groups.
        for key, value in built.items():
            group.setdefault(key, value)
    _keep_tensors(before, optimizer.param_groups)
    for number, parameter in enumerate(parameters):
        if held_back.get(number):
            optimizer.state[parameter].update(held_back[number])
        loaded = optimizer.state.get(parameter)
        for key, value in state["state"].get(number, {}).items():
            if isinstance(loaded, dict) and _differs(loaded.get(key), value):
                loaded[key] = value


def _take_what_stays(state: dict[str, Any], parameters: Sequence[torch.Tensor], take: Take) -> Take:
    """Take what stays on the CPU wherever its parameter is; all of it, if all of them are there.

    Returns:
        How the rest is to be taken.
    """
    state.update(take({key: value for key, value in state.items() if key != "state"}))
    if all(parameter.device.type == "cpu" for parameter in parameters):
        state["state"] = take(state["state"])
        return _as_it_is
    # An optimizer may keep state that is no parameter's.
    shared = {key: value for key, value in state["state"].items() if not isinstance(key, int)}
    state["state"].update(take(shared))
    return take


def _under_own_names(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved group with the names that are given to its parameters now, if any are."""
    return {
        key: own[key] if key == "param_names" else value
        for key, value in saved.items()
        if key != "param_names" or key in own
    }


def _carried(value: Any) -> bool:
    """Say whether torch's loading carries a value of the state over as it is, dtypes apart."""
    if type(value) is dict:
        return all(map(_carried, value.values()))
    if type(value) in (list, tuple):
        return all(map(_carried, value))
    return isinstance(value, torch.Tensor) or not isinstance(value, Iterable)


def _keep_tensors(before: list[dict[str, Any]], groups: list[dict[str, Any]]) -> None:
    """Write loaded hyperparameters into the tensors that the groups held, and put those back.

    But not where groups shared a tensor and now have two, or the other way round.
    """
    pairs = [
        pair
        for held, group in zip(before, groups, strict=True)
        for key, value in group.items()
        if key != "params"
        for pair in _tensor_pairs(held.get(key), value)
    ]
    alike = {
        (id(held), id(loaded))
        for held, loaded in pairs
        if (held.dtype, held.shape) == (loaded.dtype, loaded.shape)
        and all((one is held) == (other is loaded) for one, other in pairs)
    }
    for held, group in zip(before, groups, strict=True):
        for key in group.keys() & held.keys() - {"params"}:
            group[key] = _kept(held[key], group[key], alike)


def _tensor_pairs(held: Any, loaded: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    if isinstance(held, torch.Tensor) and isinstance(loaded, torch.Tensor):
        yield held, loaded
    elif isinstance(held, (list, tuple)) and isinstance(loaded, (list, tuple)):
        for pair in zip(held, loaded, strict=False):
            yield from _tensor_pairs(*pair)


def _kept(held: Any, loaded: Any, alike: AbstractSet[tuple[int, int]]) -> Any:
    if isinstance(loaded, torch.Tensor) and (id(held), id(loaded)) in alike:
        with torch.no_grad():
            return held.copy_(loaded)
    if type(loaded) in (list, tuple) and isinstance(held, (list, tuple)):
        kept = [_kept(*pair, alike) for pair in zip(held, loaded, strict=False)]
        return type(loaded)([*kept, *loaded[len(kept) :]])
    return loaded


def _moved(value: Any, device: torch.device | None, take: Take) -> Any:
    if isinstance(value, torch.Tensor):
        stays = device is None or device == value.device
        return take(value) if stays else value.to(device)
    if type(value) is dict:
        return {key: _moved(item, device, take) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(item, device, take) for item in value)
    return take(value)


def _differs(loaded: object, saved: object) -> bool:
    """Say whether a loaded value holds a tensor of another dtype than the saved one."""
    if isinstance(saved, torch.Tensor):
        return isinstance(loaded, torch.Tensor) and loaded.dtype != saved.dtype
    if isinstance(saved, (list, tuple)) and isinstance(loaded, (list, tuple)):
        return any(_differs(*pair) for pair in zip(loaded, saved, strict=False))
    if isinstance(saved, dict) and isinstance(loaded, dict):
        return any(_differs(loaded.get(key), value) for key, value in saved.items())
    return False
