"""What a save need not write: tensors whose bytes lie in the store already.

A tensor is found by its digest, so it must be hashed before it is known whether it will be written.
Hashing everything first would take as long as the hashing that otherwise runs beside the writing.
So a few small samples of each tensor are compared first, in memory, with those of the version that
is built upon: a tensor that a training step changed differs in them all but always, and is hashed
while it is written, as ever. Only what has equal samples is hashed first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Pack
from ckptstore.saving.basis import Basis, Place
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.effort import Effort
from ckptstore.state.tensors import (
    SAMPLE_BYTES,
    SAMPLES,
    memory_sample,
    tensor_digest,
)
from ckptstore.storage.base import Storage

# A tensor of no more than that costs less to hash than to sample.
SMALL_BYTES = SAMPLES * SAMPLE_BYTES
# A pack stays as long as any live version names it. So a version may name a pack of another save
# only for at least this share of its data: a store is then at most eight times what its live
# versions hold, and in practice far from it.
LEAST_SHARE = 1 / 8
# Reading begins with one request for each pack's header, and each pack is one more object to lose.
MAX_FOREIGN_PACKS = 16
# Where there would be more, only the largest of them stay, so that the next save has room again.
KEPT_FOREIGN_PACKS = 8

PackId = tuple[object, int]


@dataclass
class Known:
    """What is known of a tensor before anything is written."""

    length: int
    digest: str | None = None
    """None where it is hashed while it is written."""
    places: Sequence[Place] = ()
    """Where its bytes lie already, in whatever version that is built upon."""
    place: Place | None = None
    """Where they are taken from, once that is settled; None where they are written."""
    sample: object = None
    pinned: bool = False
    """Whether it is named in any case and never written: nobody asked for it to be saved."""


def look_up(
    part: CapturedPart,
    bases: Sequence[Basis],
    found: Mapping[int, Known] | None = None,
    *,
    effort: Effort | None = None,
) -> list[Known]:
    """Return what is known of each of a part's tensors.

    Args:
        part: As captured.
        bases: Versions to build upon.
        found: What is known of some of them already, by place.
        effort: Is told what was hashed.
    """
    found = found or {}
    return [
        found.get(place) or look_up_tensor(tensor, bases, effort or Effort())
        for place, tensor in enumerate(part.tensors)
    ]


def look_up_tensor(tensor: torch.Tensor, bases: Sequence[Basis], effort: Effort) -> Known:
    """Return what is known of one tensor."""
    known = Known(tensor.numel() * tensor.dtype.itemsize)
    if known.length > SMALL_BYTES:
        known.sample = (known.length, memory_sample(tensor))
    if any(_may_have(basis, known) for basis in bases):
        with effort.hashed.timing(known.length):
            known.digest = tensor_digest(tensor, alone=effort.is_in_background)
        found = (basis.places.get(known.digest) for basis in bases)
        known.places = [each for each in found if each and each.length == known.length]
    return known


def _may_have(basis: Basis, known: Known) -> bool:
    """Say whether a tensor may be in a version, without hashing it."""
    if known.length not in basis.lengths:
        return False
    return known.sample is None or basis.samples is None or known.sample in basis.samples


def choose(places: Iterable[Place]) -> list[Pack]:
    """Return the packs that a version may share, of those where its bytes lie. Pure.

    The rule: at least :data:`LEAST_SHARE` of a pack's data, and at most
    :data:`MAX_FOREIGN_PACKS` packs; where there would be more, the :data:`KEPT_FOREIGN_PACKS` with
    the most bytes. What lies in the others is written again.
    """
    packs: dict[PackId, Pack] = {}
    stretches: dict[PackId, set[tuple[int, int]]] = {}
    for place in places:
        packs.setdefault(_id(place.pack), place.pack)
        stretches.setdefault(_id(place.pack), set()).add((place.start, place.length))
    used = {pack: sum(length for _, length in found) for pack, found in stretches.items()}
    fair = [
        pack
        for pack, length in used.items()
        if length >= LEAST_SHARE * (packs[pack].size_bytes - packs[pack].header_bytes)
    ]
    fair.sort(key=lambda pack: -used[pack])
    count = len(fair) if len(fair) <= MAX_FOREIGN_PACKS else KEPT_FOREIGN_PACKS
    return [packs[pack] for pack in fair[:count]]


def share(storage: Storage, known: Iterable[Known]) -> None:
    """Settle what is shared, and where it is taken from.

    Of several places of one tensor that counts whose pack holds the most of the version.

    Raises:
        StorageError: The storage failed.
    """
    known = [each for each in known if each.places]
    held: Counter[PackId] = Counter()
    for each in known:
        held.update({_id(place.pack): place.length for place in each.places})
    for each in known:
        each.place = max(each.places, key=lambda place: held[_id(place.pack)])
    chosen = choose(each.place for each in known if each.place is not None)
    shared = {_id(pack) for pack in chosen if is_whole(storage, pack)}
    shared |= {_id(each.place.pack) for each in known if each.pinned and each.place is not None}
    for each in known:
        if each.place is not None and _id(each.place.pack) not in shared:
            each.place = None


def is_whole(storage: Storage, pack: Pack) -> bool:
    """Say whether a pack is there at its recorded size."""
    try:
        return storage.size_bytes(pack_key(pack.save_id, pack.number)) == pack.size_bytes
    except FileNotFoundError:
        return False


def _id(pack: Pack) -> PackId:
    return pack.save_id, pack.number
