"""A process ends once what it saves in the background is saved, and says what failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ckptstore import Store
from ckptstore.saving.exit_code import EXIT_CODE

BEGIN = """
import sys, threading, time, torch
from ckptstore import Store
from ckptstore.storage.local_writer import LocalWriter

store = Store(sys.argv[1], catalog="sqlite://", on_full="raise", max_pending=3)
state = {"w": torch.arange(500_000.0)}
store.save(state, epoch=0)
"""
SLOWLY = """
write = LocalWriter.write
def slowly(self, data):
    print("writing", flush=True)
    threading.Event().wait(float(sys.argv[2]))
    write(self, data)
LocalWriter.write = slowly
"""
FULL = """
def fail(self, data):
    raise OSError(5, "the disk is gone")
LocalWriter.write = fail
"""


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def run(script: str, *arguments: object) -> tuple[int, str]:
    process = python(script, *arguments)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def epochs(url: object) -> list[int | None]:
    with Store(str(url), catalog="sqlite://") as store:
        return [each.epoch for each in store.history()]


def test_a_process_that_ends_saves_first(tmp_path):
    script = (
        BEGIN + SLOWLY + "for epoch in (1, 2): store.save_async(state | {'e': epoch}, epoch=epoch)"
    )

    assert run(script, tmp_path / "store", 0.2) == (0, "")
    assert epochs(tmp_path / "store") == [0, 1, 2]


def test_on_s3_the_loop_and_its_threads_work_until_all_is_saved(s3_url):
    script = BEGIN + "state['w'] += 1\nfor epoch in (1, 2): store.save_async(state, epoch=epoch)"

    assert run(script, s3_url) == (0, "")
    assert epochs(s3_url) == [0, 1, 2]


def test_an_error_that_ends_the_process_ends_no_save(tmp_path):
    script = BEGIN + SLOWLY + "state['w'] += 1; store.save_async(state, epoch=1); 1 / 0"

    code, said = run(script, tmp_path / "store", 0.2)

    assert code == 1
    assert "ZeroDivisionError" in said
    assert epochs(tmp_path / "store") == [0, 1]


def test_a_failure_that_nobody_saw_is_shown_once_at_exit(tmp_path):
    script = BEGIN + FULL + "state['w'] += 1; store.save_async(state, epoch=1)"

    code, said = run(script, tmp_path / "store")

    assert code == EXIT_CODE
    assert said.count("the save of run 'default', epoch 1, called at") == 1
    assert said.count("OSError: [Errno 5] the disk is gone") == 1
    assert epochs(tmp_path / "store") == [0]


def test_a_failure_that_somebody_saw_is_not_shown_again(tmp_path):
    asked = "try: store.save_async(state, epoch=1).result()\nexcept OSError: pass"

    assert run(BEGIN + FULL + "state['w'] += 1\n" + asked, tmp_path / "store") == (0, "")


def test_a_save_that_begins_after_the_last_wait_is_made_at_once(tmp_path):
    late = "import atexit\natexit.register(lambda: store.save_async({'w': torch.ones(3)}, epoch=1))"

    assert run(BEGIN + late, tmp_path / "store") == (0, "")
    assert epochs(tmp_path / "store") == [0, 1]


def test_a_save_after_the_last_wait_that_fails_says_so_at_the_call(tmp_path):
    late = """
import atexit
def too_late():
    try:
        store.save_async({"w": torch.ones(3)}, epoch=1)
    except OSError as error:
        print(error, *error.__notes__, file=sys.stderr)
atexit.register(too_late)
"""
    _, said = run(BEGIN + FULL + late, tmp_path / "store")

    assert said.count("the disk is gone") == 1
    assert "nobody would be told later" in said


def test_an_interrupt_at_exit_gives_up_what_is_not_saved_and_says_so(tmp_path):
    script = BEGIN + SLOWLY + "state['w'] += 1; store.save_async(state, epoch=1)"
    process = python(script, tmp_path / "store", 60)
    assert process.stdout is not None
    while process.stdout.readline() != "writing\n":
        pass

    # The main thread may not have come to its end yet; another one interrupts the waiting there.
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            continue
    _, said = process.communicate(timeout=60)

    assert process.returncode in {EXIT_CODE, -signal.SIGINT}
    assert "not saved" in said
    assert epochs(tmp_path / "store") == [0]


def test_what_is_waited_for_at_exit_is_said_in_time(tmp_path):
    impatient = "from ckptstore.saving import pending\npending.PATIENCE_S = 0.1\n"
    script = BEGIN + SLOWLY + impatient + "state['w'] += 1; store.save_async(state, epoch=1)"

    code, said = run(script, tmp_path / "store", 2)

    assert code == 0
    assert f"once 1 save(s) into {Path(tmp_path / 'store')} are made" in said
    assert epochs(tmp_path / "store") == [0, 1]


def test_a_killed_process_leaves_nothing_or_the_whole_version(tmp_path):
    script = BEGIN + SLOWLY + "state['w'] += 1; store.save_async(state, epoch=1)"
    process = python(script, tmp_path / "store", 60)
    assert process.stdout is not None
    while process.stdout.readline() != "writing\n":
        pass
    process.kill()
    process.communicate(timeout=60)

    assert epochs(tmp_path / "store") == [0]
    with Store(tmp_path / "store", catalog="sqlite://") as store:
        assert store.verify().ok
