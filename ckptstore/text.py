"""Facts as text for people. What a name says is shown, never obeyed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

WORDS = frozenset(
    {"ref", "copy", "kind", "tags", "decision", "reasons", "retired", "severity", "found", "store"}
)
"""The columns of a table that hold words; the others hold numbers."""
LARGEST_DOUBLE = int(sys.float_info.max)


def plain(name: str) -> str:
    """Return a name with control characters spelled out, so that it can't move a terminal's cursor.

    So is whatever else can't be seen: marks that turn the direction of writing, lone surrogates.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in name
    )


def plain_lines(message: str) -> str:
    """Return a message with all but its line breaks spelled out as :func:`plain` does."""
    return "\n".join(map(plain, message.split("\n")))


def number(value: float, digits: int = 6) -> str:
    """Return a number for people: an int in full, anything else to so many significant digits.

    Another program may have recorded an int of any length, of which Python writes no more than
    4300 digits.
    """
    if not isinstance(value, int):
        return f"{value:.{digits}g}"
    if abs(value) > LARGEST_DOUBLE:
        return f"{'negative ' if value < 0 else ''}int of {value.bit_length()} bits"
    return str(value)


def size(size_bytes: int) -> str:
    """Return a size for people, in powers of 1000."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004 - the next unit's size
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: words flush left, numbers flush right.

    Widths are those on a terminal, where a letter may take two cells or none.
    """
    from rich.cells import cell_len

    table = [header, *rows]
    widths = [max(cell_len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = []
        for name, cell, width in zip(header, row, widths, strict=True):
            gap = " " * (width - cell_len(cell))
            cells.append(cell + gap if name in WORDS else gap + cell)
        lines.append("  ".join(cells).rstrip())
    return lines
