"""``ckptstore.json``: what never changes about a store."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ckptstore.format.fields import FORMAT
from ckptstore.format.sealed import seal, unseal

# A week: longer than any save, load or paused laptop should take.
DEFAULT_GRACE_S = 604_800


@dataclass(frozen=True)
class StoreFacts:
    """What ``ckptstore.json`` says."""

    store_id: UUID
    grace_s: int
    """Seconds that nothing is deleted for once no live version names it."""
    in_place: bool
    """Whether the storage it was made on creates manifests in place, so that a torn one is none."""


def encode_store(facts: StoreFacts) -> bytes:
    """Return the bytes of ``ckptstore.json``."""
    return seal(
        {
            "format": FORMAT,
            "store": str(facts.store_id),
            "grace_s": facts.grace_s,
            "in_place": facts.in_place,
            "requires": [],
        }
    )


def decode_store(data: bytes, where: str) -> StoreFacts:
    """Read ``ckptstore.json``.

    Raises:
        IntegrityError: It is not what was written.
        NewerFormatError: A newer ckptstore made the store.
    """
    fields = unseal(data, where)
    return StoreFacts(fields.uuid("store"), fields.number("grace_s"), fields.flag("in_place"))
