"""What ``save`` was called with, sorted, checked and written as a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckptstore.errors import ArgumentError, StateWarning, warn
from ckptstore.format.layout import check_tag
from ckptstore.format.manifest import Head, Parent
from ckptstore.saving.attempts import save_in_attempts
from ckptstore.saving.capture import (
    CapturedPart,
    capture,
    capture_tree,
    encode_config,
    unknown_arguments,
)
from ckptstore.saving.effort import Effort
from ckptstore.saving.files import NewFile
from ckptstore.saving.narrowing import narrow
from ckptstore.saving.program import program_file
from ckptstore.saving.run_writer import RunWriter
from ckptstore.saving.save import Facts, check_rank, devices_of
from ckptstore.saving.selection import select, trained_and_left_out
from ckptstore.saving.settings import GivenSettings
from ckptstore.state import rng
from ckptstore.state.keywords import check_model, check_optimizer, metric_dict, sort, whole
from ckptstore.state.loaders import lost_orders
from ckptstore.state.metrics import forgotten_metrics
from ckptstore.storage.base import Storage


@dataclass(frozen=True)
class Captured:
    """All that a checkpoint will be, checked, before a byte of it is written."""

    parts: Sequence[CapturedPart]
    facts: Facts
    files: Sequence[NewFile]
    tags: tuple[str, ...]
    objects: Mapping[str, Any]
    """The live parts by name, as they were handed over."""


def capture_checkpoint(
    writer: RunWriter,
    given: GivenSettings,
    *,
    model: Any,
    optimizer: Any,
    epoch: Any,
    step: Any,
    model_config: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    extra: Any,
    parent: Parent | None,
    tags: Sequence[str],
    with_rng: bool,
    program: Any,
    only: Any,
    dtype: Any,
    keywords: Mapping[str, Any],
    left_out: Sequence[str] = (),
) -> Captured:
    """Check and capture what ``save`` was called with. Nothing is written.

    Raises:
        CkptStoreError: As :meth:`ckptstore.Store.save` says of what it was given.
    """
    check_rank()
    parts, numbers = _sorted(model, optimizer, metrics, keywords)
    names = checked_tags(tags)
    facts = Facts(
        "checkpoint",
        whole("epoch", epoch),
        whole("step", step),
        numbers,
        encode_config(config, "config") if config is not None else given.config,
        parent,
        left_out=tuple(left_out),
    )
    _check_any(parts, extra)
    captured = capture(parts, model_config)
    select(parts, captured, _without(only, left_out))
    narrow(captured, _without(dtype, left_out))
    captured += _extras(extra, with_rng=with_rng)
    for message in writer.once(lambda: _advice(parts, captured)):
        warn(message, StateWarning)
    files = [] if program is None else [_program(parts, captured, program)]
    facts = replace(facts, devices=devices_of(captured))
    return Captured(captured, facts, files, names, parts)


def write_checkpoint(
    storage: Storage,
    writer: RunWriter,
    given: GivenSettings,
    captured: Captured,
    effort: Effort,
) -> tuple[Head, tuple[str, ...]]:
    """Write a captured checkpoint and commit it, record the run's settings, and set its tags.

    Returns:
        The version's head, and the tags set on it.

    Raises:
        CkptStoreError: As :meth:`ckptstore.Store.save` says.
    """
    head = save_in_attempts(
        storage,
        writer,
        captured.parts,
        captured.facts,
        captured.files,
        keep=given.keep,
        effort=effort,
    )
    writer.record(given)
    writer.set_tags(captured.tags, head)
    return head, captured.tags


def _without(said: Any, left_out: Sequence[str]) -> Any:
    """Return what an option says of parts, without those that a lean save leaves out."""
    if not isinstance(said, Mapping):
        return said
    return {name: value for name, value in said.items() if name not in left_out}


def _advice(parts: Mapping[str, Any], captured: Sequence[CapturedPart]) -> list[str]:
    """Return what a training that resumes from this might find missing, to be said once."""
    return [
        *unknown_arguments(parts, list(captured)),
        *lost_orders(parts),
        *forgotten_metrics(parts),
        *trained_and_left_out(parts, captured),
    ]


def _sorted(
    model: Any,
    optimizer: Any,
    metrics: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, float | int]]:
    others, numbers = sort(keywords)
    if metrics is not None:
        listed = metric_dict(metrics)
        twice = sorted(listed.keys() & numbers.keys())
        if twice:
            raise ArgumentError(
                f"metric(s) {', '.join(twice)} stand both in metrics= and as keywords"
            )
        numbers |= listed
    parts: dict[str, Any] = {}
    if model is not None:
        check_model(model)
        parts["model"] = model
    if optimizer is not None:
        check_optimizer(optimizer)
        parts["optimizer"] = optimizer
    return parts | others, numbers


def _check_any(parts: Mapping[str, Any], extra: object) -> None:
    if not parts and extra is None:
        raise ArgumentError(
            "save() was given no state: pass a model, an optimizer or any other part"
        )


def _program(parts: Mapping[str, Any], captured: Sequence[CapturedPart], given: object) -> NewFile:
    """Return the model's program as a file; the model is left as it was found."""
    if "model" not in parts:
        there = ", ".join(map(repr, parts)) or "none"
        raise ArgumentError(
            "program= traces the part 'model', and there is no such part (there: "
            f"{there}): pass the module first, as in save(net, program=sample)"
        )
    part = next(part for part in captured if part.name == "model")
    if part.unchosen or part.was:
        raise ArgumentError(
            "program= needs the model's weights as they are: leave only= and dtype= of part "
            "'model' out, or save the program with another version"
        )
    return program_file(parts["model"], part, given)


def _extras(extra: Any, *, with_rng: bool) -> list[CapturedPart]:
    captured = []
    if extra is not None:
        captured.append(capture_tree("extra", extra))
    if with_rng:
        captured.append(capture_tree("rng", rng.capture(), kind="rng"))
    return captured


def checked_tags(tags: object) -> tuple[str, ...]:
    """Return ``tags=`` checked.

    Raises:
        ArgumentError: It is no list of names.
        InvalidNameError: One is no name for a tag.
    """
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise ArgumentError(f"tags= takes a list of names, not {tags!r:.80}")
    return tuple(check_tag(tag) for tag in tags)


def check_given(save: Callable[..., Any], what: Mapping[str, Any]) -> None:
    """Refuse what ``save`` would refuse.

    Raises:
        UsageError: As ``save`` says.
    """
    options = inspect.signature(save).parameters
    keywords = {name: each for name, each in what.items() if name not in options}
    parts, _ = _sorted(what.get("model"), what.get("optimizer"), what.get("metrics"), keywords)
    extra = what.get("extra")
    _check_any(parts, extra)
    for name in ("epoch", "step"):
        whole(name, what.get(name))
    checked_tags(what.get("tags", ()))
    if (config := what.get("config")) is not None:
        encode_config(config, "config")
    captured = capture(parts, what.get("model_config"))
    select(parts, captured, what.get("only"))
    if extra is not None:
        capture_tree("extra", extra)
