"""``ckptstore show`` and ``ckptstore best``: all that is known of one version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.options import CatalogUrl, Json, Mode, StorageOptions, StoreUrl, open_store

if TYPE_CHECKING:
    from ckptstore.entry import Entry


def show_version(
    store: StoreUrl,
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="A version: digits@7, digits@best, digits@latest, digits@TAG; digits alone is its "
            "latest. The run can be left out where there is only one: @7.",
            show_default=False,
        ),
    ],
    *,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    json: Json = False,
) -> None:
    """Show all that is known of a version, without loading its weights."""
    with open_store(store, catalog, option) as opened:
        _print(opened.get(ref), as_json=json)


def show_best(
    store: StoreUrl,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run, or a pattern in quotes such as 'sweep/*', to compare several. By default "
            "the only run there is.",
            show_default=False,
        ),
    ] = None,
    *,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Compare by this metric. By default the run's monitor, which is val_loss unless "
            "the training set another.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            metavar="min|max",
            help="Whether lower (min) or higher (max) is better; needed with --metric unless it is "
            "the monitor.",
            show_default=False,
        ),
    ] = None,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    json: Json = False,
) -> None:
    """Show the checkpoint with the best metric.

    It is shown as by 'ckptstore show'. NaN is passed over; of equal ones the earliest is the best.
    """
    with open_store(store, catalog, option) as opened:
        _print(opened.best(run=run, metric=metric, mode=mode), as_json=json)


def _print(entry: Entry, *, as_json: bool) -> None:
    if as_json:
        screen.print_json(entry.metadata)
    else:
        screen.print_metadata({**entry.metadata, "metrics": entry.metrics})
