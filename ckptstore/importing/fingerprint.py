"""Which file it is: its size and the digest of all its bytes, by which it is known again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from ckptstore.errors import ImportRefusedError

PIECE_BYTES = 8 * 1024 * 1024


class Fingerprint(NamedTuple):
    """A file's, or a folder's."""

    size_bytes: int
    blake3: str
    seen: tuple[tuple[str, int, int], ...]
    """Of each file its name, size and time of change, by which a later look knows it again."""


def fingerprint(path: Path, where: str) -> Fingerprint:
    """Read a file, or the files that lie right in a folder, and return what tells it from others.

    The digest of a folder is that of one line a file, ``<digest> <size> <name>`` and a line feed,
    in the order of the names.

    Raises:
        ImportRefusedError: It can't be read, or changed while it was.
    """
    try:
        seen = look(path)
        if not path.is_dir():
            found, size = _digest(path), seen[0][1]
        else:
            lines = [f"{_digest(path / name)} {size} {name}\n" for name, size, _ in seen]
            found = blake3("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
            size = sum(size for _, size, _ in seen)
        now = look(path)
    except OSError as error:
        raise ImportRefusedError(f"{where} can't be read: {error.strerror or error}") from error
    if now != seen:
        raise ImportRefusedError(f"{where} is being written to: import it when it is whole")
    return Fingerprint(size, found, seen)


def look(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of a file, or of each in a folder, by name."""
    found = []
    for each in _files(path) if path.is_dir() else [path]:
        status = each.stat()
        found.append((each.name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(each for each in folder.iterdir() if each.is_file())


def _digest(path: Path) -> str:
    hasher = blake3(max_threads=blake3.AUTO)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()
