"""Reading what only its owner can vouch for, in a process of its own.

Whatever that process leaves is taken for what a stranger left: it is moved out of that process's
reach, it must be plain files of limited size, and what they say is checked like any other store.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from ckptstore.errors import CkptStoreError, ImportRefusedError
from ckptstore.importing.ending import end_all
from ckptstore.importing.plain import Held, Plain
from ckptstore.loading.load import load_state
from ckptstore.manifest import open_manifest
from ckptstore.storage.opening import open_storage

TIME_LIMIT = timedelta(hours=1)
"""Enough for hundreds of gigabytes; a file that waits for something must not wait for ever."""
LOOK_S = 1.0
"""How often it is looked how much was written."""
MOST_TIMES = 8
"""How many times a file's size may be written: as much as an import takes of any file."""
SMALL_BYTES = 256 * 1024 * 1024
KEPT = (
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip
"""All that the process gets of this one's environment: where libraries are, and how to spell."""
BOOT = (
    "import json, sys\n"
    "request = json.load(open(sys.argv[1], encoding='utf-8'))\n"
    "sys.path[:] = request['sys_path']\n"
    "from ckptstore.importing.child import limit_files, main\n"
    "limit_files(request['most_bytes'])\n"
    "sys.exit(main(request))\n"
)
# As ckptstore.importing.child says them; importing that here would import all that it needs.
RUN, VALUE, ABOUT = "read", "value", "about"
KINDS = frozenset({"module", "optimizer", "object"})
MAX_SAID = 2000
MAX_OUTCOME_BYTES = 64 * MAX_SAID


def read_trusted(
    path: Path, where: str, *, kind: str = "file", timeout: timedelta | None = None
) -> Plain:
    """Return what a file holds, having let it run what it says elsewhere.

    Objects come as their state, classes and functions as their names: nothing is unpickled here.

    Args:
        path: The file, or the folder.
        where: Names it in errors.
        kind: ``file``, or ``dcp`` for a folder of torch.distributed.checkpoint.
        timeout: How long that may take; an hour if None.

    Raises:
        ImportRefusedError: It could not be read, took too long, wrote too much, or left something
            else than a store behind.
        OSError: There is no room in the folder for temporary files.
    """
    # What such a process leaves may be hard to remove, and what is left then harms nobody.
    with tempfile.TemporaryDirectory(
        prefix="ckptstore-import-", ignore_cleanup_errors=True
    ) as folder:
        room = Path(folder) / "room"
        (room / "empty").mkdir(parents=True)
        most_bytes = MOST_TIMES * _size_bytes(path) + SMALL_BYTES
        request = {
            "path": os.fspath(path.absolute()),
            "kind": kind,
            "where": where,
            "store": os.fspath(room / "store"),
            "outcome": os.fspath(room / "outcome.json"),
            "most_bytes": most_bytes,
            # Relative entries, as an interactive Python has them, mean this process's folder.
            "sys_path": [str(Path(entry).absolute()) for entry in sys.path],
        }
        (room / "request.json").write_text(json.dumps(request), "utf-8")
        _run(room, where, most_bytes, timeout or TIME_LIMIT)
        # That process never knew this name.
        kept = Path(folder) / secrets.token_hex(16)
        try:
            (room / "store").rename(kept)
            _check_files(kept)
            return _read(kept)
        except (CkptStoreError, OSError) as error:
            raise ImportRefusedError(
                f"{where} could not be read: the process that read it ended well, and left no "
                f"whole store behind: {error}"
            ) from error


def environment(room: Path) -> dict[str, str]:
    """Return the environment of the process: no credential is in it, nor where they are kept."""
    here = os.fspath(room)
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "HOME": os.fspath(room / "empty"),
        "TMPDIR": here,
        "TEMP": here,
        "TMP": here,
        "CUDA_VISIBLE_DEVICES": "",
    }


def _run(room: Path, where: str, most_bytes: int, timeout: timedelta) -> None:
    # Both are opened here, so whatever is put in their places later is not read.
    with (room / "said.txt").open("w+b") as said, (room / "outcome.json").open("w+b") as outcome:
        # The program is this Python and the arguments are ours.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-B", "-c", BOOT, os.fspath(room / "request.json")],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=room / "empty",
            env=environment(room),
            start_new_session=True,
        )
        try:
            code = _wait(process, room, where, most_bytes, timeout)
        finally:
            end_all(process, f"TMPDIR={os.fspath(room)}")
        if code:
            raise ImportRefusedError(f"{where} could not be read: {_why(said, outcome, code)}")


def _wait(
    process: subprocess.Popen[bytes],
    room: Path,
    where: str,
    most_bytes: int,
    timeout: timedelta,
) -> int:
    """Wait for the process's end.

    Returns:
        Its exit code.

    Raises:
        ImportRefusedError: It takes too long, or writes too much.
    """
    until = time.monotonic() + timeout.total_seconds()
    while True:
        left = until - time.monotonic()
        try:
            return process.wait(max(0.0, min(left, LOOK_S)))
        except subprocess.TimeoutExpired as error:
            if left <= LOOK_S:
                raise ImportRefusedError(
                    f"{where} was not read within {timeout}, and was stopped; timeout= gives it "
                    "more time"
                ) from error
            written = _written_bytes(room)
            if written > most_bytes:
                raise ImportRefusedError(
                    f"{where} was stopped: reading it wrote {written} bytes, and at most "
                    f"{most_bytes} are let"
                ) from error


def _why(said: IO[bytes], outcome: IO[bytes], code: int) -> str:
    """Return what the process said last."""
    told: Any = None
    outcome.seek(0)
    with suppress(ValueError, RecursionError):
        told = json.loads(outcome.read(MAX_OUTCOME_BYTES))
    if isinstance(told, dict) and isinstance(told.get("error"), str):
        return str(told["error"])[:MAX_SAID]
    said.seek(max(0, said.seek(0, os.SEEK_END) - MAX_SAID))
    last = said.read(MAX_SAID).decode("utf-8", "replace").strip()
    return f"the process that read it ended with {code}: {last or 'it said nothing'}"


def _check_files(folder: Path) -> None:
    """Refuse a store that is made of anything but folders and plain files.

    Raises:
        ImportRefusedError: There is a link, a pipe, a device or the like.
    """
    pending = [folder]
    while pending:
        each = pending.pop()
        mode = each.lstat().st_mode
        if stat.S_ISDIR(mode):
            pending += each.iterdir()
        elif not stat.S_ISREG(mode):
            raise ImportRefusedError(f"{each.name!r} in it is neither a folder nor a plain file")


def _read(folder: Path) -> Plain:
    storage = open_storage(folder)
    try:
        opened = open_manifest(storage, RUN, 1)
        about = load_state(opened, ABOUT)
        # What is mapped stays readable when the folder is gone.
        value = load_state(opened, VALUE, map_files=True)
    finally:
        storage.close()
    return Plain(value, *_facts(about))


def _facts(about: object) -> tuple[list[str], dict[str, Held]]:
    """Return the notes and the objects of what the process said of the value.

    Raises:
        ImportRefusedError: It is not what :mod:`ckptstore.importing.child` writes.
    """
    notes = about.get("notes") if isinstance(about, Mapping) else None
    held = about.get("held") if isinstance(about, Mapping) else None
    if (
        isinstance(notes, list)
        and all(isinstance(note, str) for note in notes)
        and isinstance(held, Mapping)
        and all(isinstance(at, str) and _is_held(each) for at, each in held.items())
    ):
        return notes, {
            at: Held(each["kind"], each["class"], each["model_config"]) for at, each in held.items()
        }
    raise ImportRefusedError("what it says of the objects in it has another form")


def _is_held(each: object) -> bool:
    if not isinstance(each, Mapping) or each.keys() != {"kind", "class", "model_config"}:
        return False
    config = each["model_config"]
    return (
        isinstance(each["kind"], str)
        and each["kind"] in KINDS
        and isinstance(each["class"], str)
        and (
            config is None
            or (isinstance(config, Mapping) and all(isinstance(name, str) for name in config))
        )
    )


def _size_bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())


def _written_bytes(folder: Path) -> int:
    """Return how many bytes the files below a folder take on the disk; files may come and go."""
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(above, name))  # noqa: PTH118 - a name may be no text
                total += getattr(status, "st_blocks", 0) * 512 or status.st_size
    return total
