from __future__ import annotations

import json
from datetime import timedelta

import pytest

from ckptstore import Store
from ckptstore.cli.prune import parse_span
from ckptstore.errors import ArgumentError
from tests.cli.conftest import EVIL


@pytest.fixture
def place(tmp_path):
    """Two runs of four epochs each, at their best in the second."""
    with Store(tmp_path / "store") as store:
        for run in ("sweep/a", "sweep/b"):
            for epoch, loss in enumerate((0.5, 0.1, 0.4, 0.3)):
                store.save(
                    extra=1, run=run, epoch=epoch, metrics={"val_loss": loss, "=acc": -epoch}
                )
    return tmp_path / "store"


def live(place, run="sweep/a"):
    with Store(place) as store:
        return [each.version for each in store.history(run) if each.retired is None]


def decisions(done):
    assert done.exit_code == 0, done.stderr
    return {row["ref"]: row["reasons"] for row in map(json.loads, done.stdout.splitlines())}


def test_prune_shows_what_it_did(typed, place):
    done = typed("prune", place, "sweep/a", "--last", 1)
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["ref", "epoch", "val_loss"]
    assert [line[0] for line in lines[1:5]] == [f"sweep/a@{number}" for number in (4, 3, 2, 1)]
    assert lines[2][-1] == "retire"
    assert done.stdout.endswith("sweep/a: 2 kept, 2 retired (the policy keeps the last)\n")
    assert live(place) == [2, 4]
    assert live(place, "sweep/b") == [1, 2, 3, 4]


def test_a_dry_run_shows_the_same_and_retires_nothing(typed, place):
    dry = typed("prune", place, "sweep/a", "--last", 1, "--dry-run").stdout
    assert live(place) == [1, 2, 3, 4]
    assert dry.endswith("sweep/a: 2 kept, 2 would be retired (the policy keeps the last)\n")
    assert dry.count("decision") == 1
    assert typed("prune", place, "sweep/a", "--last", 1).stdout.replace("2 retired", "") == (
        dry.replace("2 would be retired", "")
    )


def test_a_pattern_prunes_several_runs(typed, place):
    typed("prune", place, "sweep/*", "--last", 1)
    assert live(place, "sweep/a") == live(place, "sweep/b") == [2, 4]


def test_json_has_a_line_for_each_version(typed, place):
    done = typed("prune", place, "sweep/*", "--last", 1, "--dry-run", "--json")
    found = decisions(done)
    assert len(found) == 8
    assert found["sweep/b@1"] == []
    assert found["sweep/b@4"] == ["newest intact checkpoint", "the last"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--last", 2], {3: "one of the last 2"}),
        (["--best", 2], {4: "best 2 of 2 by val_loss (min): 0.3"}),
        (["--best-by", "val_loss=max"], {1: "best by val_loss (max): 0.5"}),
        (["--best-by", "=acc=max"], {1: "best by =acc (max): 0"}),
        (
            ["--best", 2, "--best-by", "=acc=max", "--best-by", "val_loss=max"],
            {2: "best 2 of 2 by =acc (max): -1", 3: "best 2 of 2 by val_loss (max): 0.4"},
        ),
        (["--every-epochs", 2], {3: "epoch 2 is a multiple of 2"}),
        (["--within", "2d"], {1: "created within 2 days"}),
    ],
)
def test_each_option_keeps_what_it_says(typed, place, words, kept):
    found = decisions(typed("prune", place, "sweep/a", *words, "--dry-run", "--json"))
    for version, reason in kept.items():
        assert reason in found[f"sweep/a@{version}"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "has no record of what to keep: say it, as in --last 3 --best 2"),
        (["--last", "0"], "--last"),
        (["--best-by", "val_acc"], "--best-by val_acc: takes a metric with its mode"),
        (["--best-by", "val_acc=most"], "--best-by val_acc=most: takes"),
        (["--best-by", "=max"], "--best-by =max: takes"),
        (["--best-by", "a=max", "--best-by", "a=min"], "--best-by a=… is given twice"),
        (["--within", "2 days"], "--within 2 days: takes a number above 0 with a unit"),
    ],
)
def test_errors_say_what_to_type(typed, place, words, says):
    done = typed("prune", place, "sweep/a", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())
    assert live(place) == [1, 2, 3, 4]


def test_the_recorded_policy_is_used(typed, place):
    from ckptstore import Keep

    with Store(place) as store:
        run = store.run("sweep/a", keep=Keep(last=2))
        run.resume()
        run.save(extra=1, epoch=4)
    done = typed("prune", place, "sweep/a")
    assert done.exit_code == 0
    assert live(place) == [2, 4, 5]


def test_what_others_wrote_is_shown_as_text(typed, place):
    done = typed("prune", place, "sweep/a", "--best-by", f"{EVIL}=max", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.replace("\n", "").isprintable()
    assert r"\x1b[31m[red]<script>\u202e" in done.stdout


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("2d", timedelta(days=2)),
        ("36h", timedelta(hours=36)),
        ("90m", timedelta(minutes=90)),
        ("1w", timedelta(weeks=1)),
        ("45s", timedelta(seconds=45)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_spans_are_understood(text, span):
    assert parse_span(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "2", "d", "-2d", "0d", "2.5d", "2D", "2d ", "٢d", "36501d", "999999999999w", "2d2h"],
)
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ArgumentError, match="takes a number above 0 with a unit"):
        parse_span(text)
