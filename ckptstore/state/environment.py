"""What a version was made with: versions, devices, flags, and the code that ran."""

from __future__ import annotations

import functools
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

# Values after these words on a command line are secrets more often than not.
SECRET_OPTION = re.compile(r"(?i)(secret|token|passw|api[-_]?key|access[-_]?key|credential|auth)")
SECRET_VALUE = re.compile(
    r"(?i)^([^=]*(?:secret|token|passw|api[-_]?key|access[-_]?key|credential|auth)[^=]*=).+",
    re.DOTALL,
)
USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
GIT_TIMEOUT_S = 5


def describe() -> dict[str, Any]:
    """Return what is recorded of this process with every version, as plain JSON."""
    return {
        "ckptstore": _own_version(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "gpus": _gpus(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": _flag(lambda: torch.backends.cuda.matmul.allow_tf32),
        "cudnn_tf32": _flag(lambda: torch.backends.cudnn.allow_tf32),
        "world_size": world_size(),
        "host": socket.gethostname(),
        "git": _git(_folder()),
        "argv": without_secrets(sys.argv),
    }


# What can make a resumed training go on with other bits.
COMPARED = (
    "torch", "python", "cuda", "gpus", "threads", "deterministic", "cudnn_deterministic",
    "cudnn_benchmark", "tf32", "cudnn_tf32", "world_size",
)  # fmt: skip


def differences(recorded: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what is different now from when a version was saved: name -> (then, now)."""
    now = describe()
    return {
        name: (recorded[name], now[name])
        for name in COMPARED
        if name in recorded and recorded[name] != now[name]
    }


def world_size() -> int:
    """Return how many processes train together; 1 outside a process group."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """Return this process's rank; 0 outside a process group."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def without_secrets(argv: list[str]) -> list[str]:
    """Return a command line with what looks like a credential blanked out."""
    shown: list[str] = []
    hide_next = False
    for word in argv:
        safe = USER_INFO.sub("***@", word)
        if hide_next and not word.startswith("-"):
            safe = "***"
        hide_next = (
            word.startswith("-") and "=" not in word and SECRET_OPTION.search(word) is not None
        )
        shown.append(SECRET_VALUE.sub(r"\1***", safe))
    return [word.encode("utf-8", "replace").decode() for word in shown]


def _gpus() -> list[str]:
    # Asking for names initialises CUDA, which a CPU training should not pay for.
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call] # torch left it untyped
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _flag(read: Callable[[], bool]) -> bool | None:
    """Return a flag, None where it has no one value.

    Where a script sets ``fp32_precision`` to something the older flag has no word for, torch 2.9
    and later raise when that flag is read.
    """
    try:
        return read()
    except RuntimeError:
        return None


def _folder() -> str | None:
    """Return the working folder, None where someone removed it."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


@functools.cache
def _git(folder: str | None) -> dict[str, Any] | None:
    """Return commit and dirtiness of the code in *folder*, None outside a checkout; asked once."""
    commit = None if folder is None else _ask_git(folder, "rev-parse", "HEAD")
    if folder is None or not commit:
        return None
    status = _ask_git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _ask_git(folder: str, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", *arguments],  # noqa: S607 - the user's own git, wherever it is
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _own_version() -> str:
    from ckptstore._version import __version__

    return __version__
