"""Opaque files of a version, such as a program: named by what they are to it, never by a path."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from blake3 import blake3

from ckptstore.errors import StorageError
from ckptstore.format.layout import file_key
from ckptstore.format.manifest import File
from ckptstore.saving.basis import Basis
from ckptstore.saving.effort import Effort
from ckptstore.storage.base import Storage

# How much of a file on this machine is in memory at once.
PIECE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class NewFile:
    """A file that is to be stored with a version."""

    role: str
    """What it is to the version, e.g. ``program``."""
    part: str | None
    """The part that it belongs to, None where it belongs to none."""
    content: Sequence[bytes | memoryview] | Path
    """Its bytes one after another, or a file of this machine that nobody changes meanwhile."""


def write_files(
    storage: Storage,
    save_id: UUID,
    files: Sequence[NewFile],
    bases: Sequence[Basis] = (),
    *,
    effort: Effort | None = None,
) -> list[File]:
    """Write those files that are not in the store already; all are durable when this returns.

    Each is read twice: to know its digest, and to write it.

    Args:
        storage: Where to.
        save_id: Names them.
        files: What to write.
        bases: Versions whose files may be named instead of writing the same bytes again.
        effort: Is told what was hashed and written.

    Raises:
        StorageError: One could not be written, or was changed meanwhile; no version names any.
    """
    effort = effort or Effort()
    written: list[File] = []
    for number, new in enumerate(files):
        begun = time.perf_counter()
        size, digest = _measured(new)
        effort.hashed.add(size, time.perf_counter() - begun)
        known = shared_file(storage, bases, digest, size)
        if known is None:
            known = File(save_id, number, size, digest)
            with effort.written.timing(size):
                _write(storage, known, new)
        written.append(replace(known, role=new.role, part=new.part))
    return written


def shared_file(
    storage: Storage, bases: Iterable[Basis], digest: str, size_bytes: int
) -> File | None:
    """Return a file with these bytes that a version may name, None if there is none.

    Raises:
        StorageError: The storage failed.
    """
    for basis in bases:
        known = basis.files.get(digest)
        if known is not None and known.size_bytes == size_bytes and _is_whole(storage, known):
            return known
    return None


def _is_whole(storage: Storage, file: File) -> bool:
    """Say whether a file is there at its recorded size."""
    try:
        return storage.size_bytes(file_key(file.save_id, file.number)) == file.size_bytes
    except FileNotFoundError:
        return False


def _measured(new: NewFile) -> tuple[int, str]:
    state, size = blake3(), 0
    for piece in _pieces(new):
        state.update(piece)
        size += memoryview(piece).nbytes
    return size, state.hexdigest()


def _write(storage: Storage, file: File, new: NewFile) -> None:
    state = blake3()
    with storage.open_writer(file_key(file.save_id, file.number)) as writer:
        for piece in _pieces(new):
            state.update(piece)
            writer.write(memoryview(piece))
        if state.hexdigest() != file.digest:
            raise StorageError(
                f"{new.content}, the {new.role} to be stored, was changed while it was read: save "
                "again once nothing writes to it"
            )


def _pieces(new: NewFile) -> Iterator[bytes | memoryview]:
    if not isinstance(new.content, Path):
        yield from new.content
        return
    try:
        with new.content.open("rb") as source:
            while piece := source.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise StorageError(
            f"{new.content}, the {new.role} to be stored, can't be read: {error}"
        ) from error
