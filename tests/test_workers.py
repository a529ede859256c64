"""Loaders' workers and signals to all processes of a training at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptstore import Store
from ckptstore.workers import heed_alone, is_starting_loader_worker

ROOT = Path(__file__).parents[1]
GROUP_STEPS = 3


def ended(folder, how, number):
    """Send a signal to the whole group of a training with workers; return its exit code."""
    command = [sys.executable, "-m", "tests.guarded_loader", str(folder), how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "training\n"
        os.killpg(process.pid, number)
        return process.wait(60)


@pytest.mark.parametrize(
    ("how", "number"),
    [("fork", signal.SIGTERM), ("fork", signal.SIGUSR1), ("spawn", signal.SIGTERM)],
)
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_guard(tmp_path, how, number):
    assert ended(tmp_path, how, number) == 143

    assert Store(tmp_path / "store", catalog="sqlite://").latest(run="digits").step >= GROUP_STEPS


def forked(work):
    """Do something in a forked child that heeds this process alone; return what became of it."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - another process
        work()
        os.write(told, b"x")
        signal.pause()
        os._exit(9)
    os.read(ready, 1)
    return child


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_worker_heeds_who_started_it_and_nobody_else():
    parent = os.getpid()
    child = forked(lambda: heed_alone(parent, [signal.SIGTERM]))
    subprocess.run([sys.executable, "-c", f"import os; os.kill({child}, 15)"], check=True)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)

    os.kill(child, signal.SIGTERM)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


WORKER = """
import os, sys, threading, warnings
from pathlib import Path
from ckptstore.workers import SIGNALS, WAITING, heed_alone, leave_to_guard

def blocked(thread):
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.partition("SigBlk:")[2].split()[0], 16)

if sys.argv[1] == "early":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
if sys.argv[1] == "guarded":  # as in a worker that was forked while a guard was in place
    heed_alone(os.getppid(), SIGNALS)
    waits = next(each for each in threading.enumerate() if each.name == WAITING)
    while blocked(waits):  # Linux clears them once it waits
        pass
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    leave_to_guard()
print([str(each.message).partition(" of this")[0] for each in told])
"""


@pytest.mark.parametrize(
    ("when", "told"),
    [("early", "['leave_to_guard(): 1']"), ("never", "[]"), ("guarded", "[]")],
)
def test_threads_that_go_on_taking_signals_are_told_of(when, told):
    command = [sys.executable, "-c", WORKER, when]

    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert said.strip() == told


def test_this_process_is_no_worker():
    assert not is_starting_loader_worker()
