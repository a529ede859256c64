"""``ckptstore import``: files and folders of other tools into a store."""

from __future__ import annotations

from datetime import timedelta
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from ckptstore.errors import ArgumentError

if TYPE_CHECKING:
    from ckptstore.importing.options import ImportOptions


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
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.001,
            help="How long that process may take for a file; 60 by default.",
            show_default=False,
        ),
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(help="The epoch, of one file.", show_default=False)
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="The step, of one file.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="A metric, of one file. May be given again.",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="A tag to set, of one file. May be given again.", show_default=False
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Hyperparameters, as an object.", show_default=False),
    ] = None,
    model_config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Arguments of the model's class, as an object, e.g. '{\"width\": 16}'.",
            show_default=False,
        ),
    ] = None,
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
    """Import checkpoints of other tools, every tensor bit for bit.

    What torch.save wrote (.pt, .pth, .bin, of any age), Lightning's .ckpt, safetensors files, and
    folders of Hugging Face or torch.distributed.checkpoint. A file is known by its content.

    Nothing that a file says is run, unless you say that you trust it. Epochs and metrics come from
    the contents, else from the names. What the run has already is not imported again. Folders in a
    folder are not entered, unless they are checkpoints themselves.
    """
    from ckptstore.history import History
    from ckptstore.importing.imported import Imported

    options: ImportOptions = {
        "keys": {name: value or None for name, value in parse_pairs("key", key).items()} or None,
        "rename": parse_pairs("rename", rename) or None,
        "ties": parse_pairs("tie", tie) or None,
        "unwrap": not no_unwrap,
        "trust_pickle": trust_pickle,
        "timeout": None if timeout is None else timedelta(minutes=timeout),
        "again": again,
        "config": _object("config", config),
        "model_config": _object("model-config", model_config),
    }
    facts = {"epoch": epoch, "step": step, "metric": _metrics(metric), "tag": tag or []}
    given = [f"--{name}" for name, value in facts.items() if value not in (None, [], {})]
    place = parse_options(path_option or []) or None
    history: History
    with (
        open_store(store, catalog, option, single_writer=single_writer) as opened,
        count_bar() as progress,
    ):
        if given:
            if pattern is not None or _is_folder_of_some(path):
                raise ArgumentError(f"{', '.join(given)} is for one file, and {path} is a folder")
            one = opened.import_file(
                path,
                run=run,
                epoch=epoch,
                step=step,
                metrics=_metrics(metric),
                tags=tag or [],
                storage_options=place,
                **options,
            )
            history = History([one])
        else:
            history = opened.import_folder(
                path,
                run=run,
                pattern=pattern,
                storage_options=place,
                progress=progress,
                **options,
            )
    if json:
        found = history.to_json() if isinstance(history, Imported) else history[0].metadata
        screen.print_json(found)
        return
    screen.print_table(*history.table())
    if isinstance(history, Imported):
        for note in history.by_name():
            typer.echo(note)
        typer.echo(history.summary())
    else:
        typer.echo("The digests of all its tensors are those of the file's.")


def _is_folder_of_some(path: str) -> bool:
    """Say whether a path of this machine is a folder, and none that is itself a checkpoint."""
    from ckptstore.importing.reading import kind_of

    return Path(path).is_dir() and kind_of(Path(path)) is None


def _object(option: str, text: str | None) -> dict[str, Any] | None:
    """Return a JSON object that was typed.

    Raises:
        ArgumentError: It is none.
    """
    if text is None:
        return None
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArgumentError(f"--{option} takes a JSON object, e.g. '{{\"width\": 16}}'")
    return value


def _metrics(pairs: list[str] | None) -> dict[str, float]:
    """Return metrics that were typed as ``name=number``.

    Raises:
        ArgumentError: One is no number.
    """
    found = {}
    for name, text in parse_pairs("metric", pairs).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise ArgumentError(f"--metric takes NAME=NUMBER, not {f'{name}={text}'!r}") from None
    return found
