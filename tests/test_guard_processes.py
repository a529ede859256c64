"""Trainings that get real signals: they save, exit, and go on bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptstore import Store
from tests.guarded_training import EXIT_CODE, STEPS, TOLD_AT
from tests.loading.trainings import Training, everything

ROOT = Path(__file__).parents[1]


def started(folder, what="free"):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.guarded_training", str(folder), what]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def told(process, folder, *signals):
    """Send signals in the middle of a step, and let it go on."""
    assert process.stdout.readline() == "told\n"
    for number in signals:
        process.send_signal(number)
    (folder / "go on").touch()


@pytest.fixture(scope="module")
def uninterrupted():
    training = Training()
    losses = [f"{step} {training.epoch().hex()}" for step in range(1, STEPS + 1)]
    return losses, repr(everything(training))


def losses_in(folder):
    return (folder / "losses").read_text().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_training_that_is_told_to_stop_goes_on_as_if_nothing_had_happened(
    tmp_path, uninterrupted, number
):
    with started(tmp_path) as process:
        told(process, tmp_path, number)
        assert process.wait(60) == EXIT_CODE
    assert len(losses_in(tmp_path)) == TOLD_AT
    assert Store(tmp_path / "store", catalog="sqlite://").latest().step == TOLD_AT

    with started(tmp_path) as process:
        assert process.wait(60) == 0

    losses, end = uninterrupted
    assert losses_in(tmp_path) == losses
    assert (tmp_path / "end").read_text() == end


def test_more_signals_do_not_break_the_save_under_way(tmp_path):
    with started(tmp_path, "held") as process:
        told(process, tmp_path, signal.SIGTERM)
        assert process.stdout.readline() == "saving\n"
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            process.send_signal(number)
        (tmp_path / "finish").touch()
        assert process.wait(60) == EXIT_CODE

    store = Store(tmp_path / "store", catalog="sqlite://")
    assert store.latest().step == TOLD_AT
    assert store.verify().ok


def test_who_is_killed_in_the_guards_save_has_the_version_before(tmp_path, uninterrupted):
    with started(tmp_path, "killed") as process:
        told(process, tmp_path, signal.SIGTERM)
        assert process.wait(60) == -signal.SIGKILL
    assert Store(tmp_path / "store", catalog="sqlite://").latest().step == 0

    with started(tmp_path, "killed") as process:
        assert process.wait(60) == 0

    losses, end = uninterrupted
    assert losses_in(tmp_path) == losses[:TOLD_AT] + losses
    assert (tmp_path / "end").read_text() == end
