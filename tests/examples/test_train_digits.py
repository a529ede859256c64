"""A training that is killed, whenever that may be, ends where it would have ended anyway."""

from __future__ import annotations

import random
import signal
import time

import pytest

from ckptstore import Store
from examples import digits, train_digits
from examples.digits import SimpleNN

EPOCHS = 10
LONGEST_S = 60


def start(processes, url):
    process = processes.Process(
        target=train_digits.main, args=(["--store", str(url), "--epochs", str(EPOCHS)],)
    )
    process.start()
    return process


def manifests(url):
    return list(url.glob("runs/digits/_versions/*.jsonl"))


def weights(url):
    return digits.digest(Store(url).load_latest(SimpleNN, device="cpu"))


def finish(processes, url):
    process = start(processes, url)
    process.join(LONGEST_S)
    assert process.exitcode == 0
    return weights(url)


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    return finish(processes, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_again_and_again_it_ends_with_the_same_bits(processes, undisturbed, tmp_path, seed):
    moments = random.Random(seed)  # noqa: S311 - moments to strike, no secrets
    kills = 0
    for _ in range(5):
        seen = len(manifests(tmp_path))
        process = start(processes, tmp_path)
        while process.is_alive() and len(manifests(tmp_path)) == seen:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))  # somewhere in the next epoch or its save
        process.kill()
        process.join(LONGEST_S)
        kills += process.exitcode == -signal.SIGKILL

    assert kills
    assert finish(processes, tmp_path) == undisturbed
    assert [entry.epoch for entry in Store(tmp_path).history()] == list(range(EPOCHS))


def test_a_finished_training_says_its_digest_and_trains_no_more(
    processes, undisturbed, tmp_path, capsys
):
    finish(processes, tmp_path)

    train_digits.main(["--store", str(tmp_path), "--epochs", str(EPOCHS)])

    printed = capsys.readouterr().out
    assert f"resumed from digits@{EPOCHS}" in printed
    assert f"digest  {undisturbed}" in printed
    assert len(Store(tmp_path).history()) == EPOCHS


def test_every_version_has_what_a_training_should_record(processes, tmp_path):
    finish(processes, tmp_path)

    latest = Store(tmp_path).latest()

    assert set(latest.metrics) == {"train_loss", "val_loss", "val_acc"}
    assert latest.config == train_digits.TRAINING
    assert latest.model_config == train_digits.MODEL
    assert latest.state("scheduler")["last_epoch"] == EPOCHS
