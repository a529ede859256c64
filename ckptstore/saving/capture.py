"""Parts as trees and tensors, everything refused that can't be kept, before a byte is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from ckptstore.errors import ArgumentError, StateWarning, UnsupportedValueError, warn
from ckptstore.format.part import Form
from ckptstore.format.tree import encode
from ckptstore.saving.ownerless import ownerless
from ckptstore.state.callables import holders
from ckptstore.state.generators import generator_state
from ckptstore.state.init_args import remembered, required_parameters, unrecorded
from ckptstore.state.keywords import is_generator
from ckptstore.state.layouts import is_kept_as_torchs
from ckptstore.state.loaders import is_loader, loader_state
from ckptstore.state.metrics import has_weights, is_metric, metric_state
from ckptstore.state.modules import class_name, plain_state, unassigned, unwrap
from ckptstore.state.optimizers import VALUES, Groups, aliases, parameter_names, without_graph
from ckptstore.state.schedulers import refuse_hidden_state, scheduler_state
from ckptstore.state.tensors import check, identity


@dataclass
class CapturedPart:
    """A part before its bytes are written. Its tensors are the live ones: nothing was copied.

    But for those that are stored in another dtype than they have.
    """

    name: str
    kind: str
    """One of :data:`ckptstore.format.manifest.PART_KINDS`."""
    tree: Any = None
    tensors: list[torch.Tensor] = field(default_factory=list)
    tensor_names: list[str] = field(default_factory=list)
    """Each tensor's name in its pack: state-dict keys in a module's, numbers elsewhere."""
    class_name: str | None = None
    model_config: Any = None
    """Constructor arguments as an encoded tree."""
    parameters: Groups | None = None
    unchosen: tuple[str, ...] = ()
    """Keys of a module that need not be saved."""
    left_out: Mapping[str, Form | None] = field(default_factory=dict)
    """Keys of a module that are not saved, and what they were."""
    left_out_samples: Mapping[str, object] = field(default_factory=dict)
    """Samples of some of those, by which a later save knows them again without hashing them."""
    was: dict[int, str] = field(default_factory=dict)
    """By place, the dtype that a tensor had where it is stored in another one."""


def capture(
    parts: Mapping[str, Any], model_config: Mapping[str, Any] | None = None
) -> list[CapturedPart]:
    """Take the state of every part.

    Args:
        parts: By name, in the order in which they are to be stored. A mapping is a state dict.
        model_config: Constructor arguments of the part ``model``, where the caller gave them.

    Raises:
        UnsupportedValueError: A value can't be kept; the error has its path.
        ArgumentError: ``model_config`` is no dict with string keys.
    """
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    captured: dict[str, CapturedPart] = {}
    # Optimizers last: what of their parameters is to be kept depends on what else is.
    for name, part in sorted(parts.items(), key=lambda item: _is_optimizer(item[1])):
        if isinstance(part, LRScheduler):
            refuse_hidden_state(part, name, parts.values())
        elif isinstance(part, AveragedModel):
            _tell_unkept(name, part, parts.values())
        if _is_optimizer(part):
            taken = _capture_optimizer(name, part, modules, captured)
        else:
            taken = _capture_part(name, part)
        if taken.kind in ("module", "state_dict"):
            given = model_config if name == "model" else None
            taken.model_config = encode_config(
                given
                if given is not None
                else remembered(_built_with_arguments(part) if name in modules else part),
                "model_config" if name == "model" else f"{name}'s constructor arguments",
            )
        if not taken.tensors and not _says_something(taken.tree):
            warn(
                f"part {name!r} has no state: {class_name(part)}.state_dict() is empty",
                StateWarning,
            )
        captured[name] = taken
    return [captured[name] for name in parts]


def capture_tree(name: str, value: object, kind: str = "tree") -> CapturedPart:
    """Take a nested value as a part of its own (``extra``, ``rng``)."""
    part = CapturedPart(name, kind)
    part.tree = encode(value, name, _Put(part, name))
    return part


def encode_config(config: object, name: str) -> Any:
    """Return constructor arguments or a run's configuration as an encoded tree; None stays None.

    Raises:
        ArgumentError: It is no mapping with string keys.
        UnsupportedValueError: A value in it can't be kept.
    """
    if config is None:
        return None
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise ArgumentError(f"{name} takes a dict whose keys are strings, not {config!r:.80}")
    return encode(dict(config), name)


def unknown_arguments(parts: Mapping[str, Any], captured: list[CapturedPart]) -> list[str]:
    """Return a warning for each module that could not be built again from what is recorded."""
    found = []
    for part in captured:
        if part.kind != "module" or part.model_config is not None:
            continue
        module = unwrap(parts[part.name])
        kind = type(module)
        reason = unrecorded(module)
        if reason is not None:
            found.append(
                f"{kind.__qualname__} was built with an argument that can't be recorded: {reason}. "
                f"Give model_config= when loading part {part.name!r}"
            )
            continue
        required = required_parameters(kind)
        # An average is built around a module, which is no argument that could be recorded.
        if required and kind is not AveragedModel:
            given = "pass model_config={…}, or " if part.name == "model" else ""
            found.append(
                f"{kind.__qualname__} needs {', '.join(required)} to be built, and nothing "
                f"recorded them: {given}decorate the class with @ckptstore.remember_init; "
                f"otherwise give model_config= when loading part {part.name!r}"
            )
    return found


def _tell_unkept(name: str, average: AveragedModel, parts: Collection[Any]) -> None:
    """Warn of objects that an average calls: nothing of them is in its state."""
    known = {id(part) for part in parts}
    for function in ("avg_fn", "multi_avg_fn"):
        for _, holder in holders(getattr(average, function, None)):
            if id(holder) not in known:
                warn(
                    f"part {name!r} averages with a {class_name(holder)} ({function}=), whose "
                    "attributes are not in its state: if any of them changes in training, hand the "
                    "object to save() and resume() as a part, with a state_dict() and a "
                    "load_state_dict()",
                    StateWarning,
                )


def _capture_part(name: str, part: Any) -> CapturedPart:
    if has_weights(part):
        taken = CapturedPart(name, "module", class_name=class_name(part))
        state: Any = plain_state(part)
    elif isinstance(part, Mapping):
        taken = CapturedPart(name, "state_dict")
        state = unassigned(part)
    elif is_metric(part):
        taken = CapturedPart(name, "object", class_name=class_name(part))
        state = metric_state(part)
    elif is_loader(part):
        taken = CapturedPart(name, "object", class_name=class_name(part))
        state = loader_state(part)
    elif is_generator(part):
        taken = CapturedPart(name, "generator", class_name=class_name(part))
        state = generator_state(part)
    else:
        taken = CapturedPart(name, "object", class_name=class_name(part))
        state = scheduler_state(part) if isinstance(part, LRScheduler) else part.state_dict()
    taken.tree = encode(state, name, _Put(taken, name))
    return taken


def _built_with_arguments(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module that a class of the user's made: the one inside of all others."""
    module = unwrap(module)
    return unwrap(module.module) if isinstance(module, AveragedModel) else module


def _is_optimizer(part: object) -> bool:
    return isinstance(part, torch.optim.Optimizer)


def _capture_optimizer(
    name: str,
    optimizer: torch.optim.Optimizer,
    modules: Mapping[str, torch.nn.Module],
    others: Mapping[str, CapturedPart],
) -> CapturedPart:
    """Take an optimizer's state, and the values of parameters that no other part has."""
    try:
        state = without_graph(optimizer.state_dict())
    except RuntimeError as error:
        raise UnsupportedValueError(
            name,
            f"a {class_name(optimizer)} whose state_dict() says: {error}",
            "a ZeroRedundancyOptimizer has to gather its state first: before each save call "
            "consolidate_state_dict(to=0) on every rank",
        ) from error
    if not is_kept_as_torchs(optimizer, state):
        taken = CapturedPart(name, "object", class_name=class_name(optimizer))
    else:
        taken = CapturedPart(name, "optimizer", class_name=class_name(optimizer))
        taken.parameters = parameter_names(optimizer, modules)
        values = _ownerless(optimizer, modules, list(others.values()))
        if values:
            state = {**state, VALUES: values}
    taken.tree = encode(state, name, _Put(taken, name))
    return taken


def _ownerless(
    optimizer: torch.optim.Optimizer,
    modules: Mapping[str, torch.nn.Module],
    others: Collection[CapturedPart],
) -> dict[int, torch.Tensor]:
    if not any(part.kind in ("module", "state_dict") for part in others):
        return {}  # whoever saves no weights at all has them elsewhere
    held = [tensor for part in others if part.kind != "optimizer" for tensor in part.tensors]
    given = [tensor for part in others if part.kind == "state_dict" for tensor in part.tensors]
    return ownerless(optimizer, aliases(modules), held, given)


class _Put:
    """Takes tensors and arrays out of one part's tree, each distinct one once."""

    def __init__(self, part: CapturedPart, root: str) -> None:
        self._part = part
        self._root = root
        self._by_key = part.kind in ("module", "state_dict")
        self._places: dict[object, int] = {}
        self._names: set[str] = set()

    def __call__(self, value: object, path: str, *, alone: bool = False) -> int:
        key: object
        if isinstance(value, torch.Tensor):
            check(value, path)
            key, tensor = identity(value), value.detach().requires_grad_(value.requires_grad)
        else:
            key, tensor = ("array", id(value)), _array_bytes(value)
        if alone:
            key = None
        if key is not None and key in self._places:
            return self._places[key]
        place = len(self._part.tensors)
        self._part.tensors.append(tensor)
        self._part.tensor_names.append(self._name(place, path))
        if key is not None:
            self._places[key] = place
        return place

    def _name(self, place: int, path: str) -> str:
        if not self._by_key:
            return str(place)
        name = path.removeprefix(f"{self._root}/")
        if name == "__metadata__":
            raise UnsupportedValueError(
                path, "a tensor named '__metadata__'", "safetensors keeps that name; rename it"
            )
        while name in self._names:
            name = f"{name}/{place}"
        self._names.add(name)
        return name


def _array_bytes(array: Any) -> torch.Tensor:
    import numpy as np

    rows = np.ascontiguousarray(array).reshape(-1)
    if rows.size == 0:
        return torch.empty(0, dtype=torch.uint8)
    flat = rows.view(np.uint8)
    return torch.from_numpy(flat if flat.flags.writeable else flat.copy())


def _says_something(tree: object) -> bool:
    """Say whether a tree holds anything but empty containers."""
    if isinstance(tree, dict):
        return any(_says_something(item) for key, item in tree.items() if key != "_metadata")
    if isinstance(tree, list):
        return any(_says_something(item) for item in tree)
    return True
