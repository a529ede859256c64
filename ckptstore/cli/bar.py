"""A bar that shows how many bytes of a long work are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bytes_bar() -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a bar on stderr while the block runs, if that is a terminal.

    Yields:
        What is to be told of bytes done, bytes in all, and what is under way; None elsewhere.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("bytes", total=None)

        def tell(done: int, total: int, _: str) -> None:
            bar.update(task, completed=done, total=total)

        yield tell
