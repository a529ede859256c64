"""A bar that shows how much of a long work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ckptstore.upkeep.progress import Progress


def bytes_bar() -> AbstractContextManager[Progress | None]:
    """Show a bar of bytes on stderr while the block runs, if that is a terminal.

    Returns:
        A block that gives what is to be told of bytes done, bytes in all, and what is under way;
        None elsewhere.
    """
    return _bar("bytes")


def count_bar() -> AbstractContextManager[Progress | None]:
    """Show a bar of things done on stderr, and what is being done to them; as `bytes_bar`."""
    return _bar("count")


@contextmanager
def _bar(unit: str) -> Iterator[Progress | None]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich import progress

    columns = (
        (
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        if unit == "bytes"
        else (
            # What a store says is text here, and never markup.
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
        )
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int | None, what: str) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield tell
