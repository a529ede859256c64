"""The CPU in a GPU's place: copies are done as late as a GPU may do them, when somebody waits."""

from __future__ import annotations

import contextlib
import threading

import torch

from ckptstore.loading import loaded, pinned, program


class Stream:
    """A stream that does nothing of what it is given before somebody waits for it."""

    def __init__(self, device):
        self.device = device
        self.lock = threading.RLock()
        self.pending = []
        self.done = 0
        self.given = 0
        self.after = 0

    def give(self, copy):
        with self.lock:
            self.pending.append(copy)
            self.given += 1

    def reach(self, count):
        with self.lock:
            while self.done < count:
                self.pending.pop(0)()
                self.done += 1

    def wait_stream(self, _):
        self.after += 1

    def record_event(self):
        return Event(self, self.given)

    def synchronize(self):
        self.reach(self.given)


class Event:
    def __init__(self, stream, count):
        self.stream, self.count = stream, count

    def synchronize(self):
        self.stream.reach(self.count)


class StandIn:
    """What happened on the CPU in a GPU's place.

    Attributes:
        streams: Those that were made.
        buffers: The pinned memory that was made.
        free: How many bytes the device has.
    """

    def __init__(self):
        self.streams = []
        self.buffers = []
        self.free = 2**40
        self.entered = threading.local()

    @property
    def sent(self):
        return sum(stream.given for stream in self.streams)

    @property
    def is_idle(self):
        return all(stream.done == stream.given for stream in self.streams)

    def stream(self, device):
        self.streams.append(Stream(device))
        return self.streams[-1]

    @contextlib.contextmanager
    def on(self, stream):
        self.entered.stream = stream
        yield
        self.entered.stream = None

    def copy(self, target, source):
        stream = self.entered.stream
        assert source.untyped_storage().data_ptr() in {each.data_ptr() for each in self.buffers}
        stream.give(lambda: target.copy_(source))

    def pinned_bytes(self, length):
        self.buffers.append(torch.empty(length, dtype=torch.uint8))
        return self.buffers[-1]


def instead_of_a_gpu(monkeypatch, *, buffer_bytes=4096, buffers=2):
    """Let the CPU take a GPU's place; its buffers are small, so that states need many."""
    device = StandIn()
    monkeypatch.setattr(torch.cuda, "Stream", device.stream)
    monkeypatch.setattr(torch.cuda, "stream", device.on)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (device.free, device.free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    monkeypatch.setattr(pinned, "copy", device.copy)
    monkeypatch.setattr(pinned, "pinned_bytes", device.pinned_bytes)
    monkeypatch.setattr(pinned, "BUFFERS", buffers)
    for module in (
        "ckptstore.loading.pinned",
        "ckptstore.loading.fetch",
        "ckptstore.loading.reader",
    ):
        monkeypatch.setattr(f"{module}.BUFFER_BYTES", buffer_bytes)
    for module in (pinned, loaded, program):
        # But what nobody wants on another device stays where it is.
        monkeypatch.setattr(module, "takes", lambda target: target is not pinned.CPU)
    return device
