"""Zip archives as torch writes them: nothing compressed, every entry inside the file.

torch.save stores its entries uncompressed, so an archive can't be larger than its file, and one
that claims to be is made to harm.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import IO

from ckptstore.errors import ImportRefusedError

MAX_ENTRIES = 1_000_000
MAX_PICKLE_BYTES = 512 * 1024 * 1024
"""Of the pickle alone, which holds no tensors. The largest ones known have a few megabytes."""
ENCRYPTED = 0x1


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
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    problem = None
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
    if problem is not None:
        archive.close()
        raise ImportRefusedError(f"{where} is no archive that torch.save wrote: {problem}")
    return archive


def pickle_of(archive: zipfile.ZipFile, where: str) -> io.BytesIO:
    """Return the archive's one pickle, ``data.pkl``.

    Raises:
        ImportRefusedError: There is none, or it is another kind of archive.
    """
    names = {PurePosixPath(name).name: name for name in archive.namelist()}
    if "constants.pkl" in names:
        raise ImportRefusedError(
            f"{where} is a TorchScript program, which holds code: load it with torch.jit.load() "
            "and save its state_dict()"
        )
    if "data.pkl" not in names:
        kind = "an archive of NumPy arrays" if _is_npz(archive) else "a zip archive"
        raise ImportRefusedError(
            f"{where} is {kind}, and nothing that torch.save wrote: it has no data.pkl"
        )
    entry = archive.getinfo(names["data.pkl"])
    if entry.file_size > MAX_PICKLE_BYTES:
        raise ImportRefusedError(
            f"{where}: its pickle has {entry.file_size} bytes beside the tensors; at most "
            f"{MAX_PICKLE_BYTES} are read"
        )
    try:
        return io.BytesIO(archive.read(entry))  # all of it: only then is its checksum known
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        NotImplementedError,
        zlib.error,
    ) as error:
        raise ImportRefusedError(f"{where} is damaged: {error}") from error


def _leads_out(name: str) -> bool:
    parts = name.split("/")
    return name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]


def _is_npz(archive: zipfile.ZipFile) -> bool:
    return all(name.endswith(".npy") for name in archive.namelist())
