from __future__ import annotations

import json

import pytest
import torch

from ckptstore import Store
from tests.cli.conftest import EVIL


def test_show_prints_all_that_is_known(typed, place):
    done = typed("show", place, "sweep/lr=0.01@2")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["ref", "sweep/lr=0.01@2"]
    for line in (
        ["parent", "sweep/lr=0.01@1"],
        ["acc", "0.11"],
        ["lr", "0.01"],
        ["class", "torch.nn.modules.linear.Linear"],
        ["in_features", "2"],
        ["size", "36", "B"],
        ["environment"],
    ):
        assert line in lines
    assert ["tags"] not in [line[:1] for line in lines], "it has none"


def test_show_prints_what_others_wrote_as_text(typed, place):
    done = typed("show", place, "sweep/lr=0.1@prod")
    assert r" cat, \x1b[31m[red]<script>\u202e, dog" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


def test_show_on_a_terminal_prints_what_others_wrote_as_text(typed, place):
    done = typed("show", place, "sweep/lr=0.1@prod", FORCE_COLOR="1", TERM="xterm")
    assert "\x1b[36mref" in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert r"\x1b[31m[red]<script>\u202e" in done.stdout


def test_show_breaks_no_line(typed, place):
    narrow = typed("show", place, "sweep/lr=0.1@1", COLUMNS="20").stdout
    assert narrow == typed("show", place, "sweep/lr=0.1@1").stdout


def test_show_as_json_is_the_versions_metadata(typed, place):
    done = typed("show", place, "sweep/lr=0.1@prod", "--json")
    with Store(place) as store:
        assert json.loads(done.stdout) == store.get("sweep/lr=0.1@prod").metadata


def test_nan_is_shown_as_nan(typed, place):
    lines = typed("show", place, "sweep/lr=0.1@3").stdout.splitlines()
    assert ["acc", "NaN"] in [line.split() for line in lines]


def test_best_compares_by_the_monitor(typed, place):
    found = json.loads(typed("best", place, "sweep/*", "--json").stdout)
    assert found["ref"] == "sweep/lr=0.1@2"


@pytest.mark.parametrize(("mode", "ref"), [("min", "sweep/lr=0.01@1"), ("max", "sweep/lr=0.01@3")])
def test_best_compares_by_another_metric(typed, place, mode, ref):
    words = ("sweep/lr=0.01", "--metric", EVIL, "--mode", mode, "--json")
    assert json.loads(typed("best", place, *words).stdout)["ref"] == ref


def test_best_is_shown_as_by_show(typed, place):
    best = typed("best", place, "sweep/lr=0.1").stdout
    assert best == typed("show", place, "sweep/lr=0.1@2").stdout
    assert best


def test_best_says_what_it_could_not_compare(typed, tmp_path):
    with Store(tmp_path) as store:
        for epoch in range(2):
            store.save(extra=1, epoch=epoch, val_loss=epoch)
    manifest = tmp_path / "runs" / "default" / "_versions" / "00000002.jsonl"
    manifest.chmod(0o600)
    manifest.write_bytes(b"x" + manifest.read_bytes()[1:])
    (tmp_path / "catalog.sqlite3").unlink()

    done = typed("best", tmp_path)

    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: the best by 'val_loss' is looked for without default@2")
    assert "screen.py" not in done.stderr


def test_show_lists_files_by_what_they_are(typed, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with Store(tmp_path / "store", run="digits") as store:
        (file,) = store.save(model, program=torch.ones(2, 3)).files
    place = str(tmp_path / "store")
    lines = [line.split() for line in typed("show", place, "@1").stdout.splitlines()]
    assert ["program", "of", "model", str(file.size_bytes), "B"] in lines
    shown = json.loads(typed("show", place, "@1", "--json").stdout)["files"]
    assert shown == [{"role": "program", "part": "model", "size_bytes": file.size_bytes}]
