"""What a checkpoint dict of others holds, put where ckptstore keeps such things. Pure.

Nothing is dropped: what is recognised by neither its name nor its form goes into ``extra``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ckptstore.errors import ArgumentError, ImportRefusedError
from ckptstore.importing.as_numbers import numbers_in, real, unlike, whole
from ckptstore.importing.file_names import is_measure
from ckptstore.importing.nesting import flat
from ckptstore.importing.plain import Held
from ckptstore.importing.state_dicts import is_module_state, is_optimizer_state
from ckptstore.state.keywords import OPTIONS
from ckptstore.state.slips import PART_OPTIONS

MODELS = ("model", "", "net", "network", "module", "weights", "params", "parameters", "state")
"""What the model is called, the likeliest first; ``""`` is left of ``state_dict``."""
EPOCHS = ("epoch", "cur_epoch", "current_epoch", "epoch_num", "epochs")
"""The likeliest first: ``epochs`` beside another is how many there were to be."""
STEPS = (
    "global_step", "step", "global_steps", "iteration", "iter", "global_iter", "n_iter",
    "current_step", "it", "steps", "iterations",
)  # fmt: skip
MODEL_CONFIGS = frozenset({"model_config", "model_args", "model_kwargs", "init_args"})
CONFIGS = ("config", "cfg", "hyper_parameters", "hparams", "hyperparameters", "args", "opt")
METRICS = frozenset({"metrics", "scores", "val_metrics", "eval_metrics"})
OPTIMIZERS = frozenset({"", "optimizer", "optimizers", "optim", "opt"})
SCHEDULERS = frozenset({"scheduler", "lr_scheduler", "lr_sched", "sched", "lr_schedule"})
SUFFIX = re.compile(r"(?i)_?(state_?dicts?|states?|weights)$")
MAX_SHOWN = 10


@dataclass
class ForeignPart:
    """Something with state."""

    kind: str
    state: Any
    class_name: str | None = None
    model_config: Any = None


@dataclass
class Contents:
    """What a file holds."""

    format: str
    """What kind of file it is, in a word."""
    parts: dict[str, ForeignPart] = field(default_factory=dict)
    epoch: int | None = None
    step: int | None = None
    metrics: dict[str, float | int] = field(default_factory=dict)
    config: Any = None
    model_config: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was changed on the way, or left out, one sentence each."""
    inside: frozenset[str] = frozenset()
    """Which of ``epoch``, ``step`` and the metrics the content says, and not the name."""


def recognise(
    value: Any,
    form: str,
    where: str,
    held: Mapping[str, Held] | None = None,
    keys: Mapping[str, str | None] | None = None,
) -> Contents:
    """Say what a value that was read from a file holds.

    Args:
        value: Plain values and tensors.
        form: The kind of file.
        where: Names it in errors.
        held: Which parts of the value were objects, by path.
        keys: What the user says that some of its keys are: a part, a metric, ``epoch``, ``step``,
            ``config``, ``model_config``, ``extra``, or None to leave it out. Keys of nested dicts
            are joined by ``/``.

    Raises:
        ArgumentError: *keys* names what is not there, or what it is not.
        ImportRefusedError: There is no state in it.
    """
    held = held or {}
    found = Contents(form)
    if "" in held:
        found.parts["model" if held[""].kind == "module" else "object"] = _part(value, held[""])
        return found
    if not isinstance(value, Mapping):
        raise ImportRefusedError(
            f"{where} holds a {type(value).__name__}, and neither a state dict nor a dict of them"
        )
    sorting = _Sorting(found, held, where)
    rest = dict(value)
    for key, name in (keys or {}).items():
        sorting.as_told(key, name, _take(rest, key, where))
    told = bool(found.parts)
    if not keys and is_module_state(value):
        found.parts["model"] = ForeignPart("state_dict", value)
        sorting.facts_among(value)
        return found
    sorting.sort(rest)
    if told and sorting.guessed:
        found.notes.append(
            f"beside the parts that keys= names, these were taken for parts too, by their names or "
            f"form: {', '.join(sorting.guessed)}; keys= says what they are, with None what to omit"
        )
    return found


class _Sorting:
    def __init__(self, found: Contents, held: Mapping[str, Held], where: str) -> None:
        self._found = found
        self._held = held
        self._where = where
        self.guessed: list[str] = []
        """What nobody named and was taken for parts, for people."""

    def as_told(self, key: str, name: str | None, value: Any) -> None:
        found = self._found
        if name is None:
            return
        if name in ("epoch", "step"):
            setattr(found, name, whole(value))
            if getattr(found, name) is None:
                raise ArgumentError(f"keys={{{key!r}: {name!r}}}: {value!r:.80} is no whole number")
        elif name in ("config", "model_config"):
            if not is_config(value):
                kind = type(value).__name__
                raise ArgumentError(
                    f"keys={{{key!r}: {name!r}}}: a {kind} is no dict of plain values"
                )
            setattr(found, name, dict(value))
        elif name == "metrics":
            self._metrics(key, value, must=True)
        elif name == "extra":
            found.extra[key] = value
        elif name not in PART_OPTIONS and (number := real(value)) is not None:
            self._metric(key, name, number)
        elif name in OPTIONS - PART_OPTIONS:
            raise ArgumentError(f"keys={{{key!r}: {name!r}}}: {name!r} is no name of a part")
        else:
            found.parts[name] = self._as_part(key, value)

    def _metric(self, key: str, name: str, number: float) -> None:
        if unlike({name: number}, self._found.metrics):
            raise ArgumentError(f"keys={{{key!r}: {name!r}}}: another key says otherwise of it")
        self._found.metrics[name] = number

    def sort(self, rest: Mapping[Any, Any]) -> None:
        found = self._found
        if "model" not in found.parts:
            rest, self._held, notes = flat(rest, self._held, _is_facts_name)
            found.notes += notes
        model = None if "model" in found.parts else self._model_of(rest)
        for key in sorted(rest, key=_likelihood):
            name = str(key).lower()
            if (key != model or model is None) and self._is_fact(name, rest[key]):
                rest = {each: item for each, item in rest.items() if each != key}
        unclear = []
        for key, value in rest.items():
            if key == model and model is not None:
                self._guess("model", key, value)
            elif not self._is_part(key, str(key).lower(), value):
                found.extra[str(key)] = value
                if value is not None and (_is_facts_name(str(key)) or _is_configs_name(str(key))):
                    unclear.append(f"{key} ({_in_short(value)})")
        if unclear:
            found.notes.append(
                f"what these are is not clear, and they were kept in extra alone: "
                f"{', '.join(unclear)}; keys= or epoch=, step= and metrics= say it"
            )

    def facts_among(self, state: Mapping[str, Any]) -> None:
        """Take epoch and step from a state dict that somebody put them into, and leave them."""
        for key in sorted(state, key=_likelihood):
            if key in EPOCHS + STEPS and self._is_fact(key, state[key]):
                self._found.notes.append(
                    f"{key!r} is among the model's tensors: it was taken for the version's too, "
                    f"and left there"
                )

    def _model_of(self, rest: Mapping[Any, Any]) -> Any:
        """Return the key of the model's state, None if there is none."""
        states = {
            key: _base(str(key).lower())
            for key, value in rest.items()
            if is_module_state(value) or self._kind(key) == "module"
        }
        for wanted in MODELS:
            for key, base in states.items():
                if base == wanted:
                    return key
        others = [key for key, base in states.items() if not re.search(r"ema|average|swa", base)]
        return others[0] if len(others) == 1 else None

    def _is_fact(self, name: str, value: Any) -> bool:
        found = self._found
        if name in EPOCHS and found.epoch is None and (number := whole(value)) is not None:
            found.epoch = number
        elif name in STEPS and found.step is None and (number := whole(value)) is not None:
            found.step = number
        elif name in METRICS and self._metrics(name, value):
            pass
        elif (
            is_measure(name)
            and (metric := real(value)) is not None
            and not unlike({name: metric}, found.metrics)
        ):
            found.metrics[name] = metric
        elif name in MODEL_CONFIGS and found.model_config is None and is_config(value):
            found.model_config = dict(value)
        elif name in CONFIGS and found.config is None and is_config(value):
            found.config = dict(value)
        else:
            return False
        return True

    def _metrics(self, name: str, value: Any, *, must: bool = False) -> bool:
        """Take numbers of nested dicts, names joined by ``/``; say whether they were all of it."""
        numbers_of, others = numbers_in(value)
        if must and (others or not numbers_of):
            raise ArgumentError(f"keys={{{name!r}: 'metrics'}}: it is no dict of numbers")
        before = self._found.metrics
        twice = [f"{each} ({numbers_of[each]:g})" for each in unlike(numbers_of, before)]
        if must and twice:
            raise ArgumentError(
                f"keys={{{name!r}: 'metrics'}}: other keys say otherwise of {', '.join(twice)}"
            )
        self._found.metrics = numbers_of | before
        for said, which in (
            ("are no numbers", others),
            ("are recorded with another number, which stands beside it", twice),
        ):
            if numbers_of and which:
                self._found.notes.append(
                    f"of {name} these {said}, and all of it was kept in extra too: "
                    f"{', '.join(which[:MAX_SHOWN])}"
                )
                self._found.extra[name] = value
        return bool(numbers_of)

    def _is_part(self, key: Any, name: str, value: Any) -> bool:
        base, kind = _base(str(key)), self._kind(key)
        if isinstance(value, list) and value and all(map(is_optimizer_state, value)):
            for place, state in enumerate(value):
                self._add("optimizer" if not place else f"optimizer_{place}", key, state)
        elif is_optimizer_state(value):
            self._add("optimizer" if base.lower() in OPTIMIZERS else base, key, value)
        elif "sched" in name and isinstance(value, Mapping) and value:
            self._add("scheduler" if base.lower() in SCHEDULERS else base, key, value)
        elif "scaler" in name and isinstance(value, Mapping) and value:
            self._add("scaler", key, value)
        elif is_module_state(value) or kind is not None or _says_so(name, value):
            self._add(base or str(key), key, value)
        else:
            return False
        return True

    def _add(self, name: str, key: Any, state: Any) -> None:
        if name in OPTIONS - PART_OPTIONS or name in self._found.parts:
            name = str(key)
        place = 2
        while name in OPTIONS - PART_OPTIONS or name in self._found.parts:
            name = f"{key}_{place}"
            place += 1
        self._guess(name, key, state)

    def _guess(self, name: str, key: Any, state: Any) -> None:
        self._found.parts[name] = self._as_part(key, state)
        self.guessed.append(repr(name) if key == name else f"{str(key)!r} as {name!r}")

    def _as_part(self, key: Any, state: Any) -> ForeignPart:
        held = self._held.get(str(key))
        if held is not None:
            return _part(state, held)
        if is_optimizer_state(state):
            return ForeignPart("optimizer", state)
        if is_module_state(state):
            return ForeignPart("state_dict", state)
        if not isinstance(state, Mapping):
            raise ArgumentError(
                f"keys={{{key!r}: …}}: a {type(state).__name__} has no state; it can go into "
                "'extra'"
            )
        return ForeignPart("object", state)

    def _kind(self, key: Any) -> str | None:
        held = self._held.get(str(key))
        return None if held is None else held.kind


def _likelihood(key: object) -> int:
    """Return a key's place among those that say the same: the likeliest first."""
    name = str(key).lower()
    for order in (EPOCHS, STEPS):
        if name in order:
            return order.index(name)
    return len(STEPS)


def _is_facts_name(name: str) -> bool:
    name = name.lower()
    return name in EPOCHS + STEPS or name in METRICS or is_measure(name)


def _is_configs_name(name: str) -> bool:
    return name.lower() in MODEL_CONFIGS or name.lower() in CONFIGS


def _in_short(value: object) -> str:
    if isinstance(value, bool | int | float | complex | str):
        return f"{value!r:.40}"
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    length = f" of {len(value)}" if isinstance(value, Mapping | Sequence) else ""
    return f"{type(value).__name__}{length}"


def is_config(value: Any) -> bool:
    """Say whether something is a dict of plain values by name, without tensors and arrays."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    pending: list[Any] = list(value.values())
    while pending:
        item = pending.pop()
        if isinstance(item, torch.Tensor | np.ndarray):
            return False
        if isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, Sequence | set | frozenset) and not isinstance(item, str | bytes):
            pending += item
    return True


def _part(state: Any, held: Held) -> ForeignPart:
    if not isinstance(state, Mapping):  # whoever says so made it to harm
        return ForeignPart("object", state, held.class_name)
    return ForeignPart(held.kind, state, held.class_name, held.model_config)


def _says_so(name: str, value: object) -> bool:
    return name.endswith("state_dict") and isinstance(value, Mapping) and bool(value)


def _base(name: str) -> str:
    return SUFFIX.sub("", name)


def _take(rest: dict[Any, Any], key: str, where: str) -> Any:
    """Take a key that the user named out of a dict, nested dicts included.

    Raises:
        ArgumentError: It is not there; the message lists what is.
    """
    if key in rest:
        return rest.pop(key)
    first, slash, below = key.partition("/")
    inner = rest.get(first)
    if not slash or not isinstance(inner, Mapping):
        there = ", ".join(repr(str(each)) for each in list(rest)[:20])
        raise ArgumentError(f"keys={{{key!r}: …}}: {where} has no such key; it has {there}")
    inner = dict(inner)
    value = _take(inner, below, f"{where}, {first!r}")
    rest[first] = inner
    if not inner:
        del rest[first]
    return value
