"""What a version was made with: versions, devices, flags, and the code that ran."""

from __future__ import annotations

import functools
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

# Values after these words on a command line are secrets more often than not.
SECRET_OPTION = re.compile(r"(?i)(secret|token|passw|api[-_]?key|access[-_]?key|credential|auth)")
SECRET_VALUE = re.compile(
    r"(?i)^([^=]*(?:secret|token|passw|api[-_]?key|access[-_]?key|credential|auth)[^=]*=).+",
    re.DOTALL,
)
USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
GIT_TIMEOUT_S = 5
# Libraries with state or kernels of their own, recorded where they are in use.
LIBRARIES = ("torchdata", "torchmetrics", "torchao")
SMALLEST_NORMAL = sys.float_info.min
Flag = TypeVar("Flag", bool, str, bool | None)


def describe() -> dict[str, Any]:
    """Return what is recorded of this process with every version, as plain JSON."""
    return {
        "ckptstore": _own_version(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        **{name: _version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        **_gpu_facts(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "tf32": _flag(lambda: torch.backends.cuda.matmul.allow_tf32),
        "cudnn_tf32": _flag(lambda: torch.backends.cudnn.allow_tf32),
        "matmul_precision": _flag(torch.get_float32_matmul_precision),
        "fp32_precision": _fp32_precision(),
        "bf16_reduced_precision": _flag(_cublas("allow_bf16_reduced_precision_reduction")),
        "fp16_reduced_precision": _flag(_cublas("allow_fp16_reduced_precision_reduction")),
        "fp16_accumulation": _flag(_cublas("allow_fp16_accumulation")),
        "sdpa": _attention(),
        "mkldnn": getattr(torch.backends.mkldnn, "enabled", None),
        "mkldnn_deterministic": getattr(torch.backends.mkldnn, "deterministic", None),
        # torch has no word for it; a number below the smallest normal one tells.
        "flush_denormal": SMALLEST_NORMAL / 2 == 0,
        "fill_uninitialized_memory": _fills_memory(),
        "pythonhashseed": os.environ.get("PYTHONHASHSEED"),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "world_size": world_size(),
        "host": socket.gethostname(),
        "git": _git(_folder()),
        "argv": without_secrets(getattr(sys, "argv", ())),  # embedded Pythons have none
    }


# What can make a resumed training go on with other bits.
COMPARED = (
    "torch", "python", "numpy", "cpu", "cuda", "cudnn", "gpus", "threads", "interop_threads",
    "deterministic", "deterministic_warn_only", "cudnn_deterministic", "cudnn_benchmark",
    "cublas_workspace_config", "tf32", "cudnn_tf32", "matmul_precision", "fp32_precision",
    "bf16_reduced_precision", "fp16_reduced_precision", "fp16_accumulation", "sdpa", "mkldnn",
    "mkldnn_deterministic", "flush_denormal", "fill_uninitialized_memory", "pythonhashseed",
    "default_dtype", "world_size", "git", *LIBRARIES,
)  # fmt: skip


def differences(
    recorded: Mapping[str, Any], devices: Mapping[str, list[str]]
) -> dict[str, tuple[Any, Any]]:
    """Return what is different now from when a version was saved: name -> (then, now).

    Args:
        recorded: What was recorded with the version.
        devices: Where the modules are that its state went into, by part: :func:`device_types`.
    """
    now = describe()
    found = {
        name: (recorded[name], now[name])
        for name in COMPARED
        if name in recorded
        and recorded[name] != now[name]
        # One that is not imported, or not yet, has no other version.
        and not (name in LIBRARIES and None in (recorded[name], now[name]))
    }
    then = recorded.get("devices")
    if isinstance(then, dict):
        moved = [name for name in devices if name in then and then[name] != devices[name]]
        if moved:
            was, now_is = ({name: side[name] for name in moved} for side in (then, devices))
            found["devices"] = was, now_is
    return found


def device_types(tensors: Iterable[torch.Tensor]) -> list[str]:
    """Return the kinds of device that tensors are on, sorted: ``["cuda"]``."""
    return sorted({tensor.device.type for tensor in tensors})


def world_size() -> int:
    """Return how many processes train together; 1 outside a process group."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """Return this process's rank; 0 outside a process group."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def without_secrets(argv: Iterable[object]) -> list[str]:
    """Return a command line with what looks like a credential blanked out.

    A script may have put anything into it; what is no text is recorded as ``str`` has it.
    """
    shown: list[str] = []
    hide_next = False
    for word in map(str, argv):
        safe = USER_INFO.sub("***@", word)
        if hide_next and not word.startswith("-"):
            safe = "***"
        hide_next = (
            word.startswith("-") and "=" not in word and SECRET_OPTION.search(word) is not None
        )
        shown.append(SECRET_VALUE.sub(r"\1***", safe))
    return [word.encode("utf-8", "replace").decode() for word in shown]


def _gpu_facts() -> dict[str, Any]:
    """Return what there is to know of GPUs, of a process that uses one."""
    # Asking for names initialises CUDA, which a CPU training should not pay for.
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):  # type: ignore[no-untyped-call] # torch left it untyped
        return {"cudnn": None, "gpus": []}
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cudnn": torch.backends.cudnn.version(), "gpus": names}  # type: ignore[no-untyped-call] # as above


def _fp32_precision() -> dict[str, str | None]:
    """Return how exactly float32 is computed with, where this torch has a word for it (2.9 on)."""
    backends = torch.backends
    switches = {
        "cuda_matmul": backends.cuda.matmul,
        "cudnn_conv": getattr(backends.cudnn, "conv", None),
        "cudnn_rnn": getattr(backends.cudnn, "rnn", None),
        "mkldnn_matmul": getattr(backends.mkldnn, "matmul", None),
        "mkldnn_conv": getattr(backends.mkldnn, "conv", None),
    }
    return {name: getattr(switch, "fp32_precision", None) for name, switch in switches.items()}


def _attention() -> dict[str, bool | None]:
    """Return which kernels scaled dot product attention may use."""
    cuda = torch.backends.cuda
    asked = {
        "flash": "flash_sdp_enabled",
        "mem_efficient": "mem_efficient_sdp_enabled",
        "math": "math_sdp_enabled",
        "cudnn": "cudnn_sdp_enabled",
        "math_reduced_precision": "fp16_bf16_reduction_math_sdp_allowed",
    }
    return {name: getattr(cuda, enabled, lambda: None)() for name, enabled in asked.items()}


def _cublas(name: str) -> Callable[[], bool | None]:
    """Return what reads a switch of CUDA's matrix products, None where this torch has none."""
    return lambda: getattr(torch.backends.cuda.matmul, name, None)


def _fills_memory() -> bool | None:
    """Return whether torch fills new memory where it is to be deterministic."""
    return getattr(torch.utils.deterministic, "fill_uninitialized_memory", None)


def _version(name: str) -> str | None:
    """Return the version of a library that is imported."""
    version = getattr(sys.modules.get(name), "__version__", None)
    return None if version is None else str(version)


def _flag(read: Callable[[], Flag]) -> Flag | None:
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
