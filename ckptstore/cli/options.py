"""What several commands take: the store, its catalog, its storage's options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ckptstore.errors import ArgumentError

if TYPE_CHECKING:
    from ckptstore.store import Store

StoreUrl = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="A folder, or an address such as s3://bucket/prefix.",
        show_default=False,
    ),
]
CatalogUrl = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        metavar="URL",
        help="The SQL catalog, e.g. postgresql+psycopg://host/database. By default SQLite: beside "
        "a local store, in your data folder for a remote one.",
        show_default=False,
    ),
]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="An argument of the storage's filesystem, e.g. anon=true; may be given again. The "
        "value is taken as JSON where it is JSON, else as text. Others on this machine can see a "
        "command's arguments: put credentials into the environment instead.",
        show_default=False,
    ),
]
SingleWriter = Annotated[
    bool,
    typer.Option(
        "--single-writer",
        help="Write although the storage cannot keep two writers apart. You promise that nobody "
        "else writes to it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead, one line a version.")]
Mode = Literal["min", "max"]


def open_store(
    url: str, catalog: str | None, options: list[str] | None, *, single_writer: bool = False
) -> Store:
    """Open the store that a command names. Touches nothing there.

    Args:
        url: Where it is.
        catalog: Its catalog's address, None for the default.
        options: The storage's, as ``key=value``.
        single_writer: Whether it is promised that nobody else writes to it.

    Raises:
        ArgumentError: One of *options* is none.
        CkptStoreError: As :class:`ckptstore.store.Store`.
    """
    from ckptstore.store import Store

    return Store(
        url,
        catalog=catalog,
        storage_options=parse_options(options or []),
        single_writer=single_writer,
        on_full="raise",  # whoever runs a command looks at how it ends, and waits for no one
    )


def parse_options(options: list[str]) -> dict[str, Any]:
    """Return the ``key=value`` pairs of a command line as keyword arguments.

    Raises:
        ArgumentError: One is no such pair or is there twice. The message repeats no value, as it
            may be a secret.
    """
    found: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier():
            raise ArgumentError("--option takes KEY=VALUE, e.g. --option anon=true")
        if key in found:
            raise ArgumentError(f"--option {key}=… is given twice")
        found[key] = _value(value)
    return found


def parse_pairs(option: str, pairs: list[str] | None) -> dict[str, str]:
    """Return the ``key=value`` pairs of an option as text by text.

    Raises:
        ArgumentError: One is no such pair or is there twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            raise ArgumentError(f"--{option} takes A=B, each A once, not {pair!r}")
        found[key] = value
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    """Leave NaN and Infinity, which JSON has not, to be words."""
    raise ValueError(constant)
