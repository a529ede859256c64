"""What a version says of the file of another tool that it was brought in from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptstore.format.fields import Fields

MAX_NAME = 255


@dataclass(frozen=True)
class ImportedFrom:
    """A file or folder of another tool."""

    name: str
    """Its name alone, without the folder it lay in."""
    format: str
    """What kind of file it was, e.g. ``torch``: a word for people."""
    size_bytes: int
    """Of the file, or of all files of the folder."""
    blake3: str
    """Of the file. Of a folder, of its files' names, sizes and digests: see docs/format.md."""


def imported_json(imported: ImportedFrom | None) -> dict[str, Any]:
    """Return the head's member ``imported_from``; nothing where there is none."""
    if imported is None:
        return {}
    value = {
        "name": imported.name,
        "format": imported.format,
        "size_bytes": imported.size_bytes,
        "blake3": imported.blake3,
    }
    return {"imported_from": value}


def decode_imported(fields: Fields) -> ImportedFrom | None:
    """Read the head's member ``imported_from``.

    Raises:
        IntegrityError: It is not what format 1 says.
    """
    if fields.get("imported_from") is None:
        return None
    imported = fields.fields("imported_from")
    name = imported.text("name")
    if not name or len(name) > MAX_NAME or "/" in name:
        raise imported.bad("name", f"a file's name of at most {MAX_NAME} characters")
    return ImportedFrom(
        name, imported.text("format"), imported.number("size_bytes"), imported.digest("blake3")
    )
