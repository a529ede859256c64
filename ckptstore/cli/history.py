"""``ckptstore history``: the versions of runs."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.options import CatalogUrl, Json, StorageOptions, StoreUrl, open_store


def show_history(
    store: StoreUrl,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run, or a pattern in quotes such as 'sweep/*' ('*' doesn't cross '/'). By "
            "default all runs.",
            show_default=False,
        ),
    ] = None,
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="List at most so many, the newest. By default all.",
            show_default=False,
        ),
    ] = None,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    json: Json = False,
) -> None:
    """List versions with their metrics, by run and number.

    A table on a terminal, aligned text in a pipe or a file. Damaged versions are named on stderr.
    """
    with open_store(store, catalog, option) as opened:
        history = opened.history(run, limit=limit)
    for ref, damage in history.damaged:
        screen.complain("Warning", f"{ref} is damaged: {damage}")
    if json:
        for entry in history:
            screen.print_json(entry.metadata)
    elif history:
        screen.print_table(*history.table())
        for note in history.notes():
            typer.echo(note)
    elif not history.damaged:
        screen.complain("Note", f"{opened.url} has no versions yet")
