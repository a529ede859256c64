"""``ckptstore prune``: retire the versions of a run that are not to be kept."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ckptstore.cli import screen
from ckptstore.cli.options import (
    CatalogUrl,
    Json,
    SingleWriter,
    StorageOptions,
    StoreUrl,
    open_store,
)
from ckptstore.errors import ArgumentError

if TYPE_CHECKING:
    from ckptstore.upkeep.keep import Keep

UNITS_S = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
SPAN = re.compile(r"([0-9]{1,12})([wdhms])")


def prune_run(
    store: StoreUrl,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run, or a pattern in quotes such as 'sweep/*', to prune several, each by "
            "itself.",
            show_default=False,
        ),
    ],
    *,
    last: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Keep the newest N versions.", show_default=False),
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Keep the best N versions by the run's monitor.",
            show_default=False,
        ),
    ] = None,
    best_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=min|max",
            help="Keep the best by this metric too, as many as --best says and at least one; may "
            "be given again.",
            show_default=False,
        ),
    ] = None,
    every_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Keep the newest version of each epoch that N divides.",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Keep what was created so long ago or later: 2d, 36h, 90m; also w and s.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be retired, and retire nothing.")
    ] = False,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    single_writer: SingleWriter = False,
    json: Json = False,
) -> None:
    """Retire the versions of a run that are not to be kept.

    What to keep adds up. Without any of it, what the run's settings say is kept. Whatever is said,
    these stay: tagged versions, the newest intact one, the best by the run's monitor, and what a
    version that stays came from: the checkpoint of a package, the base of a fork. A retired version
    stays in the history, and its data are deleted by a later clean-up alone.
    """
    keep = _keep(last, best, best_by or [], every_epochs, within)
    with (
        open_store(store, catalog, option, single_writer=single_writer) as opened,
        # A dry run prints its table by itself; here it is printed for terminals, or as JSON.
        redirect_stdout(io.StringIO()),
    ):
        found = opened.prune(keep, run=run, dry_run=dry_run)
    for pruned in found:
        if json:
            for decision in pruned.to_json():
                screen.print_json(decision)
        else:
            screen.print_table(*pruned.table())
            typer.echo(pruned.summary())


def _keep(
    last: int | None,
    best: int | None,
    best_by: list[str],
    every_epochs: int | None,
    within: str | None,
) -> Keep | None:
    """Return what the options say to keep, None if they say nothing."""
    from ckptstore.upkeep.keep import Keep

    given: dict[str, Any] = {"last": last, "best": best, "every_epochs": every_epochs}
    given = {name: count for name, count in given.items() if count is not None}
    if best_by:
        given["best_by"] = _metrics(best_by)
    if within is not None:
        given["within"] = parse_span(within)
    return Keep(**given) if given else None


def _metrics(options: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options:
        name, _, mode = option.rpartition("=")
        if not name or mode not in ("min", "max"):
            raise ArgumentError(
                f"--best-by {option}: takes a metric with its mode, as in --best-by val_acc=max "
                "or --best-by val_loss=min"
            )
        if name in found:
            raise ArgumentError(f"--best-by {name}=… is given twice")
        found[name] = mode
    return found


def parse_span(text: str) -> timedelta:
    """Return the span of time that a command line means by ``2d``, ``36h`` or ``90m``.

    Raises:
        ArgumentError: It is none, or not one to keep versions for.
    """
    from ckptstore.upkeep.keep import LONGEST

    found = SPAN.fullmatch(text)
    seconds = int(found[1]) * UNITS_S[found[2]] if found is not None else 0
    if 0 < seconds <= LONGEST.total_seconds():
        return timedelta(seconds=seconds)
    raise ArgumentError(
        f"--within {text}: takes a number above 0 with a unit (w, d, h, m or s), as in 2d, of at "
        f"most {LONGEST.days}d"
    )
