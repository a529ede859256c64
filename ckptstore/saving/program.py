"""A live module's program as a file to be stored with its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ckptstore.entry import Entry
from ckptstore.errors import ArgumentError
from ckptstore.programs.document import ROLE
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.files import NewFile


def program_file(module: object, part: CapturedPart, given: object) -> NewFile:
    """Export a module and return its program as a file.

    The module is left as it was found.

    Args:
        module: The module.
        part: What was captured of it, as it will be stored.
        given: What ``program=`` was given.

    Raises:
        ArgumentError: *module* is none, or *given* no sample.
        ProgramError: The module can't be exported, or the program computes something else.
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(
            f"program= traces the live module, and the model is a {type(module).__qualname__}: "
            "pass the module itself"
        )
    # torch.export takes a second to import.
    from ckptstore.programs.export import export_program

    return NewFile(ROLE, part.name, export_program(module, stored(part), given, part.name))


def stored(part: CapturedPart) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a module's state by key: those that are stored just as they are."""
    pairs = part.tree.get("$OrderedDict", ()) if isinstance(part.tree, dict) else ()
    return {
        key: part.tensors[node["$tensor"]]
        for key, node in pairs
        if isinstance(key, str) and isinstance(node, dict) and "$tensor" in node
    }


def carried_program(entry: Entry, part: str, name: str) -> Sequence[NewFile]:
    """Return the program of an entry's part, for a version whose part *name* has its weights.

    Raises:
        IntegrityError: It is damaged.
        StorageError: The storage failed.
    """
    found = [file for file in entry.head.files if (file.role, file.part) == (ROLE, part)]
    return [NewFile(ROLE, name, [entry.read_file(file)]) for file in found]
