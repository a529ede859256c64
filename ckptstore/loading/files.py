"""An opaque file out of a version, whole, compared with its digest before anybody uses it."""

from __future__ import annotations

from blake3 import blake3

from ckptstore.errors import IntegrityError
from ckptstore.format.layout import file_key
from ckptstore.format.manifest import File, Head
from ckptstore.loading.copies import bring_file, past_copy
from ckptstore.manifest import OpenManifest
from ckptstore.state.tensors import fresh_bytes, view_bytes
from ckptstore.storage.base import Storage

PIECE_BYTES = 4 * 1024 * 1024


def file_of(head: Head, role: str, part: str | None) -> File | None:
    """Return the file that is *role* to a part of the version, None if there is none."""
    return next((file for file in head.files if (file.role, file.part) == (role, part)), None)


def read_file(opened: OpenManifest, file: File) -> memoryview:
    """Read a file of a version into memory.

    Raises:
        IntegrityError: It is gone, of another size, or not what was saved.
        StorageError: The storage failed, or there is no memory for it.
    """
    key, storage, ref = file_key(file.save_id, file.number), opened.storage, opened.head.ref
    what = f"{ref}: its {file.role or 'file'} {storage.url}/{key}"
    try:
        bring_file(storage, key, file.size_bytes)
        # Before memory is asked for: a head may say anything.
        size = _size(storage, key, file.size_bytes)
        if size != file.size_bytes:
            raise IntegrityError(
                f"{what} should have {file.size_bytes} bytes, and has {size}", ref=ref
            )
        data = view_bytes(fresh_bytes(size))
        found = _read(storage, key, data)
        if found != file.digest and (origin := past_copy(storage, key)) is not None:
            found = _read(origin, key, data)
    except (EOFError, FileNotFoundError) as error:
        raise IntegrityError(f"{what} is gone or cut short", ref=ref) from error
    if found != file.digest:
        raise IntegrityError(f"{what} does not hold the bytes that were saved", ref=ref)
    return data


def _size(storage: Storage, key: str, expected: int) -> int:
    """Return a file's size; that of a copy counts only where it is the right one."""
    size = storage.size_bytes(key)
    origin = past_copy(storage, key) if size != expected else None
    return size if origin is None else origin.size_bytes(key)


def _read(storage: Storage, key: str, out: memoryview) -> str:
    """Read a whole file; return the digest of what came."""
    digest = blake3()
    for start in range(0, out.nbytes, PIECE_BYTES):
        piece = out[start : start + PIECE_BYTES]
        storage.read_into(key, start, piece)
        digest.update(piece)
    return digest.hexdigest()
