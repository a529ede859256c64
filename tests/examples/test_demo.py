"""The demo, on S3: the folder's half is the same code on an easier storage."""

from __future__ import annotations

import tempfile

import pytest

from examples import demo


def test_the_demo_shows_what_it_promises_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    demo.main(["--on", "s3"])

    shown = capsys.readouterr().out
    assert "kill -9" in shown
    assert "resumed from digits@" in shown
    assert "the same, bit for bit" in shown
    assert "of 270 held-out images" in shown
    assert "the policy keeps the last 2, the best 2 by val_loss (min)" in shown
    assert "no damage found" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_command_of_the_demo_that_fails_stops_it(tmp_path):
    surroundings = demo.environment(str(tmp_path), "http://127.0.0.1:9")

    with (
        pytest.raises(SystemExit, match="train_digits --epochs none ended with 2"),
        demo.started(["examples.train_digits", "--epochs", "none"], surroundings) as command,
    ):
        demo.rest(command)
