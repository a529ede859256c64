"""``ckptstore reindex``: the catalog made anew from what lies in the storage."""

from __future__ import annotations

import typer

from ckptstore.cli.options import CatalogUrl, StorageOptions, StoreUrl, open_store
from ckptstore.text import plain


def reindex_store(
    store: StoreUrl, *, catalog: CatalogUrl = None, option: StorageOptions = None
) -> None:
    """Forget all that the catalog knows of a store and index it again.

    Nothing is lost by it: every fact in the catalog is in the store as well. Other stores in the
    same database stay as they are.
    """
    with open_store(store, catalog, option) as opened:
        runs = opened.reindex()
    for run in runs:
        typer.echo(plain(run))
    typer.echo(f"Indexed {len(runs)} {'run' if len(runs) == 1 else 'runs'}.", err=True)
