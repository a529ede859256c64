"""``ckptstore copy``: runs and versions into another store."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.bar import bytes_bar
from ckptstore.cli.options import SingleWriter, StorageOptions, parse_options


def copy_store(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="The store to copy from: a folder, or an address such as s3://bucket/prefix.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="The store to copy into; it is made where there is none.",
            show_default=False,
        ),
    ],
    *,
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="Copy this run, or those that a pattern in quotes such as 'sweep/*' matches; may "
            "be given again.",
            show_default=False,
        ),
    ] = None,
    ref: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF",
            help="Copy this version: digits@7, digits@best, digits@TAG; may be given again.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="The run's name in TARGET, where one run is copied under another name.",
            show_default=False,
        ),
    ] = None,
    option: StorageOptions = None,
    target_option: Annotated[
        list[str] | None,
        typer.Option(
            "--target-option",
            metavar="KEY=VALUE",
            help="As --option, for TARGET; --option is for SOURCE.",
            show_default=False,
        ),
    ] = None,
    single_writer: SingleWriter = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print what was done as one line of JSON instead.")
    ] = False,
) -> None:
    """Copy runs or versions into another store, and verify them.

    Without --run and --ref all of it is copied.
    What is there already is not copied again, so an interrupted copy is finished by the same
    command, and the same command keeps a backup up to date. Retired versions are not copied.
    Damaged ones are named, the others are copied, and the exit code is 1.
    """
    from ckptstore.store import Store

    storage_options = parse_options(option or [])
    target_options = parse_options(target_option or [])
    with (
        Store(source, storage_options=storage_options) as here,
        Store(target, storage_options=target_options, single_writer=single_writer) as there,
        bytes_bar() as progress,
    ):
        copied = here.copy_to(there, run=run, ref=ref, into=into, progress=progress)
    if json:
        screen.print_json(copied.to_json())
        return
    if copied.versions:
        screen.print_table(*copied.table())
    typer.echo(copied.summary())
