"""The whole path in under a minute: train on real images, be killed, resume, serve, tidy up.

Once in a folder, and once on S3, on a server that this demo starts and stops. Both trainings are
killed midway, and both end with the very weights of a third that nobody interrupted. Then all but
the best and the last are retired, and every byte is checked.

::

    python -m examples.demo
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

ROOT = Path(__file__).parents[1]
EPOCHS, KILLED_AFTER = 12, 4
PLACES = {"folder": "In a folder", "s3": "On S3"}
BUCKET = "demo"
KEY = "moto-takes-any-key"
REGION = "us-east-1"
CLI = "ckptstore"
RETIRED = re.compile(r" retire *$")
EPOCH = re.compile(r"epoch +(?P<epoch>\d+)/.* val_acc (?P<accuracy>\S+)")

console = Console(highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo in a temporary folder, which is gone afterwards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--on", choices=PLACES, help="one place alone")
    only = parser.parse_args(argv).on
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ckptstore-demo-") as folder, s3_server() as endpoint:
        surroundings = environment(folder, endpoint)
        stores = {"folder": f"{folder}/store", "s3": f"s3://{BUCKET}/store"}
        # It trains beside the one that is killed first; its weights are asked for after that.
        with started(train(f"{folder}/undisturbed"), surroundings) as undisturbed:
            expected = functools.cache(lambda: value("digest", rest(undisturbed)))
            for place in [only] if only else PLACES:
                console.print(f"\n[bold blue]{PLACES[place]}")
                show(stores[place], surroundings, expected)
    seconds = time.monotonic() - began
    console.print(f"\n[dim]{seconds:.0f} seconds. All of it was in {folder}, which is gone again.")


def show(store: str, surroundings: Mapping[str, str], expected: Callable[[], str]) -> None:
    """Train into a store, be killed, resume, compare, serve, and tidy up.

    Args:
        store: A folder or an S3 URL.
        surroundings: The environment of the commands.
        expected: Gives the digest of the weights that a training without interruption ends with.
    """
    say(train(store))
    watch(train(store), surroundings, kill_after=KILLED_AFTER)

    console.print("\n[dim]The same command once more:")
    say(train(store))
    printed = watch(train(store), surroundings)
    best = value("best", printed).split()[1]
    for line in printed[printed.index("") :]:
        if line.startswith(f"{best} "):
            console.print(f"  [green]{line}  best")
        elif not line.startswith(("digest", "best")):
            console.print(f"  {line}", markup=False)

    found = value("digest", printed)
    same = found == expected()
    console.print(f"  weights, killed and resumed  {found[:32]}…")
    console.print(f"  weights, never interrupted   {expected()[:32]}…", end="  ")
    console.print("[green]the same, bit for bit" if same else "[red]different")
    if not same:
        sys.exit(1)

    serve = ["examples.serve_digits", "--store", store]
    console.print()
    say(serve)
    with started(serve, surroundings) as server:
        for line in rest(server):
            console.print(f"  {line}", markup=False)

    tidy_up(store, surroundings)


def tidy_up(store: str, surroundings: Mapping[str, str]) -> None:
    """Let go of all checkpoints but a few, and check every byte of what there is."""
    prune = [CLI, "prune", store, "digits", "--last", "2", "--best", "2"]
    for command in (prune, [CLI, "verify", store]):
        console.print()
        say(command)
        with started(command, surroundings) as tool:
            for line in rest(tool):
                if not RETIRED.search(line):  # the last line says how many those are
                    console.print(f"  {line}", markup=False)


def watch(
    command: Sequence[str], surroundings: Mapping[str, str], kill_after: int | None = None
) -> list[str]:
    """Run a training and draw its progress.

    Args:
        command: A module of the examples and its arguments.
        surroundings: Its environment.
        kill_after: Send SIGKILL as soon as this epoch was saved; by then the next one has begun.

    Returns:
        What it printed, line by line.
    """
    printed = []
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(28),
        TextColumn("epoch {task.completed:>2.0f}/{task.total:.0f}  {task.fields[note]}"),
    )
    with (
        started(command, surroundings, killed=kill_after is not None) as process,
        Progress(*columns, console=console) as progress,
    ):
        bar = progress.add_task("starting  ", total=EPOCHS, note="")
        for line in process.stdout or ():
            printed.append(line.rstrip("\n"))
            if line.startswith("resumed"):
                progress.update(bar, description="resuming  ")
                console.print(f"  {line}", end="")
            elif match := EPOCH.match(line):
                epoch, accuracy = int(match["epoch"]), match["accuracy"]
                progress.update(
                    bar, description="training  ", completed=epoch, note=f"accuracy {accuracy}"
                )
                if epoch == kill_after:
                    process.kill()
                    progress.update(bar, description="[red]killed    ", note="[red]kill -9")
                    break
        else:
            progress.update(bar, description="trained   ")
    return printed


@contextmanager
def started(
    command: Sequence[str], surroundings: Mapping[str, str], *, killed: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run a module or ckptstore's command in a process of its own, and leave none behind."""
    # The command lies beside the Python that it was installed for.
    program = [str(Path(sys.executable).with_name(CLI))]
    process = subprocess.Popen(
        [*program, *command[1:]] if command[0] == CLI else [sys.executable, "-m", *command],
        cwd=ROOT,
        env=surroundings,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
    if process.returncode != (-signal.SIGKILL if killed else 0):
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 on this machine, with an empty bucket, and give the address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
        )
        client.create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


def environment(folder: str, endpoint: str) -> dict[str, str]:
    """Return what the commands run in: this server and its keys, and nothing of the user's own."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    return own | {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # The catalog of a store on S3 is in the user's data folder.
        "HOME": folder,
        "XDG_DATA_HOME": f"{folder}/data",
        # Two trainings share the cores.
        "OMP_NUM_THREADS": "1",
    }


def train(store: str) -> list[str]:
    """Return the command that trains."""
    return ["examples.train_digits", "--store", store, "--epochs", str(EPOCHS)]


def say(command: Sequence[str]) -> None:
    """Show a command as one would type it."""
    python = "" if command[0] == CLI else "python -m "
    console.print(f"[dim]$[/] [bold]{python}{' '.join(command)}")


def rest(process: subprocess.Popen[str]) -> list[str]:
    """Return what is left of a process's output, when it is through."""
    return process.stdout.read().splitlines() if process.stdout else []


def value(name: str, printed: Sequence[str]) -> str:
    """Return what a command printed beside a name."""
    return next(line for line in printed if line.startswith(f"{name} ")).removeprefix(name).strip()


if __name__ == "__main__":
    main()
