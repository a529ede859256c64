"""A pack's header read back, strictly: which name each stretch of its data has."""

from __future__ import annotations

import struct

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import MAX_LINE_BYTES, parse_line
from ckptstore.format.fields import Fields

LENGTH_BYTES = 8
OFFSETS = 2


def names_in(header: bytes, size_bytes: int, where: str) -> dict[tuple[int, int], list[str]]:
    """Return the names in a pack's header by where their bytes lie.

    Args:
        header: The file's bytes before its data, the eight of the length included. Its digest must
            have been checked.
        size_bytes: The whole file's.
        where: Names the file in errors.

    Returns:
        By start (from the file's start) and length in bytes; tensors without elements may share
        one. Nothing at all of a header with more than 64 MiB, which is not parsed.

    Raises:
        IntegrityError: It is no header of a safetensors file of that size.
    """
    if len(header) < LENGTH_BYTES:
        raise IntegrityError(f"{where}: its header has {len(header)} bytes")
    (length,) = struct.unpack_from("<Q", header)
    if length != len(header) - LENGTH_BYTES:
        raise IntegrityError(
            f"{where}: its header should have {len(header) - LENGTH_BYTES} bytes, and says {length}"
        )
    if length > MAX_LINE_BYTES:
        return {}
    entries = parse_line(header[LENGTH_BYTES:], where)
    if not isinstance(entries, dict):
        raise IntegrityError(f"{where}: its header should be a JSON object")
    names: dict[tuple[int, int], list[str]] = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        fields = Fields(entry, f"{where}, tensor {name!r}")
        offsets = fields.numbers("data_offsets")
        if len(offsets) != OFFSETS or not offsets[0] <= offsets[1] <= size_bytes - len(header):
            raise fields.bad("data_offsets", "begin and end of a stretch of the data")
        begin, end = offsets
        names.setdefault((len(header) + begin, end - begin), []).append(name)
    return names
