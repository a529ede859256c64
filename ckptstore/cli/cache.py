"""``ckptstore cache``: what copies of packs take up on this machine, and away with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.storage.cache import Cache
from ckptstore.text import number, plain, size


def show_cache(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="The folder that programs name as Store(…, cache=FOLDER).",
            show_default=False,
        ),
    ],
    *,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear", help="Delete all copies. Programs that use them keep what they have loaded."
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead, one line a store.")
    ] = False,
) -> None:
    """Show what a cache of packs has of which store.

    Copies may be deleted at any time: the next load fetches what it needs again.
    """
    cache = Cache(folder)
    if clear:
        cleared = cache.clear()
        if json:
            screen.print_json({"cleared_bytes": cleared})
        else:
            typer.echo(f"{size(cleared)} cleared.")
        return
    stores = cache.stores()
    if json:
        for store in stores:
            screen.print_json({**store._asdict(), "used_at": store.used_at.isoformat()})
        return
    if not stores:
        folder_is_there = Path(cache.folder).is_dir()
        none = "." if folder_is_there else ": there is no such folder (yet; or is it mistyped?)."
        typer.echo(f"No copies in {plain(cache.folder)}{none}")
        return
    rows = [
        [
            plain(store.url) or "(unknown)",
            number(store.files),
            size(store.size_bytes),
            f"{store.used_at:%Y-%m-%d %H:%M}",
        ]
        for store in stores
    ]
    screen.print_table(["store", "files", "size", "last used (UTC)"], rows)
