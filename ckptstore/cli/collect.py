"""``ckptstore collect``: delete what no version has needed for longer than the grace period."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.options import CatalogUrl, StorageOptions, StoreUrl, open_store


def collect_store(
    store: StoreUrl,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead, one object in one line.")
    ] = False,
) -> None:
    """Delete what no version has needed for longer than the store's grace period.

    That is the data of retired versions, and what interrupted saves left. Safe beside trainings and
    other clean-ups; where it can't be told what is needed, nothing is deleted. Exit code 1 means
    that something could not be deleted: the next clean-up tries again.
    """
    with open_store(store, catalog, option) as opened, _progress() as progress:
        done = opened.collect(dry_run=dry_run, progress=progress)
    if json:
        screen.print_json(done.to_json())
    else:
        typer.echo(repr(done))
    if done.failed:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show a bar on stderr while the block runs, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("collecting", total=None)

        def tell(doing: str, done: int, total: int | None) -> None:
            bar.update(task, description=doing, completed=done, total=total)

        yield tell
