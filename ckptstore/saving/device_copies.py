"""Copies from GPUs, on streams of their own: kernels go on beside them, and so does the CPU.

Written after torch's own (torch/distributed/checkpoint/staging.py, torch/cuda/streams.py). It has
not run on a GPU yet; what is tested is the order of the calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ckptstore.saving.rest import Pair


class DeviceCopies:
    """Copies under way from CUDA devices to the CPU, in the order in which they are started.

    Each device has one stream for them, which begins when all is done that its current stream was
    given before.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._last: dict[torch.device, torch.cuda.Event] = {}
        self._sources: list[torch.Tensor] = []

    def start(self, device: torch.device, pairs: Sequence[Pair]) -> None:
        """Start copies from one device; returns at once where the copies lie in pinned memory."""
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch left it untyped
            self._streams[device].wait_stream(torch.cuda.current_stream(device))
        stream = self._streams[device]
        with torch.cuda.stream(stream), torch.no_grad():
            for pair in pairs:
                pair.copy.copy_(pair.source, non_blocking=True)
        # Held until the copies are there: freed memory goes to the next tensor of the training.
        self._sources += [pair.source for pair in pairs]
        self._last[device] = stream.record_event()

    def hold_back(self) -> None:
        """Let what current streams are given from now on wait for all that was started."""
        for device, event in self._last.items():
            torch.cuda.current_stream(device).wait_event(event)

    def wait(self) -> None:
        """Return when all is copied."""
        for event in self._last.values():
            event.synchronize()
        self._sources.clear()
