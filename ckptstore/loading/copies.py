"""What a load fetches whole into a cache, and where it reads again what a copy has wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ckptstore.errors import CacheWarning, warn
from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Pack
from ckptstore.format.part import Chunk
from ckptstore.storage.base import Storage
from ckptstore.storage.cached import CachedStorage

WHOLE_BYTES = 8 * 2**20
"""A pack that is no larger is fetched whole: its parts would take as long."""
WORTHWHILE_SHARE = 8
"""Of a larger one a load must want one such part. It is the share of a pack for which a version at
least names it (:mod:`ckptstore.saving.reuse`), so what loads a part whole finds all of it again."""


def worth_keeping(packs: Sequence[Pack], chunks: Iterable[Chunk]) -> list[Pack]:
    """Say which packs to fetch whole for some chunks of them. Pure: touches no storage.

    Returns:
        Small ones, and those of which at least an eighth is wanted: so a few tensors or a slice out
        of a large one do not fetch it.
    """
    wanted: dict[int, set[tuple[int, int]]] = {}
    for chunk in chunks:
        if chunk.length:
            wanted.setdefault(chunk.pack, set()).add((chunk.start, chunk.length))
    return [
        packs[index]
        for index, stretches in sorted(wanted.items())
        if packs[index].size_bytes <= WHOLE_BYTES
        or WORTHWHILE_SHARE * (packs[index].header_bytes + sum(length for _, length in stretches))
        >= packs[index].size_bytes
    ]


def bringing(
    storage: Storage, packs: Sequence[Pack], chunks: Iterable[Chunk]
) -> tuple[Callable[[Pack], None], list[Pack]]:
    """Return how a pack is brought into the storage's cache, and which; none if it has no cache."""
    if not isinstance(storage, CachedStorage):
        return _nothing, []
    kept = worth_keeping(packs, chunks)
    keys = frozenset(pack_key(pack.save_id, pack.number) for pack in kept)

    def bring(pack: Pack) -> None:
        storage.bring(pack_key(pack.save_id, pack.number), pack.size_bytes, beside=keys)

    return bring, kept


def bring_file(storage: Storage, key: str, size_bytes: int) -> None:
    """Fetch a file, which is always read whole, into the storage's cache if it has one."""
    if isinstance(storage, CachedStorage):
        storage.bring(key, size_bytes)
        tell_trouble(storage)


def tell_trouble(storage: Storage) -> None:
    """Warn, once a store, of a cache that could not be used."""
    said = storage.trouble() if isinstance(storage, CachedStorage) else None
    if said is not None:
        warn(said, CacheWarning)


def past_copy(storage: Storage, key: str) -> Storage | None:
    """Drop an object's copy, whose bytes turned out wrong.

    Returns:
        Where to read them again; None where they were the storage's own.
    """
    return storage.without_copy(key) if isinstance(storage, CachedStorage) else None


def _nothing(_pack: Pack) -> None:
    """Do nothing: there is no cache."""
