"""Safetensors files: the header checked here first, then read by the library, mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ckptstore.errors import ImportRefusedError, IntegrityError
from ckptstore.format.digest import parse_line

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 64 * 1024 * 1024
"""A header of 500,000 tensors; the library itself reads 100 MB."""
METADATA = "__metadata__"


def is_safetensors(head: bytes) -> bool:
    """Say whether a file that begins with *head* is one: a length, then a JSON object."""
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return length <= MAX_HEADER_BYTES and head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def read_safetensors(path: Path, where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a file's tensors by name, mapped and not read, and its metadata.

    Raises:
        ImportRefusedError: Its header is not what the format says, or the file is cut short.
    """
    names = _check_header(path, where)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            return {name: opened.get_tensor(name) for name in names}, metadata
    except (SafetensorError, ValueError, RuntimeError, AttributeError, TypeError, OSError) as error:
        # The last three: a dtype that this torch or this library doesn't know.
        raise ImportRefusedError(f"{where} is no safetensors file: {error}") from error


def _check_header(path: Path, where: str) -> list[str]:
    """Return the tensors' names in the order of the file.

    Raises:
        ImportRefusedError: The header is too long, no JSON, or says what can't be.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
            raise ImportRefusedError(
                f"{where} claims a header of {length} bytes, and has {size} in all: it was cut "
                "short, or is no safetensors file"
            )
        line = file.read(length)
    try:
        header = parse_line(line, f"{where}, its header")
    except IntegrityError as error:
        raise ImportRefusedError(str(error)) from error
    if not isinstance(header, dict):
        raise ImportRefusedError(f"{where}: its header is no JSON object")
    data = size - LENGTH_BYTES - length
    items = {name: item for name, item in header.items() if name != METADATA}
    for name, item in items.items():
        ends = item.get("data_offsets") if isinstance(item, dict) else None
        if (
            not isinstance(ends, list)
            or [type(end) for end in ends] != [int, int]
            or not 0 <= ends[0] <= ends[1] <= data
        ):
            raise ImportRefusedError(
                f"{where}: the tensor {name!r:.80} does not lie within the {data} bytes of data"
            )
    return sorted(items, key=lambda name: (items[name]["data_offsets"][0], name))
