"""What each keyword of ``save`` is: a part, a metric, nothing, or a mistake."""

from __future__ import annotations

import difflib
import numbers
import random
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from ckptstore.errors import ArgumentError
from ckptstore.state.slips import PART_OPTIONS, close_to

# Every option of format 1, those of verbs to come included: a part or metric that took one of these
# names today would be shut out by a later release.
OPTIONS = frozenset(
    {
        "build", "class_names", "config", "device", "dtype", "epoch", "exports", "extra",
        "fallback", "keep", "map_location", "metric", "metrics", "mmap", "mode", "model",
        "model_config", "monitor", "note", "only", "optimizer", "overlap", "parent", "part",
        "parts", "preprocessing", "program", "ref", "rename", "rng", "run", "sample", "skip",
        "step", "strict", "tags", "verify",
    }
)  # fmt: skip
# What the verbs take that put state back.
RESTORING_OPTIONS = {
    "resume": PART_OPTIONS | {"run", "rng", "strict", "only", "skip", "rename", "dtype"},
    "restore": PART_OPTIONS | {"rng", "strict", "only", "skip", "rename", "dtype"},
}
_KEEPS_NOTHING = (
    "keeps nothing of where it is, so there is no state: torchdata's StatefulDataLoader does. "
    "Between epochs a loader's generator= is a part, and a sampler with set_epoch() needs none"
)


def sort(keywords: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, float | int]]:
    """Tell parts from metrics.

    Returns:
        The parts (anything with ``state_dict()``, a random generator of torch, NumPy or Python) and
        the metrics (real numbers: Python's, NumPy's, 0-d tensors), each in the order given. None is
        absent.

    Raises:
        ArgumentError: Something else, or a name that is an option's or looks like one.
    """
    parts: dict[str, Any] = {}
    metrics: dict[str, float | int] = {}
    for name, value in keywords.items():
        if value is None:
            continue
        _check_name(name, value)
        if is_part(value):
            parts[name] = value
        else:
            metrics[name] = number(name, value)
    return parts, metrics


def is_part(value: object) -> bool:
    """Say whether *value* has state of its own to be saved."""
    if isinstance(value, type):
        return False
    return callable(getattr(value, "state_dict", None)) or is_generator(value)


def is_generator(value: object) -> bool:
    """Say whether *value* is a random generator: of torch, NumPy or Python."""
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)  # which has no state
    numpy = sys.modules.get("numpy")
    return isinstance(value, torch.Generator) or (
        numpy is not None and isinstance(value, (numpy.random.Generator, numpy.random.RandomState))
    )


def number(name: str, value: object) -> float | int:
    """Return a metric as a Python number.

    Raises:
        ArgumentError: It is no real number; the message names the keyword.
    """
    value = _scalar(value)
    if isinstance(value, bool):
        raise ArgumentError(
            f"{name}={value}: a bool is neither a part nor a metric, and save() has no option "
            f"{name!r}"
            f"{_suggestion(name)}; for a fact to remember use extra={{'{name}': {value}}}"
        )
    if isinstance(value, numbers.Real):
        try:
            near = float(value)
        except OverflowError as error:
            raise ArgumentError(
                f"{name}=: this {type(value).__qualname__} is too large for a float, and metrics "
                "are compared as floats; put it into extra="
            ) from error
        return int(value) if isinstance(value, numbers.Integral) else near
    raise ArgumentError(f"{name}=: {_advice(name, value)}")


def _scalar(value: object) -> object:
    """Return a 0-d tensor's or array's value as Python's own, anything else as it is."""
    if isinstance(value, torch.Tensor):
        plain = value.dim() == 0 and not value.is_complex() and not value.is_meta
        return value.item() if plain else value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)) and value.ndim == 0:
        return value.item()
    return value


def metric_dict(metrics: object) -> dict[str, float | int]:
    """Return ``metrics=`` checked: names to real numbers, None left out.

    Raises:
        ArgumentError: It is no mapping of strings to real numbers.
    """
    if not isinstance(metrics, Mapping):
        raise ArgumentError(
            f"metrics= takes a dict of names to numbers, not {type(metrics).__qualname__}"
        )
    checked: dict[str, float | int] = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ArgumentError(f"metrics=: {name!r} is no name; names are strings")
        _check_text(name)
        if value is not None:
            checked[name] = number(f"metrics[{name!r}]", value)
    return checked


def whole(name: str, value: object) -> int | None:
    """Return ``epoch=`` or ``step=`` as an int.

    Raises:
        ArgumentError: It is neither None nor a whole number.
    """
    if value is None:
        return None
    real = _scalar(value)
    if isinstance(real, bool) or not isinstance(real, numbers.Real):
        raise ArgumentError(f"{name}= takes a whole number, not {_short(value)}")
    given: Any = real  # typeshed lets int() take no Real, and Python does
    try:
        exact = int(given)
    except (OverflowError, ValueError) as error:  # an infinity, NaN
        raise ArgumentError(f"{name}= takes a whole number, not {given}") from error
    if exact != given or abs(exact) >= 2**62:
        raise ArgumentError(f"{name}= takes a whole number below 2**62, not {_short(value)}")
    return exact


def check_optimizer(optimizer: object) -> None:
    """Refuse what is no optimizer under that keyword.

    Raises:
        ArgumentError: It is a module, a class, or has no ``state_dict()``.
    """
    if isinstance(optimizer, torch.nn.Module):
        raise ArgumentError(
            f"optimizer= was given the module {type(optimizer).__qualname__}: pass the optimizer "
            "there, and "
            "a second module as a keyword of its own, e.g. save(generator, discriminator=…)"
        )
    if not is_part(optimizer):
        raise ArgumentError(
            f"optimizer= takes an object with state_dict(): {_advice('optimizer', optimizer)}"
        )


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{name!a} is no name: it has a lone surrogate") from error


def _short(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # an int of more digits than Python writes
        return f"a {type(value).__qualname__} too large to show"


def _check_name(name: str, value: object) -> None:
    _check_text(name)
    if name in OPTIONS:
        raise ArgumentError(
            f"{name}= is an option of ckptstore, not one of save(): choose another name for a "
            f"part, or put a metric of that name into metrics={{{name!r}: …}}"
        )
    # Something that has state can only be a slip of an option that takes such a thing; and
    # optimizer2=, model_ema= or a GAN's g_optimizer= are none.
    options = PART_OPTIONS if is_part(value) else OPTIONS
    if is_part(value) and any(
        re.fullmatch(rf"(.+_)?{option}(_.+|[0-9]+)?", name) for option in options
    ):
        return
    close = close_to(name, options)
    if close is not None:
        raise ArgumentError(
            f"save() has no option {name!r}: did you mean {close!r}? If not, give the part "
            f"another name, or put a metric of that name into metrics={{{name!r}: …}}"
        )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, sorted(OPTIONS | {"blocking"}), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close and close[0] != "blocking" else ""


def _advice(name: str, value: object) -> str:
    kind = type(value).__qualname__
    if isinstance(value, type):
        name_of_class = value.__qualname__
        return f"{name_of_class} is a class; pass an instance, e.g. {name}={name_of_class}(…)"
    if isinstance(value, (DataLoader, Sampler)):
        return f"a {kind} {_KEEPS_NOTHING}"
    if isinstance(value, torch.Tensor):
        return (
            f"a tensor of shape {list(value.shape)} is no metric; pass .item() of one value, "
            "or put it into extra="
        )
    if isinstance(value, Mapping):
        return (
            f"a {kind} is no part: pass the object that has state_dict(), or put it into "
            "extra= or config="
        )
    return (
        f"a {kind} is neither a part (it has no state_dict()) nor a real number; for facts use "
        "extra= or config="
    )


def check_model(model: object) -> None:
    """Refuse what is neither a module nor a state dict under that keyword.

    Raises:
        ArgumentError: It has no ``state_dict()`` and is no mapping, or is an optimizer.
    """
    if isinstance(model, torch.optim.Optimizer):
        raise ArgumentError(
            f"model= was given the optimizer {type(model).__qualname__}: write save(model, "
            "optimizer)"
        )
    if not isinstance(model, Mapping) and not is_part(model):
        raise ArgumentError(f"model= takes a module or a state dict: {_advice('model', model)}")


def only_parts(keywords: Mapping[str, object], verb: str) -> dict[str, Any]:
    """Return the parts handed to ``resume`` or ``restore``, None left out.

    Raises:
        ArgumentError: Something is no part.
    """
    parts: dict[str, Any] = {}
    for name, value in keywords.items():
        if value is None:
            continue
        if not is_part(value):
            raise ArgumentError(f"{verb}({name}=…): {_restoring_advice(name, value, verb)}")
        parts[name] = value
    return parts


def _restoring_advice(name: str, value: object, verb: str) -> str:
    """Say what to do about something that no state can be put into."""
    if isinstance(value, type):
        return _advice(name, value)
    kind = type(value).__qualname__
    if isinstance(value, (DataLoader, Sampler)):
        return f"a {kind} {_KEEPS_NOTHING}"
    if isinstance(value, Mapping):
        return (
            f"a {kind} is no live object: pass the one whose state it is, e.g. the module; to read "
            f"a saved state alone write checkpoint.state({name!r})"
        )
    close = difflib.get_close_matches(name, sorted(RESTORING_OPTIONS[verb]), n=1, cutoff=0.6)
    meant = f"did you mean {close[0]!r}? Otherwise " if close and close[0] != name else ""
    return (
        f"a {kind} has no state to put back: {meant}pass the objects that were saved, by their "
        "names then; metrics, config and extra are read from the checkpoint: .metrics, .config, "
        ".extra"
    )
