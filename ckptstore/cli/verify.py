"""``ckptstore verify``: is everything in a store what was saved?"""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.bar import bytes_bar
from ckptstore.cli.options import CatalogUrl, SingleWriter, StorageOptions, StoreUrl, open_store
from ckptstore.cli.words import typed


def verify_store(
    store: StoreUrl,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help="A version (digits@7), a run (digits) or a pattern over runs in quotes such as "
            "'sweep/*'. By default the whole store, with what belongs to no version.",
            show_default=False,
        ),
    ] = None,
    *,
    shallow: Annotated[
        bool,
        typer.Option(
            "--shallow", help="Check structure, sizes and headers, and read no other data."
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Do what is safe: record which versions are damaged, retire those whose manifests "
            "can't be read, write missing journal entries again from the catalog, and bring the "
            "catalog up to date. Nothing is removed.",
        ),
    ] = False,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead, one object in one line.")
    ] = False,
) -> None:
    """Check that everything in a store is what was saved.

    Every byte is read and compared with its digest. Exit code 1 means that damage was found,
    whether or not it was repaired.
    """
    with (
        open_store(store, catalog, option, single_writer=single_writer) as opened,
        bytes_bar() as progress,
    ):
        report = opened.verify(ref, deep=not shallow, repair=repair, progress=progress)
    if json:
        screen.print_json(report.to_json())
    else:
        if report.findings:
            header, rows = report.table()
            screen.print_table(header, [[typed(cell) for cell in row] for row in rows])
        typer.echo(report.summary())
    if not report.ok:
        raise typer.Exit(1)
