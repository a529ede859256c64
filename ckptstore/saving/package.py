"""What ``save_package`` was called with, written as a lean version for inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ckptstore.entry import Entry
from ckptstore.errors import ArgumentError, StateWarning, VersionNotFoundError, warn
from ckptstore.format.manifest import Head, Parent, PartInfo, parent_of
from ckptstore.format.paths import tensors_by_path
from ckptstore.saving.attempts import save_in_attempts
from ckptstore.saving.capture import (
    CapturedPart,
    capture,
    capture_tree,
    encode_config,
    unknown_arguments,
)
from ckptstore.saving.checkpoint import checked_tags
from ckptstore.saving.files import NewFile
from ckptstore.saving.program import carried_program, program_file
from ckptstore.saving.run_writer import RunWriter
from ckptstore.saving.save import Facts, check_rank
from ckptstore.saving.settings import GivenSettings
from ckptstore.state.key_patterns import listed
from ckptstore.state.tensors import dtype_name
from ckptstore.storage.base import Storage


def save_package(
    storage: Storage,
    writer: RunWriter,
    given: GivenSettings,
    source: Any,
    *,
    held: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None,
    part: str,
    model_config: Mapping[str, Any] | None,
    parent: Parent | None,
    tags: Sequence[str],
    program: Any = None,
) -> tuple[Head, tuple[str, ...]]:
    """Save a package.

    Args:
        storage: Where to.
        writer: The run as this process writes it.
        given: The settings its caller named; a live module's package has that config.
        source: A checkpoint or package, or a live module.
        held: What the head says of the package's contents.
        preprocessing: The statistics' state, or None.
        part: Which part of an entry is the model.
        model_config: Constructor arguments instead of the recorded ones.
        parent: The version it came from; an entry is its own package's parent by default.
        tags: Tags to set on it.
        program: Sample inputs to trace a live module with. An entry's program comes along.

    Raises:
        CkptStoreError: As :meth:`ckptstore.Store.save_package` says.
    """
    check_rank()
    names = checked_tags(tags)
    files: Sequence[NewFile] = []
    if isinstance(source, Entry):
        if program is not None:
            raise ArgumentError(
                f"program= traces a live module, and {source.ref} has its weights alone: pass the "
                "module, or save the checkpoint with program=, which its packages then have too"
            )
        model, facts = _from_entry(source, part, held, parent)
        files = carried_program(source, part, model.name)
    else:
        model, facts = _from_module(
            writer,
            source,
            part=part,
            held=held,
            parent=parent,
            model_config=model_config,
            config=given.config,
        )
        if program is not None:
            files = [program_file(source, model, program)]
    if model_config is not None:
        model.model_config = encode_config(model_config, "model_config")
    captured = [model]
    if preprocessing is not None:
        captured.append(capture_tree("preprocessing", dict(preprocessing)))
    head = save_in_attempts(storage, writer, captured, facts, files, keep=given.keep)
    writer.record(given)
    writer.set_tags(names, head)
    return head, names


def _from_entry(
    entry: Entry, part: str, held: Mapping[str, Any], parent: Parent | None
) -> tuple[CapturedPart, Facts]:
    head = entry.head
    info = _module_info(head, part)
    (model,) = capture({"model": entry.state(part)})
    model.left_out = entry._source.left_out(entry, part)  # noqa: SLF001 - with what they were
    if model.left_out:
        warn(
            f"{listed([*model.left_out])} of part {part!r} of {entry.ref} were left out when it "
            "was saved, so the package lacks them too: whoever loads it gets them from the class",
            StateWarning,
        )
    were = {key: saved.was for key, saved in entry.tensors(part).items()}
    for key, node in tensors_by_path(model.tree).items():
        was = were.get(key)
        if was is not None:
            model.was[node["$tensor"]] = dtype_name(was)
    model.kind, model.class_name, model.model_config = info.kind, info.class_name, info.model_config
    return model, Facts(
        "package",
        head.epoch,
        head.step,
        entry.metrics,
        head.config,
        parent or parent_of(head),
        held,
        (parent_of(head),),
    )


def _from_module(
    writer: RunWriter,
    module: object,
    *,
    part: str,
    held: Mapping[str, Any],
    parent: Parent | None,
    model_config: Mapping[str, Any] | None,
    config: Any,
) -> tuple[CapturedPart, Facts]:
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(
            f"save_package() takes a checkpoint, its ref or a module, not a "
            f"{type(module).__qualname__}"
        )
    if part != "model":
        raise ArgumentError(
            f"part={part!r} chooses a part of a checkpoint; a live module is the model itself"
        )
    parts = {"model": module}
    captured = capture(parts, model_config)
    for message in writer.once(lambda: unknown_arguments(parts, captured)):
        warn(message, StateWarning)
    return captured[0], Facts("package", config=config, parent=parent, package=held)


def _module_info(head: Head, part: str) -> PartInfo:
    for info in head.parts:
        if info.name == part and info.kind in ("module", "state_dict"):
            return info
    modules = [info.name for info in head.parts if info.kind in ("module", "state_dict")]
    raise VersionNotFoundError(
        f"{head.ref} has no module named {part!r}; it has {', '.join(map(repr, modules)) or 'none'}"
    )
