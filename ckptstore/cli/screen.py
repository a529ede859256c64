"""What commands print: versions and tables for people, JSON for programs, complaints.

Whatever a store says (names, classes, configuration) was written by others. It is printed as text:
control characters are spelled out, and nothing is taken for rich's markup.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from ckptstore.cli.words import typed
from ckptstore.errors import CkptStoreWarning
from ckptstore.text import WORDS, aligned, number, plain, plain_lines, size

INDENT = "  "
GAP = 2
"""Spaces between the columns of a table."""


def print_json(value: object) -> None:
    """Print *value* as one line of JSON, in ASCII: no terminal takes it for anything else."""
    typer.echo(json.dumps(value, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal, aligned text anywhere else. Cells must be safe to print."""
    console = Console()
    if not console.is_terminal:
        typer.echo("\n".join(aligned(header, rows)))
        return
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    needed = 0
    for place, name in enumerate(header):
        width = max((cell_len(row[place]) for row in rows), default=0)
        needed += width + GAP
        table.add_column(
            Text(name),
            justify="left" if name in WORDS else "right",
            min_width=width,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    # Where it does not fit, the terminal breaks lines, which reads better than every cell broken.
    console.print(table, width=max(console.width, needed), crop=False, soft_wrap=True)


def print_metadata(metadata: Mapping[str, Any]) -> None:
    """Print all that is known of a version: one fact a line, nested ones indented.

    Args:
        metadata: As :attr:`ckptstore.entry.Entry.metadata` gives it.
    """
    console = Console(soft_wrap=True)
    for line in _lines(_for_people(metadata)):
        console.print(line)


def complain(kind: str, message: str) -> None:
    """Print an error or a warning on stderr."""
    typer.echo(f"{kind}: {plain_lines(message)}", err=True)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the library's warnings as sentences, without the line of code that they came from."""
    others = warnings.showwarning

    def show(  # noqa: PLR0917 - as Python calls it
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, CkptStoreWarning):
            complain("Warning", typed(str(message)))
        else:
            others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("always", CkptStoreWarning)
        yield


def _for_people(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return *metadata* without what was not recorded, sizes as people read them."""
    shown = _recorded(metadata)
    shown["parts"] = {name: _recorded(facts) for name, facts in metadata["parts"].items()}
    if "files" in metadata:
        shown["files"] = {_file(each): size(each["size_bytes"]) for each in metadata["files"]}
    return shown


def _file(facts: Mapping[str, Any]) -> str:
    """Return what a file is to its version, in words."""
    role = facts["role"] or "file"
    return str(role) if facts["part"] is None else f"{role} of {facts['part']}"


def _recorded(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_bytes"): size(value) if name == "size_bytes" else value
        for name, value in facts.items()
        if value not in (None, {}, [])
    }


def _lines(facts: Mapping[str, Any], depth: int = 0) -> Iterator[Text]:
    names = [plain(name) for name, value in facts.items() if not _is_nested(value)]
    width = max(map(len, names), default=0)
    for name, value in facts.items():
        start, label = Text(INDENT * depth), plain(name)
        if _is_nested(value):
            yield start.append(label, "bold")
            yield from _lines(value, depth + 1)
        else:
            yield start.append(label.ljust(width), "cyan").append(f"  {_leaf(value)}")


def _is_nested(value: object) -> bool:
    """Say whether *value* is a dict, and not a tree's way to write something else."""
    return isinstance(value, Mapping) and bool(value) and not next(iter(value)).startswith("$")


def _leaf(value: object) -> str:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return ", ".join(map(plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return number(value)
    return plain(json.dumps(value, ensure_ascii=False))
