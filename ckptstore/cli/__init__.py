"""The command line: ``ckptstore``, one file a noun, on the facade alone."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ckptstore._version import __version__
from ckptstore.cli import (
    cache,
    catalog,
    collect,
    copy,
    facts,
    history,
    importing,
    prune,
    reindex,
    runs,
    screen,
    undelete,
    verify,
    versions,
)
from ckptstore.cli.words import typed
from ckptstore.errors import CkptStoreError, UsageError


class Commands(TyperGroup):
    """All commands; what ckptstore raises on purpose ends them with a message and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that *ctx* names.

        Raises:
            typer.Exit: With 2 where the call is wrong, 1 where anything else is.
        """
        with screen.warnings_shown():
            try:
                return super().invoke(ctx)
            except CkptStoreError as error:
                screen.complain("Error", typed(str(error)))
                raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    # Those of typer show the values of locals, and a credential may be among them.
    pretty_exceptions_enable=False,
    # Help is prose; what it quotes must not be taken for markup.
    rich_markup_mode=None,
)
app.command("history")(history.show_history)
app.command("show")(versions.show_version)
app.command("best")(versions.show_best)
app.command("runs")(runs.list_runs)
app.command("tag")(facts.set_tag)
app.command("untag")(facts.take_tag_away)
app.command("tags")(facts.list_tags)
app.command("log")(facts.log_metrics)
app.command("note")(facts.write_note)
app.command("prune")(prune.prune_run)
app.command("collect")(collect.collect_store)
app.command("undelete")(undelete.undelete_version)
app.command("verify")(verify.verify_store)
app.command("copy")(copy.copy_store)
app.command("import")(importing.import_files)
app.command("reindex")(reindex.reindex_store)
app.command("migrate")(catalog.migrate_catalog)
app.command("cache")(cache.show_cache)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"ckptstore {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Look into stores of PyTorch checkpoints, on a folder or in a bucket.

    Nothing here trains or loads a model. Exit codes: 0 done, 1 failed, 2 the command is
    wrong.
    """


def main() -> None:
    """Run the command that ``sys.argv`` holds."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no "…" gets it spelled out rather than a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="ckptstore")
