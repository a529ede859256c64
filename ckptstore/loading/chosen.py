"""A part's state for an object that is to take it: as much as was chosen, in the dtypes it had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptstore.errors import ArgumentError
from ckptstore.format.keys import keys_of, narrowed
from ckptstore.format.part import Part
from ckptstore.format.untree import decode, tensor_places
from ckptstore.loading.choice import EVERYTHING, Choice, named_anew
from ckptstore.loading.dtypes import as_they_were
from ckptstore.loading.fetch import fetch
from ckptstore.loading.fit import Leave
from ckptstore.manifest import OpenManifest


@dataclass(frozen=True)
class Chosen:
    """State that was read and checked.

    Attributes:
        state: Under the names that the module has.
        leave: What of the module may stay as it is; None for nothing.
        stored: The dtypes of tensors that were stored in another one than they had, and converted.
        is_partial: Whether part of the module surely gets no value.
    """

    state: Any
    leave: Leave | None
    stored: tuple[str, ...] = ()
    is_partial: bool = False


def chosen_state(
    opened: OpenManifest, name: str, choice: Choice = EVERYTHING, *, map_files: bool = False
) -> Chosen:
    """Read the chosen keys of a part, and no bytes of others.

    Args:
        opened: The version.
        name: The part's name.
        choice: Which keys, and what they are to be called.
        map_files: Whether tensors may be mapped instead of read (see :func:`.fetch.fetch`).

    Raises:
        VersionNotFoundError: There is no such part.
        ArgumentError: The part has no such keys.
        IntegrityError: Some of its bytes are not what was saved.
        StorageError: The storage failed.
    """
    part = opened.part(name)
    where = f"{opened.where}, part {name!r}"
    tree, names = part.tree, None
    if choice.only is not None or choice.skip or choice.rename:
        names = _picked(part, choice, f"part {name!r} of {opened.head.ref}")
        tree = narrowed(tree, names)
    places = {place for place in tensor_places(tree) if 0 <= place < len(part.tensors)}
    tensors = fetch(opened.storage, opened.head, name, part, places, map_files=map_files)
    stored = as_they_were(tensors, part, where, opened.head.ref)
    state = decode(tree, where, tensors.__getitem__)
    if names is not None:
        state = named_anew(state, names, choice)
    if not choice.is_partial and not part.left_out:
        return Chosen(state, None, stored)
    left_out = {choice.renamed(key): form for key, form in part.left_out.items()}
    wants = choice.wanting([*(keys_of(part.tree) or ()), *part.left_out])
    some = choice.only is not None or bool(choice.skip) or bool(left_out)
    leave = Leave(wants, left_out, choice.strict, converts=choice.dtype is not None)
    return Chosen(state, leave, stored, some)


def _picked(part: Part, choice: Choice, what: str) -> dict[str, str]:
    keys = keys_of(part.tree)
    if keys is None:
        raise ArgumentError(f"{what} is no state dict, so only=, skip= and rename= have no keys")
    return choice.pick(keys, what, part.left_out)
