"""A process that lost a save ends with another code, and loses nothing else by it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOST = """
import atexit, sys
atexit.register(print, "registered first, called last")
import threading
from ckptstore.saving.exit_code import end_as_failed
"""
AT_EXIT = LOST + "threading._register_atexit(end_as_failed)\n"


def ended(script: str, *, stderr: int = subprocess.PIPE) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_without_it_a_process_ends_with_0():
    assert ended(LOST) == (0, "registered first, called last\n", "")


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "sys.exit(3)"])
def test_however_it_ends_the_code_is_another_and_nothing_is_said(end):
    assert ended(AT_EXIT + end) == (120, "registered first, called last\n", "")


def test_twice_is_once():
    assert ended(AT_EXIT + AT_EXIT)[0] == 120


def test_an_error_that_ends_it_is_shown_as_ever():
    code, _, said = ended(AT_EXIT + "1 / 0")

    assert code == 120
    assert said.endswith("ZeroDivisionError: division by zero\n")


def test_what_is_torn_down_later_is_torn_down(tmp_path):
    path = tmp_path / "unclosed"
    late = f"file = open({str(path)!r}, 'w'); file.write('all of it')"

    assert ended(AT_EXIT + late)[0] == 120
    assert path.read_text() == "all of it"


def test_standard_error_is_what_it_was_until_the_very_end():
    code, _, said = ended(
        AT_EXIT
        + """
import logging
class Last:
    def __del__(self): 1 / 0
last = Last()
def late():
    logging.warning("logged at %s", sys.stderr.fileno())
    print("written", file=sys.stderr, flush=True)
    sys.stderr.flush()
    raise ValueError("in a callback")
atexit.register(late)
"""
    )

    assert code == 120
    assert "WARNING:root:logged at 2\nwritten\nException ignored in atexit callback" in said
    assert "ValueError: in a callback" in said
    assert "a save was lost" not in said
    assert said.endswith("ZeroDivisionError: division by zero\n")


def test_where_there_is_no_standard_error_the_code_says_so_all_the_same():
    assert ended(LOST + "sys.stderr = None; end_as_failed()")[0] == 120
