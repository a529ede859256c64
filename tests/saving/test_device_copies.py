"""Copies from GPUs: the order of the calls, with stand-ins for streams and events."""

from __future__ import annotations

import contextlib

import pytest
import torch

from ckptstore.saving.device_copies import DeviceCopies
from ckptstore.saving.rest import Pair

DEVICE = torch.device("cuda", 0)


class Stream:
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def wait_stream(self, other):
        self.calls.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.calls.append(f"{self.name} waits for {event.name}")

    def record_event(self):
        event = Event(f"event {sum(call.startswith('record') for call in self.calls)}", self.calls)
        self.calls.append(f"record {event.name} on {self.name}")
        return event


class Event:
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def synchronize(self):
        self.calls.append(f"the CPU waits for {self.name}")


@pytest.fixture
def calls(monkeypatch):
    calls = []
    compute = Stream("compute", calls)

    @contextlib.contextmanager
    def entered(stream):
        calls.append(f"on {stream.name}")
        yield
        calls.append(f"off {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream("side", calls))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: compute)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    return calls


def pair():
    return Pair(torch.ones(3), torch.zeros(3))


def test_copies_begin_when_the_device_has_done_what_it_was_given(calls):
    copies, each = DeviceCopies(), pair()
    copies.start(DEVICE, [each])
    assert calls == ["side waits for compute", "on side", "off side", "record event 0 on side"]
    assert torch.equal(each.source, each.copy)


def test_the_cpu_waits_where_all_is_to_be_there(calls):
    copies = DeviceCopies()
    copies.start(DEVICE, [pair()])
    copies.wait()
    assert calls[-1] == "the CPU waits for event 0"


def test_the_device_waits_and_the_cpu_goes_on_before_a_write(calls):
    copies = DeviceCopies()
    copies.start(DEVICE, [pair()])
    copies.hold_back()
    copies.start(DEVICE, [pair()])  # on the same stream, so after the first
    copies.hold_back()
    assert [call for call in calls if "waits" in call] == [
        "side waits for compute",
        "compute waits for event 0",
        "compute waits for event 1",
    ]


def test_nothing_on_a_gpu_asks_nothing_of_it(calls):
    copies = DeviceCopies()
    copies.hold_back()
    copies.wait()
    assert calls == []


@pytest.mark.usefixtures("calls")
def test_sources_are_held_until_they_are_copied():
    import weakref

    source = torch.ones(3)
    gone = weakref.ref(source)
    copies = DeviceCopies()
    copies.start(DEVICE, [Pair(source, torch.zeros(3))])
    del source
    assert gone() is not None
    copies.wait()
    assert gone() is None
