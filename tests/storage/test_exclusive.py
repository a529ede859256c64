"""What makes each filesystem's creation exclusive; the cloud ones are asked for exactly that."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from ckptstore.storage.exclusive import CREATORS, memory_turn


class Recorder:
    """A filesystem that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def pipe_file(self, path, data, **options):
        self.asked.append((path, data, options))


@pytest.mark.parametrize(
    ("protocols", "condition"),
    [(("gs", "gcs"), {"mode": "create"}), (("az", "abfs", "abfss"), {"overwrite": False})],
)
def test_a_cloud_is_asked_for_its_condition(protocols, condition):
    for protocol in protocols:
        filesystem = Recorder()
        CREATORS[protocol](filesystem, "bucket/x", b"data")
        assert filesystem.asked == [("bucket/x", b"data", condition)]


def test_nothing_else_is_trusted():
    assert set(CREATORS) == {"memory", "gs", "gcs", "az", "abfs", "abfss"}


def test_a_fork_gets_a_free_lock():
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with memory_turn():
            held.set()
            done.wait()

    def take() -> None:
        with memory_turn():
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    process = multiprocessing.get_context("fork").Process(target=take)
    process.start()
    process.join(30)
    done.set()
    thread.join()
    process.kill()

    assert process.exitcode == 0


def test_only_one_thread_at_a_time_has_its_turn():
    could: list[bool] = []

    with memory_turn():
        thread = threading.Thread(
            target=lambda: could.append(memory_turn().acquire(blocking=False))
        )
        thread.start()
        thread.join()

    assert could == [False]
