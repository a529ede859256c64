"""The device asked for, or a clear word that it is not there."""

from __future__ import annotations

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
        raise DeviceError(
            f"device={str(wanted)!r} is not there; this machine has {', '.join(present())}"
        )
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"device={str(wanted)!r} is not there; this machine has {', '.join(present())}"
        )
    if wanted.type == "meta":
        raise DeviceError(
            "device='meta' holds no data, so nothing can be loaded onto it; write device='cpu'"
        )
    return wanted


def present() -> list[str]:
    """Return the names of the devices there are."""
    names = ["cpu", *(f"cuda:{index}" for index in range(_cuda_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def _cuda_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
