from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ckptstore.importing.ending import end_all

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


# What began a session of its own is found on Linux alone.
SESSIONS = [False, True] if hasattr(os, "pidfd_open") else [False]


@pytest.mark.parametrize("own_session", SESSIONS)
def test_what_it_started_ends_with_it_and_nothing_else(tmp_path, own_session):
    code = (
        "import subprocess, time\n"
        f"subprocess.Popen({SLEEP!r}, start_new_session={own_session})\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    with process, subprocess.Popen(SLEEP, env={"TMPDIR": f"{tmp_path}/other"}) as other:
        assert process.stdout.readline() == b"started\n"
        end_all(process, f"TMPDIR={tmp_path}")
        assert process.stdout.read() == b""  # at its end: nobody has the pipe any more
        assert other.poll() is None
        other.kill()
