"""What need not be saved: named where the store has it already, and recorded as left out if not.

A key that was not chosen is part of the version all the same if its tensors lie, bit for bit, in a
version that is built upon: to name them costs nothing, and then the version is whole. Only what
nobody ever saved is left out, and the part's line says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ckptstore.format.keys import keys_of, narrowed
from ckptstore.format.manifest import Pack
from ckptstore.format.part import Form
from ckptstore.format.paths import tensors_by_path
from ckptstore.format.untree import tensor_places
from ckptstore.saving.basis import Basis
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.effort import Effort
from ckptstore.saving.reuse import Known, is_whole, look_up_tensor
from ckptstore.state.tensors import dtype_name, tensor_digest
from ckptstore.storage.base import Storage


def settle(
    storage: Storage, part: CapturedPart, bases: Sequence[Basis], effort: Effort | None = None
) -> tuple[CapturedPart, dict[int, Known]]:
    """Return a part without what is left out.

    Args:
        storage: Where the version goes.
        part: As captured; it is not changed.
        bases: Versions to build upon.
        effort: Is told what was hashed.

    Returns:
        The part, and what is known of those of its tensors that are named though nobody chose them.

    Raises:
        StorageError: The storage failed.
    """
    if not part.unchosen:
        return part, {}
    keys = keys_of(part.tree) or []
    unchosen = set(part.unchosen)
    needed = tensor_places(narrowed(part.tree, [key for key in keys if key not in unchosen]))
    effort, whole = effort or Effort(), dict[object, bool]()
    known: dict[int, Known] = {}
    left_out: dict[str, Form | None] = {}
    samples: dict[str, object] = {}
    nodes = tensors_by_path(part.tree)
    for key in part.unchosen:
        places = tensor_places(narrowed(part.tree, [key])) - needed
        for place in places - known.keys():
            known[place] = _held(storage, part.tensors[place], bases, whole, effort)
        if any(known[place].length and not known[place].places for place in places):
            form, place = _form(part, nodes.get(key, {}))
            if form is not None and place not in part.was:
                found = known[place]
                digest = _left_digest(part, key, place, found, bases, effort)
                form = replace(form, digest=digest)
                samples[key] = found.sample
            left_out[key] = form
    kept = narrowed(part.tree, [key for key in keys if key not in left_out])
    settled, named = _without(part, kept, left_out, known)
    return replace(settled, left_out_samples=samples), named


def unsaved_bytes(part: CapturedPart) -> int:
    """Return how many bytes a part has that nobody chose."""
    if not part.unchosen:
        return 0
    unchosen = set(part.unchosen)
    chosen = [key for key in keys_of(part.tree) or [] if key not in unchosen]
    needed = tensor_places(narrowed(part.tree, chosen))
    return sum(tensor.nbytes for place, tensor in enumerate(part.tensors) if place not in needed)


def _held(
    storage: Storage,
    tensor: torch.Tensor,
    bases: Sequence[Basis],
    whole: dict[object, bool],
    effort: Effort,
) -> Known:
    """Look a tensor up in packs that are there at their recorded size."""
    known = look_up_tensor(tensor, bases, effort)

    def is_there(pack: Pack) -> bool:
        key = (pack.save_id, pack.number)
        if key not in whole:
            whole[key] = is_whole(storage, pack)
        return whole[key]

    known.places = [place for place in known.places if is_there(place.pack)]
    known.pinned = bool(known.places)
    return known


def _form(part: CapturedPart, node: Mapping[str, Any]) -> tuple[Form | None, int]:
    """Return what a plain tensor is, and its place; None for anything else."""
    place = node.get("$tensor")
    if place is None:
        return None, -1
    tensor = part.tensors[place]
    return Form(part.was.get(place, dtype_name(tensor.dtype)), tuple(tensor.shape)), place


def _left_digest(  # noqa: PLR0917 - a tensor, and what is known of it
    part: CapturedPart,
    key: str,
    place: int,
    known: Known,
    bases: Sequence[Basis],
    effort: Effort,
) -> str:
    """Return the digest of a tensor that is left out.

    It is taken for the one of the version before as long as its sample is that one's: a frozen
    backbone is hashed once, and not with every save. Nobody reads bytes by this digest.
    """
    if known.digest is not None:
        return known.digest
    if known.sample is not None and known.sample != (known.length, None):
        for basis in bases:
            found = basis.left_out.get((part.name, key, known.sample))
            if found is not None:
                return found
    with effort.hashed.timing(known.length):
        return tensor_digest(part.tensors[place], alone=effort.is_in_background)


def _without(
    part: CapturedPart, tree: Any, left_out: Mapping[str, Form | None], known: Mapping[int, Known]
) -> tuple[CapturedPart, dict[int, Known]]:
    """Return a part with the tensors of that tree alone."""
    places = sorted(tensor_places(tree))
    numbers = {place: number for number, place in enumerate(places)}
    settled = replace(
        part,
        tree=_renumbered(tree, numbers),
        tensors=[part.tensors[place] for place in places],
        tensor_names=[part.tensor_names[place] for place in places],
        was={numbers[place]: was for place, was in part.was.items() if place in numbers},
        unchosen=(),
        left_out={**part.left_out, **left_out},
    )
    return settled, {numbers[place]: each for place, each in known.items() if place in numbers}


def _renumbered(tree: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(tree, list):
        return [_renumbered(item, numbers) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: numbers[item]
        if key in ("$tensor", "$array") and type(item) is int
        else _renumbered(item, numbers)
        for key, item in tree.items()
    }
