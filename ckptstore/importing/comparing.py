"""Whether a version has the very bytes that were read: digests of both, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from blake3 import blake3

from ckptstore.errors import ImportRefusedError
from ckptstore.format.manifest import Head
from ckptstore.manifest import open_manifest
from ckptstore.saving.capture import CapturedPart
from ckptstore.state.tensors import pieces
from ckptstore.storage.base import Storage

WORTH_THREADS_BYTES = 1024 * 1024


def digests_of(parts: Sequence[CapturedPart]) -> list[list[str]]:
    """Return the BLAKE3 of each tensor's bytes in row-major order, by part."""
    return [[_digest(tensor) for tensor in part.tensors] for part in parts]


def compare(
    storage: Storage,
    head: Head,
    parts: Sequence[CapturedPart],
    digests: Sequence[Sequence[str]],
    where: str,
) -> int:
    """Compare the digests of what was read with those that a version's manifest records.

    Args:
        storage: Where the version is.
        head: The version's.
        parts: What was saved.
        digests: What :func:`digests_of` said of it when it was read.
        where: Names the file.

    Returns:
        How many tensors there are.

    Raises:
        ImportRefusedError: Some differ, so memory or the file changed while it was saved.
    """
    opened = open_manifest(storage, head.run, head.version, save_id=head.save_id)
    count = 0
    for part, expected in zip(parts, digests, strict=True):
        recorded = [
            "".join(chunk.digest for chunk in tensor.chunks)
            for tensor in opened.part(part.name).tensors
        ]
        wrong = [
            name
            for name, before, after in zip(part.tensor_names, expected, recorded, strict=True)
            if before != after
        ]
        if wrong:
            raise ImportRefusedError(
                f"{where}: {len(wrong)} tensors of {part.name!r} are not saved as they were read, "
                f"the first {wrong[0]!r}: don't use {head.ref}, and import it again, with "
                "again=True; the file or this machine's memory changed meanwhile"
            )
        count += len(recorded)
    return count


def _digest(tensor: torch.Tensor) -> str:
    is_large = tensor.numel() * tensor.dtype.itemsize >= WORTH_THREADS_BYTES
    state = blake3(max_threads=blake3.AUTO if is_large else 1)
    for piece in pieces(tensor):
        state.update(piece)
    return state.hexdigest()
