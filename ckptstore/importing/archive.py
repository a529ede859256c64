"""Zip archives as torch writes them: nothing compressed, every entry inside the file.

torch.save stores its entries uncompressed, so an archive can't be larger than its file, and one
that claims to be is made to harm.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from ckptstore.errors import ImportRefusedError

MAX_ENTRIES = 1_000_000
MAX_PICKLE_BYTES = 512 * 1024 * 1024
"""Of the pickle alone, which holds no tensors. The largest ones known have a few megabytes."""
ENCRYPTED = 0x1
UTF8 = 0x800
LOCAL_HEADER = 30
PICKLE = "data.pkl"
STORAGES = "data/"
ORDER = "byteorder"
PIECE_BYTES = 8 * 1024 * 1024


class Span(NamedTuple):
    """Where an entry's content lies in the file."""

    start: int
    size: int
    crc: int


def open_archive(file: IO[bytes], where: str) -> zipfile.ZipFile:
    """Open a zip archive and refuse one that torch can't have written.

    Args:
        file: The file; the archive is no longer than it.
        where: Names it in errors.

    Raises:
        ImportRefusedError: It is damaged, or some entry is compressed, encrypted, reaches beyond
            the file, has the name of another or a name that leads out of its folder.
    """
    size = file.seek(0, 2)
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ImportRefusedError(
            f"{where} begins as a zip archive and is none, or was cut short: {error}"
        ) from error
    problem = _problem(archive.infolist(), size)
    if problem is not None:
        archive.close()
        raise ImportRefusedError(f"{where} is no archive that torch.save wrote: {problem}")
    return archive


def folder_of(archive: zipfile.ZipFile, where: str) -> str:
    """Return the folder in an archive that has its one pickle, ``data.pkl``.

    Raises:
        ImportRefusedError: There is none, or more, or it is another kind of archive.
    """
    names = [PurePosixPath(name).name for name in archive.namelist()]
    if "constants.pkl" in names:
        raise ImportRefusedError(
            f"{where} is a TorchScript program, which holds code: load it with torch.jit.load() "
            "and save its state_dict()"
        )
    if PICKLE not in names:
        kind = "an archive of NumPy arrays" if _is_npz(archive) else "a zip archive"
        raise ImportRefusedError(
            f"{where} is {kind}, and nothing that torch.save wrote: it has no data.pkl"
        )
    root = root_of(archive)
    if root is None or names.count(PICKLE) > 1:
        raise ImportRefusedError(
            f"{where} is no archive that torch.save wrote: all lies in one folder there, with one "
            "data.pkl right in it"
        )
    size = archive.getinfo(f"{root}/{PICKLE}").file_size
    if size > MAX_PICKLE_BYTES:
        raise ImportRefusedError(
            f"{where}: its pickle has {size} bytes beside the tensors; at most "
            f"{MAX_PICKLE_BYTES} are read"
        )
    return root


def spans_of(archive: zipfile.ZipFile, file: IO[bytes], root: str, where: str) -> dict[str, Span]:
    """Return where the entries of an archive lie, by their names in its folder, all checked.

    Checksums are compared unless all are 0, as they are where torch was told to count none.

    Raises:
        ImportRefusedError: An entry is not where the archive says, lies in another, or is damaged.
    """
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
    counted = any(entry.CRC for entry in entries)
    found = {}
    for entry, end in zip(entries, ends, strict=True):
        file.seek(entry.header_offset)
        header = file.read(LOCAL_HEADER)
        lengths = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        name = file.read(lengths[0])
        start = entry.header_offset + LOCAL_HEADER + sum(lengths)
        if (
            header[:4] != b"PK\x03\x04"
            or header[8:10] != b"\0\0"
            or name != entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
            or start + entry.file_size > end
        ):
            raise ImportRefusedError(
                f"{where} is damaged: {entry.filename!r:.80} is not where the archive says"
            )
        span = Span(start, entry.file_size, entry.CRC)
        if counted and _crc(file, span) != entry.CRC:
            raise ImportRefusedError(
                f"{where} is damaged: the checksum of {entry.filename!r:.80} is wrong"
            )
        found[entry.filename.removeprefix(f"{root}/")] = span
    return found


def root_of(archive: zipfile.ZipFile) -> str | None:
    """Return the one folder that all of an archive lies in, None if there is no such folder."""
    roots = {name.partition("/")[0] for name in archive.namelist()}
    root = roots.pop() if len(roots) == 1 else None
    return root if f"{root}/{PICKLE}" in archive.namelist() else None


def content_of(file: IO[bytes], span: Span) -> io.BytesIO:
    """Return what an entry has."""
    file.seek(span.start)
    return io.BytesIO(file.read(span.size))


def _crc(file: IO[bytes], span: Span) -> int:
    file.seek(span.start)
    left, found = span.size, 0
    while left and (piece := file.read(min(left, PIECE_BYTES))):
        found = zlib.crc32(piece, found)
        left -= len(piece)
    return found


def _problem(entries: list[zipfile.ZipInfo], size: int) -> str | None:
    """Say why torch can't have written an archive, None if it can."""
    names = [entry.filename for entry in entries]
    problem = None
    if entries and min(entry.header_offset for entry in entries) != 0:
        return "something stands before its first entry"
    if len(entries) > MAX_ENTRIES:
        problem = f"it has {len(entries)} entries"
    elif len(set(names)) != len(names):
        problem = "two of its entries have one name"
    elif any(_leads_out(name) for name in names):
        problem = f"the name of an entry leads out of it: {next(filter(_leads_out, names))!r:.80}"
    elif any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        problem = "some entries are compressed, which torch.save never does"
    elif any(entry.flag_bits & ENCRYPTED for entry in entries):
        problem = "some entries are encrypted"
    elif (total := sum(entry.file_size for entry in entries)) > size:
        problem = f"its entries claim {total} bytes, and the file has {size}"
    elif any(entry.header_offset + entry.file_size > size for entry in entries):
        problem = "an entry reaches beyond its end"
    return problem


def _leads_out(name: str) -> bool:
    parts = name.split("/")
    return name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]


def _is_npz(archive: zipfile.ZipFile) -> bool:
    return all(name.endswith(".npy") for name in archive.namelist())
