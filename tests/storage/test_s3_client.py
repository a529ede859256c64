"""Attempts at requests, and waiting for work on another thread's loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import fsspec.asyn
import pytest

from ckptstore.storage.instances import Instances
from ckptstore.storage.s3_client import RETRY_DELAYS_S, S3Client
from tests.storage.s3_faults import answer, timeout


class OneLoop(Instances):
    """fsspec's loop without a filesystem."""

    def __init__(self) -> None:
        super().__init__("memory", {})

    def get(self):
        return type("Filesystem", (), {"loop": fsspec.asyn.get_loop()})()


@pytest.fixture
def client() -> S3Client:
    return S3Client(OneLoop(), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_attempts_go_on_until_one_succeeds(client, failures):
    errors = [timeout() for _ in range(failures)]

    async def attempt() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert client.run(client.repeat, attempt) == "done"


def test_attempts_are_bounded_and_the_last_error_is_raised(client):
    made = []

    async def attempt() -> None:
        made.append(None)
        raise answer(503, f"attempt {len(made)}")

    with pytest.raises(Exception, match="attempt 4"):
        client.run(client.repeat, attempt)
    assert len(made) == 4


def test_what_will_not_pass_is_not_tried_again(client):
    made = []

    async def attempt() -> None:
        made.append(None)
        raise answer(403, "AccessDenied")

    with pytest.raises(Exception, match="AccessDenied"):
        client.run(client.repeat, attempt)
    assert len(made) == 1


def test_the_waits_between_attempts_grow_and_end_within_seconds():
    assert list(RETRY_DELAYS_S) == sorted(RETRY_DELAYS_S)
    assert sum(RETRY_DELAYS_S) * 1.5 < 15


def test_an_interrupt_stops_the_work_before_it_is_raised(client):
    begun, stopped = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        client.run(work)

    assert stopped.is_set()
    thread.join()
