"""``ckptstore runs``: what trainings a store holds."""

from __future__ import annotations

import typer

from ckptstore.cli.options import CatalogUrl, StorageOptions, StoreUrl, open_store
from ckptstore.text import plain


def list_runs(
    store: StoreUrl, *, catalog: CatalogUrl = None, option: StorageOptions = None
) -> None:
    """List the names of all runs, one a line."""
    with open_store(store, catalog, option) as opened:
        for run in opened.runs():
            typer.echo(plain(run))
