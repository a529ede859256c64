"""The device asked for, or a clear word that it is not there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ckptstore.errors import DeviceError


def resolve(device: str | int | torch.device | None) -> torch.device:
    """Return the device meant.

    Args:
        device: None means CUDA if there is one, else the CPU; an int means that CUDA device.

    Raises:
        DeviceError: It is no device, or not there; the message names those that are.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"device={device!r} is no device: write 'cpu', 'cuda' or 'cuda:0'"
        ) from error
    if wanted.type == "cuda" and (wanted.index or 0) >= _cuda_count():
        raise _not_there(wanted)
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise _not_there(wanted)
    if wanted.type == "meta":
        raise DeviceError(
            "device='meta' holds no data, so nothing can be loaded onto it; write device='cpu'"
        )
    if wanted.type not in {"cpu", "cuda", "mps"}:
        try:
            torch.empty(1, device=wanted)
        except (AssertionError, ImportError, RuntimeError) as error:
            # Each backend has its own way of not being there, and none of them a question to ask.
            raise _not_there(wanted) from error
    return wanted


def present() -> list[str]:
    """Return the names of the devices there are."""
    names = ["cpu", *(f"cuda:{index}" for index in range(_cuda_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and accelerator.type not in {"cuda", "mps"}:
        count = torch.accelerator.device_count()
        names += [f"{accelerator.type}:{index}" for index in range(count)]
    return names


def on_cpu() -> AbstractContextManager[object]:
    """Make the CPU the device of new tensors while entered.

    It is nothing where that is so anyway: torch asks a mode about every function that is called,
    each look at a shape or a storage among them, and building a model takes tens of thousands.
    """
    return nullcontext() if torch.empty(0).device.type == "cpu" else torch.device("cpu")


def _not_there(device: torch.device) -> DeviceError:
    return DeviceError(
        f"device={str(device)!r} is not there; this machine has {', '.join(present())}"
    )


def _cuda_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
