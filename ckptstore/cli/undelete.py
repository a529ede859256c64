"""``ckptstore undelete``: make a retired version live again."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.cli.options import CatalogUrl, SingleWriter, StorageOptions, StoreUrl, open_store
from ckptstore.text import plain


def undelete_version(
    store: StoreUrl,
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="A version: digits@7, or @7 where there is only one run.",
            show_default=False,
        ),
    ],
    *,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
) -> None:
    """Make a retired version live again.

    That is possible for half the store's grace period after it was retired. Nothing happens if the
    version is live.
    """
    with open_store(store, catalog, option, single_writer=single_writer) as opened:
        entry = opened.undelete(ref)
    typer.echo(f"{plain(entry.ref)} is live.")
