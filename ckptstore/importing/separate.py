"""Reading what only its owner can vouch for, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.plain import Held, Plain
from ckptstore.loading.load import load_state
from ckptstore.manifest import open_manifest
from ckptstore.storage.opening import open_storage

TIME_LIMIT_S = 3600.0
"""Enough for hundreds of gigabytes; a file that waits for something must not wait for ever."""
KEPT = (
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip
"""All that the process gets of this one's environment: where libraries are, and how to spell."""
BOOT = (
    "import json, sys\n"
    "request = json.load(open(sys.argv[1], encoding='utf-8'))\n"
    "sys.path[:] = request['sys_path']\n"
    "from ckptstore.importing.child import main\n"
    "sys.exit(main(request))\n"
)
# As ckptstore.importing.child says them; importing that here would import all that it needs.
RUN, VALUE, ABOUT = "read", "value", "about"
MAX_SAID = 2000


def read_trusted(path: Path, where: str, *, kind: str = "file") -> Plain:
    """Return what a file holds, having let it run what it says elsewhere.

    Objects come as their state, classes and functions as their names: nothing is unpickled here.

    Args:
        path: The file, or the folder.
        where: Names it in errors.
        kind: ``file``, or ``dcp`` for a folder of torch.distributed.checkpoint.

    Raises:
        ImportRefusedError: It could not be read, or took more than an hour.
        StorageError: There is no room for a second copy in the folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="ckptstore-import-") as folder:
        room = Path(folder)
        (room / "empty").mkdir()
        request = {
            "path": os.fspath(path.absolute()),
            "kind": kind,
            "where": where,
            "store": os.fspath(room / "store"),
            "outcome": os.fspath(room / "outcome.json"),
            # Relative entries, as an interactive Python has them, mean this process's folder.
            "sys_path": [str(Path(entry).absolute()) for entry in sys.path],
        }
        (room / "request.json").write_text(json.dumps(request), "utf-8")
        _run(room, where)
        storage = open_storage(room / "store")
        opened = open_manifest(storage, RUN, 1)
        about = load_state(opened, ABOUT)
        # What is mapped stays readable when the folder is gone.
        value = load_state(opened, VALUE, map_files=True)
        storage.close()
    held = {
        at: Held(each["kind"], each["class"], each["model_config"])
        for at, each in about["held"].items()
    }
    return Plain(value, list(about["notes"]), held)


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


def _run(room: Path, where: str) -> None:
    with (room / "said.txt").open("wb") as said:
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
            code = process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise ImportRefusedError(
                f"{where} was not read within {TIME_LIMIT_S:.0f} s, and was stopped"
            ) from error
        finally:
            _stop(process)
    if code:
        raise ImportRefusedError(f"{where} could not be read: {_why(room, code)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _why(room: Path, code: int) -> str:
    """Return what the process said last."""
    outcome: Any = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        outcome = json.loads((room / "outcome.json").read_bytes()[: 64 * MAX_SAID])
    if isinstance(outcome, dict) and isinstance(outcome.get("error"), str):
        return str(outcome["error"])[:MAX_SAID]
    said = (room / "said.txt").read_bytes()[-MAX_SAID:].decode("utf-8", "replace").strip()
    return f"the process that read it ended with {code}: {said}"
