"""A version as something to build upon: where in the store the bytes of its tensors lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ckptstore.format.manifest import File, Pack, Parent
from ckptstore.format.part import Part


class Place(NamedTuple):
    """Where some bytes lie in the store."""

    pack: Pack
    start: int
    """Bytes from the pack file's start."""
    length: int


@dataclass(frozen=True)
class Basis:
    """A version to build upon: where the bytes of each of its tensors lie."""

    version: Parent
    places: Mapping[str, Place]
    """By BLAKE3 of the bytes."""
    samples: frozenset[object] | None = None
    """The samples of its tensors, None where nobody in this process has seen them."""
    files: Mapping[str, File] = field(default_factory=dict)
    """Its opaque files by BLAKE3 of their bytes."""
    left_out: Mapping[tuple[str, str, object], str] = field(default_factory=dict)
    """BLAKE3 of tensors that it left out, by part, key and sample."""
    lengths: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        lengths = frozenset(place.length for place in self.places.values())
        object.__setattr__(self, "lengths", lengths)


def basis_of(
    version: Parent,
    packs: Sequence[Pack],
    parts: Iterable[Part],
    samples: frozenset[object] | None = None,
    *,
    files: Sequence[File] = (),
    left_out: Mapping[tuple[str, str, object], str] | None = None,
) -> Basis:
    """Return a version, whose head names *packs* and *files* and has these parts, as a basis."""
    return Basis(
        version,
        {
            chunk.digest: Place(packs[chunk.pack], chunk.start, chunk.length)
            for part in parts
            for tensor in part.tensors
            for chunk in tensor.chunks
            if chunk.length
        },
        samples,
        {file.digest: file for file in files},
        left_out or {},
    )
