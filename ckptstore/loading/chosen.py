"""A part's state for an object that is to take it: as much as was chosen, in the dtypes it had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ckptstore.errors import ArgumentError
from ckptstore.format.keys import keys_of, narrowed
from ckptstore.format.part import Part
from ckptstore.format.untree import decode, has_made_up, tensor_places
from ckptstore.loading.averages import inside
from ckptstore.loading.choice import EVERYTHING, Choice, named_anew
from ckptstore.loading.dtypes import as_they_were
from ckptstore.loading.fetch import Work, begin
from ckptstore.loading.fit import Leave
from ckptstore.loading.pinned import CPU, onto
from ckptstore.manifest import OpenManifest


@dataclass(frozen=True)
class Chosen:
    """State that was read; it is checked once :meth:`check` has returned.

    Attributes:
        state: Under the names that the module has.
        leave: What of the module may stay as it is; None for nothing.
        stored: The dtypes of tensors that were stored in another one than they had, and converted.
        is_partial: Whether part of the module surely gets no value.
        checking: The check of its bytes, which may be under way.
    """

    state: Any
    leave: Leave | None
    stored: tuple[str, ...] = ()
    is_partial: bool = False
    checking: Work[Any] | None = None

    def check(self) -> None:
        """Wait until every byte is checked.

        Raises:
            IntegrityError: Some of them are not what was saved.
            StorageError: The storage failed.
        """
        if self.checking is not None:
            self.checking.finish()

    def stop(self) -> None:
        """Give up what is under way; to be called where :meth:`check` won't be."""
        if self.checking is not None:
            self.checking.stop()


def chosen_state(
    opened: OpenManifest,
    name: str,
    choice: Choice = EVERYTHING,
    *,
    map_files: bool = False,
    device: torch.device = CPU,
) -> Chosen:
    """Read and check the chosen keys of a part, and no bytes of others.

    Args:
        opened: The version.
        name: The part's name.
        choice: Which keys, and what they are to be called.
        map_files: Whether tensors may be mapped instead of read (see :func:`.fetch.fetch`).
        device: As for :func:`begin_state`.

    Raises:
        VersionNotFoundError: There is no such part.
        ArgumentError: The part has no such keys.
        IntegrityError: Some of its bytes are not what was saved.
        StorageError: The storage failed.
    """
    chosen = begin_state(opened, name, choice, map_files=map_files, device=device)
    chosen.check()
    return chosen


def begin_state(
    opened: OpenManifest,
    name: str,
    choice: Choice = EVERYTHING,
    *,
    map_files: bool = False,
    verify: bool = True,
    inner: bool = False,
    device: torch.device = CPU,
) -> Chosen:
    """Read the chosen keys of a part, of which those mapped or sent are still being checked.

    Nobody may look into the state before ``check()`` has returned, except at names, shapes and
    dtypes. One of the two, ``check()`` or ``stop()``, must be called.

    Args:
        opened: The version.
        name: The part's name.
        choice: Which keys, and what they are to be called.
        map_files: Whether tensors may be mapped instead of read (see :func:`.fetch.fetch`).
        verify: Whether bytes are compared with their digests.
        inner: Whether it is an average's, and the state wanted is that of the module inside.
        device: To which tensors are sent where that is faster; the others are on the CPU.

    Raises:
        VersionNotFoundError: There is no such part.
        ArgumentError: The part has no such keys.
        IntegrityError: Some of its bytes are not what was saved.
        StorageError: The storage failed.
    """
    part = opened.part(name)
    if inner:
        part = inside(part)
    where = f"{opened.where}, part {name!r}"
    tree, names = part.tree, None
    if choice.only is not None or choice.skip or choice.rename:
        names = _picked(part, choice, f"part {name!r} of {opened.head.ref}")
        tree = narrowed(tree, names)
    places = {place for place in tensor_places(tree) if 0 <= place < len(part.tensors)}
    fetched = begin(
        opened.storage,
        opened.head,
        name,
        part,
        places,
        map_files=map_files,
        verify=verify,
        onto=onto(device, part),
    )
    try:
        # What is made of the values, not of the memory alone, is made of checked ones.
        if any(part.tensors[place].was for place in places) or has_made_up(tree):
            fetched.check()
        stored = as_they_were(fetched.tensors, part, where, opened.head.ref)
        state = decode(tree, where, fetched.tensors.__getitem__)
        if names is not None:
            state = named_anew(state, names, choice)
        return _chosen(part, choice, state, stored, fetched.checking)
    except BaseException:
        fetched.checking.stop()
        raise


def _chosen(
    part: Part, choice: Choice, state: Any, stored: tuple[str, ...], checking: Work[Any]
) -> Chosen:
    if not choice.is_partial and not part.left_out:
        return Chosen(state, None, stored, checking=checking)
    left_out = {choice.renamed(key): form for key, form in part.left_out.items()}
    wants = choice.wanting([*(keys_of(part.tree) or ()), *part.left_out])
    some = choice.only is not None or bool(choice.skip) or bool(left_out)
    leave = Leave(wants, left_out, choice.strict, converts=choice.dtype is not None)
    return Chosen(state, leave, stored, some, checking)


def _picked(part: Part, choice: Choice, what: str) -> dict[str, str]:
    keys = keys_of(part.tree)
    if keys is None:
        raise ArgumentError(f"{what} is no state dict, so only=, skip= and rename= have no keys")
    return choice.pick(keys, what, part.left_out)
