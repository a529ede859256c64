"""Sealed JSON: one object whose last member is the digest of all that comes before it.

The digest is that of the file's bytes before the ``,"blake3"`` that introduces it, so that the file
is plain JSON and nothing is serialised again to check it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import digest, dump_line, parse_line
from ckptstore.format.fields import Fields

SEAL = b',"blake3":"'
END = b'"}\n'
"""What follows the digest, and ends the file."""


def seal(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object with its digest as its last member, and a line feed."""
    body = dump_line(value)[:-1]
    return body + SEAL + digest(body).encode() + END


def is_torn(data: bytes) -> bool:
    """Say whether a file lacks its end, as one does whose writing was interrupted in place."""
    return not data.endswith(END)


def unseal(data: bytes, where: str) -> Fields:
    """Read a sealed object, digest and format first.

    Raises:
        IntegrityError: The digest is missing or wrong.
        NewerFormatError: A newer ckptstore made it.
    """
    body, found, tail = data.rpartition(SEAL)
    if not found or tail != digest(body).encode() + END:
        raise IntegrityError(f"{where}: its digest does not match; it was damaged or cut short")
    fields = Fields(parse_line(data[:-1], where), where)
    fields.check_format()
    return fields
