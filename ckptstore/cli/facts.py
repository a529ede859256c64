"""``ckptstore tag``, ``untag``, ``tags``, ``log`` and ``note``: what became known later."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ckptstore.cli import screen
from ckptstore.cli.options import (
    CatalogUrl,
    Json,
    SingleWriter,
    StorageOptions,
    StoreUrl,
    open_store,
)
from ckptstore.errors import ArgumentError
from ckptstore.format.fields import format_time
from ckptstore.text import plain

Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A version: digits@7, digits@best, digits@latest, digits@TAG; @7 where there is only "
        "one run.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(metavar="TAG", help="The tag, e.g. prod.", show_default=False)]
RunName = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help="The run; the only run there is by default.", show_default=False
    ),
]


def set_tag(
    store: StoreUrl,
    ref: Ref,
    name: Name,
    *,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
) -> None:
    """Point a tag at a version, from wherever it pointed before."""
    with open_store(store, catalog, option, single_writer=single_writer) as opened:
        entry = opened.get(ref)
        opened.tag(entry, name)
    typer.echo(f"{plain(entry.ref)} has the tag {plain(name)}.")


def take_tag_away(
    store: StoreUrl,
    name: Name,
    *,
    run: RunName = None,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
) -> None:
    """Take a tag away; nothing happens if there is none of that name."""
    with open_store(store, catalog, option, single_writer=single_writer) as opened:
        opened.untag(name, run=run)
    typer.echo(f"No version has the tag {plain(name)}.")


def list_tags(
    store: StoreUrl,
    *,
    run: RunName = None,
    history: Annotated[
        bool, typer.Option("--history", help="List every move of every tag, with when and by whom.")
    ] = False,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    json: Json = False,
) -> None:
    """List a run's tags and the versions they point at."""
    with open_store(store, catalog, option) as opened:
        if history:
            listed: list[dict[str, Any]] = [
                {
                    "tag": move.tag,
                    "version": move.version,
                    "previous": move.previous,
                    "time": format_time(move.time),
                    "by": move.by,
                }
                for move in opened.tag_history(run=run)
            ]
        else:
            listed = [{"tag": tag, "ref": ref} for tag, ref in opened.tags(run).items()]
    if json:
        for each in listed:
            screen.print_json(each)
    elif listed:
        shown = [
            ["" if value is None else plain(str(value)) for value in each.values()]
            for each in listed
        ]
        screen.print_table(list(listed[0]), shown)


def log_metrics(
    store: StoreUrl,
    ref: Ref,
    metrics: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE…", help="Metrics, e.g. test_acc=0.98.", show_default=False
        ),
    ],
    *,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
) -> None:
    """Record metrics of a version that came later."""
    with open_store(store, catalog, option, single_writer=single_writer) as opened:
        entry = opened.log(ref, dict(map(_metric, metrics)))
    typer.echo(plain(repr(entry)))


def write_note(
    store: StoreUrl,
    ref: Ref,
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT", help="The note; an empty one takes it away.", show_default=False
        ),
    ],
    *,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
) -> None:
    """Note something about a version, in the place of what was noted before."""
    with open_store(store, catalog, option, single_writer=single_writer) as opened:
        entry = opened.note(ref, text or None)
    typer.echo(f"{plain(entry.ref)} has {'the' if entry.note else 'no'} note.")


def _metric(given: str) -> tuple[str, float | int]:
    name, _, value = given.rpartition("=")
    number: float | int = 0
    try:
        number = int(value) if value.lstrip("+-").isdecimal() else float(value)
    except ValueError:
        name = ""
    if not name:
        raise ArgumentError(
            f"{given!r} is no metric: write a name and a number, as in test_acc=0.98"
        )
    return name, number
