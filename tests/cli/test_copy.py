from __future__ import annotations

import json

import pytest

from ckptstore import Store
from tests.loading.forging import packs_of
from tests.upkeep.checking import filled, flip


@pytest.fixture
def here(tmp_path):
    filled(tmp_path / "here").close()
    return tmp_path / "here"


def versions(folder):
    with Store(folder) as store:
        return [each.ref for each in store.history()]


def test_a_store_is_copied_and_the_table_says_what_was(typed, here, tmp_path):
    done = typed("copy", here, tmp_path / "there")

    assert (done.exit_code, done.stderr) == (0, "")
    header, first, *_, summary = done.stdout.splitlines()
    assert header.split() == ["ref", "kind", "written", "shared", "copy"]
    assert first.split()[:2] == ["digits@1", "checkpoint"]
    assert "3 copied, 0 there already" in summary
    assert versions(tmp_path / "there") == ["digits@1", "digits@2", "digits@3"]
    again = typed("copy", here, tmp_path / "there").stdout
    assert "0 copied, 3 there already" in again


def test_runs_and_versions_can_be_chosen(typed, here, tmp_path):
    with Store(here) as store:
        for run in ("a", "b"):
            store.save(extra=1, run=run)
    typed("copy", here, tmp_path / "x", "--run", "a", "--ref", "digits@2", "--ref", "digits@3")
    assert versions(tmp_path / "x") == ["a@1", "digits@1", "digits@2"]
    typed("copy", here, tmp_path / "y", "--run", "a", "--into", "c")
    assert versions(tmp_path / "y") == ["c@1"]
    typed("copy", here, tmp_path / "z", "--run", "[ab]*", "--run", "digits")
    assert len(versions(tmp_path / "z")) == 5


def test_json_is_one_line(typed, here, tmp_path):
    (line,) = typed("copy", here, tmp_path / "there", "--json").stdout.splitlines()
    found = json.loads(line)
    assert found["format"] == 1
    assert found["versions"][2]["ref"] == found["versions"][2]["copy"] == "digits@3"


def test_damage_ends_with_1_and_names_the_version(typed, here, tmp_path):
    flip(packs_of(here, "digits", 2)[0])

    done = typed("copy", here, tmp_path / "there")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "digits@2: " in done.stderr
    assert "2 copied" in done.stderr
    assert len(versions(tmp_path / "there")) == 2


def test_what_is_wrong_with_the_command_ends_with_2(typed, here):
    done = typed("copy", here, here)
    assert done.exit_code == 2
    assert "can't be copied into itself" in done.stderr
    assert typed("copy", here, "nowhere", "--target-option", "x").exit_code == 2


def test_options_go_to_the_store_they_are_for(typed, here, tmp_path, monkeypatch):
    opened = []
    original = Store.__init__

    def init(self, url, **options):
        opened.append((str(url), options))
        original(self, url)

    monkeypatch.setattr(Store, "__init__", init)
    words = ("--option", "a=1", "--target-option", "b=2", "--single-writer")
    typed("copy", here, tmp_path / "there", *words)
    assert opened == [
        (str(here), {"storage_options": {"a": 1}}),
        (str(tmp_path / "there"), {"storage_options": {"b": 2}, "single_writer": True}),
    ]
