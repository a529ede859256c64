"""``ckptstore import``: files and folders of other tools into a store."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.cli import screen
from ckptstore.cli.bar import count_bar
from ckptstore.cli.options import (
    CatalogUrl,
    SingleWriter,
    StorageOptions,
    StoreUrl,
    open_store,
    parse_options,
    parse_pairs,
)


def import_files(
    store: StoreUrl,
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A file, a folder of files, or an address such as s3://bucket/old/model.pth.",
            show_default=False,
        ),
    ],
    *,
    run: Annotated[
        str,
        typer.Option(metavar="RUN", help="The run to import into.", show_default=False),
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Of a folder import what this matches alone, e.g. 'epoch=*.ckpt' in quotes.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME",
            help="What an unusual key is: model, optimizer or another part, epoch, step, config, "
            "a metric, extra; without a name it is left out. May be given again.",
            show_default=False,
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Another beginning of the model's keys, e.g. model.= to take 'model.' off. May be "
            "given again.",
            show_default=False,
        ),
    ] = None,
    tie: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NEW=OLD",
            help="A key that the file lacks because it is another name of one that it has. May be "
            "given again.",
            show_default=False,
        ),
    ] = None,
    no_unwrap: Annotated[
        bool,
        typer.Option(
            "--no-unwrap",
            help="Keep what DDP and torch.compile put before keys ('module.', '_orig_mod.'); it is "
            "taken off where all keys have it.",
        ),
    ] = False,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Read what can't be read otherwise by running what it says, in a process of its "
            "own. Only for files whose maker you trust.",
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Import what the run has already once more.")
    ] = False,
    catalog: CatalogUrl = None,
    option: StorageOptions = None,
    path_option: Annotated[
        list[str] | None,
        typer.Option(
            "--path-option",
            metavar="KEY=VALUE",
            help="As --option, for PATH; --option is for STORE.",
            show_default=False,
        ),
    ] = None,
    single_writer: SingleWriter = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print what was done as one line of JSON instead.")
    ] = False,
) -> None:
    """Import checkpoints of other tools: torch.save, Lightning, Hugging Face.

    Nothing that a file says is run, unless you say that you trust it. Epochs and metrics come from
    the contents, else from the names. What the run has already is not imported again.
    """
    with (
        open_store(store, catalog, option, single_writer=single_writer) as opened,
        count_bar() as progress,
    ):
        imported = opened.import_folder(
            path,
            run=run,
            pattern=pattern,
            keys={name: value or None for name, value in parse_pairs("key", key).items()} or None,
            rename=parse_pairs("rename", rename) or None,
            ties=parse_pairs("tie", tie) or None,
            unwrap=not no_unwrap,
            trust_pickle=trust_pickle,
            again=again,
            storage_options=parse_options(path_option or []) or None,
            progress=progress,
        )
    if json:
        screen.print_json(imported.to_json())
        return
    screen.print_table(*imported.table())
    typer.echo(imported.summary())
