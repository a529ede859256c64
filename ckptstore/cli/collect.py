"""``ckptstore collect``: delete what no version has needed for longer than the grace period."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.bar import count_bar
from ckptstore.cli.options import CatalogUrl, SingleWriter, StorageOptions, StoreUrl, open_store


def collect_store(
    store: StoreUrl,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead, one object in one line.")
    ] = False,
) -> None:
    """Delete what no version has needed for longer than the store's grace period.

    That is the data of retired versions, and what interrupted saves left. Safe beside trainings and
    other clean-ups; where it can't be told what is needed, nothing is deleted. Exit code 1 means
    that something could not be deleted: the next clean-up tries again.
    """
    with (
        open_store(store, catalog, option, single_writer=single_writer) as opened,
        count_bar() as progress,
    ):
        done = opened.collect(dry_run=dry_run, progress=progress)
    if json:
        screen.print_json(done.to_json())
    else:
        typer.echo(repr(done))
    if done.failed:
        raise typer.Exit(1)
