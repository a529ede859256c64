from __future__ import annotations

import json

from ckptstore import Store
from tests.cli.conftest import EVIL


def test_history_lists_every_version_of_every_run(typed, place):
    done = typed("history", place)
    header, *rows = done.stdout.splitlines()
    assert header.split()[:4] == ["ref", "kind", "epoch", "acc"]
    assert [row.split()[0] for row in rows] == [
        *(f"sweep/lr=0.01@{number}" for number in (1, 2, 3)),
        *(f"sweep/lr=0.1@{number}" for number in (1, 2, 3, 4)),
    ]
    assert done.stderr == ""


def test_history_of_a_run_is_that_run_alone(typed, place):
    lines = typed("history", place, "sweep/lr=0.01").stdout.splitlines()
    assert len(lines) == 1 + 3


def test_history_takes_a_pattern(typed, place):
    lines = typed("history", place, "sweep/lr=0.?").stdout.splitlines()
    assert [line.split("@")[0] for line in lines[1:]] == ["sweep/lr=0.1"] * 4


def test_piped_history_leaves_nothing_out(typed, tmp_path):
    with Store(tmp_path) as store:
        for epoch in range(70):  # more than a repr shows
            store.save(extra=1, epoch=epoch, rng=False)
    assert len(typed("history", tmp_path).stdout.splitlines()) == 1 + 70


def test_history_as_json_is_each_versions_metadata(typed, place):
    lines = typed("history", place, "sweep/*", "--json").stdout.splitlines()
    with Store(place) as store:
        assert [json.loads(line) for line in lines] == [
            entry.metadata for entry in store.history("sweep/*")
        ]


def test_history_as_json_holds_no_control_characters(typed, place):
    done = typed("history", place, "--json")
    assert EVIL in json.loads(done.stdout.splitlines()[0])["metrics"]
    assert done.stdout.replace("\n", "").isprintable()
    assert done.stdout.isascii()


def test_history_shows_names_as_text(typed, place):
    done = typed("history", place)
    assert r"\x1b[31m[red]<script>\u202e" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


def test_history_on_a_terminal_is_a_table_that_shows_names_as_text(typed, place):
    done = typed("history", place, FORCE_COLOR="1", NO_COLOR="1", COLUMNS="200")
    assert "───" in done.stdout
    assert r"\x1b[31m[red]<script>\u202e" in done.stdout
    assert "\x1b[31m" not in done.stdout


def test_history_names_damaged_versions_and_shows_the_others(typed, tmp_path):
    with Store(tmp_path) as store:
        for epoch in range(3):
            store.save(extra=1, epoch=epoch)
    manifest = tmp_path / "runs" / "default" / "_versions" / "00000002.jsonl"
    manifest.chmod(0o600)
    manifest.write_bytes(b"x" + manifest.read_bytes()[1:])
    (tmp_path / "catalog.sqlite3").unlink()

    done = typed("history", tmp_path, "--json")

    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: default@2 is damaged: ")
    assert [json.loads(line)["version"] for line in done.stdout.splitlines()] == [1, 3]
