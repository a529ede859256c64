"""What a save needs of the interpreter's pools of threads is there until it is saved."""

from __future__ import annotations

import os
import signal

from tests.test_in_background_exit import BEGIN, epochs, python, run

# An address with a name in it is looked up in a pool of threads, which takes no more work once the
# interpreter has closed it. Each look-up waits for that, or for a second in which it doesn't come:
# a process whose end did not wait for the save would fail it.
LOOKING_UP = """
import asyncio, sys, threading, torch
import concurrent.futures.thread as pools
from aiohttp.resolver import ThreadedResolver
from ckptstore import Store

resolve = ThreadedResolver.resolve
async def at_exit(self, *arguments, **options):
    for _ in range(100):
        if not pools._shutdown:
            await asyncio.sleep(0.01)
    return await resolve(self, *arguments, **options)
ThreadedResolver.resolve = at_exit
store = Store(sys.argv[1], catalog="sqlite://", on_full="raise")
store.save_async({"w": torch.arange(1000.0)}, epoch=1)
"""
# What Python calls at exit without the function that it has for itself.
WITHOUT = """
import concurrent.futures.thread, threading
del threading._register_atexit
"""
FULL = """
import errno
from ckptstore.errors import StorageError
def full(self, data):
    raise StorageError(errno.ENOSPC, "no space left on device")
LocalWriter.write = full
from ckptstore.saving import pending
pending.PATIENCE_S = 0.1
store = Store(sys.argv[1], catalog="sqlite://", on_full="wait")
store.save_async({"w": torch.ones(3)}, epoch=1)
"""
FAILING = """
def fail(self, data):
    raise OSError(5, "the disk is gone")
LocalWriter.write = fail
store.save_async({"w": torch.ones(3)}, epoch=1)
"""


def test_names_are_looked_up_in_a_pool_until_all_is_saved(s3_url, s3_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint.replace("127.0.0.1", "localhost"))

    assert run(LOOKING_UP, s3_url) == (0, "")
    assert epochs(s3_url) == [1]


def test_a_python_without_a_call_before_its_pools_close_saves_and_tells_of_failures(tmp_path):
    saving = "store.save_async({'w': torch.ones(3)}, epoch=1)\n"
    code, said = run(WITHOUT + BEGIN + saving, tmp_path / "store")
    assert (code, said) == (0, "")

    _, said = run(WITHOUT + BEGIN + FAILING, tmp_path / "other")
    assert said.count("OSError: [Errno 5] the disk is gone") == 1
    assert epochs(tmp_path / "store") == [0, 1]
    assert epochs(tmp_path / "other") == [0]


def test_a_full_disk_at_exit_is_waited_for_until_an_interrupt(tmp_path):
    process = python(BEGIN + FULL, tmp_path / "store")
    assert process.stdout is not None
    assert process.stderr is not None
    said = ""
    while "this process ends once 1 save(s)" not in said:
        said = process.stderr.readline()
        assert said, "it ended without a word of what it waits for"
    process.send_signal(signal.SIGINT)
    _, last = process.communicate(timeout=60)
    assert "not saved" in last
    assert os.fspath(tmp_path / "store") in last
    assert epochs(tmp_path / "store") == [0]
