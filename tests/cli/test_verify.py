from __future__ import annotations

import json

import pytest

from tests.loading.forging import packs_of
from tests.upkeep.checking import filled, flip


@pytest.fixture
def folder(tmp_path):
    filled(tmp_path / "store").close()
    return tmp_path / "store"


def test_a_whole_store_ends_with_0_and_a_line(typed, folder):
    done = typed("verify", folder)

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("3 versions in 1 run, 0 journal entries, 3 packs, ")
    assert done.stdout.endswith(" read: no damage found, 0 notes\n")


def test_damage_ends_with_1_and_a_table(typed, folder):
    flip(packs_of(folder, "digits", 2)[0])

    done = typed("verify", folder)

    assert done.exit_code == 1
    header, row, summary = done.stdout.splitlines()
    assert header.split() == ["severity", "kind", "ref", "found"]
    assert row.startswith("damage    pack  digits@2  tensor 'model/")
    assert summary.endswith("1 finding of damage, 0 notes")


def test_what_is_asked_for_is_checked(typed, folder):
    flip(packs_of(folder, "digits", 2)[0])

    assert typed("verify", folder, "digits@1").exit_code == 0
    assert typed("verify", folder, "digits@2").exit_code == 1
    assert typed("verify", folder, "dig*").exit_code == 1
    assert typed("verify", folder, "--shallow").exit_code == 0
    assert "sizes and headers alone" in typed("verify", folder, "--shallow").stdout
    missing = typed("verify", folder, "other")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "has no run 'other'" in missing.stderr


def test_repair_says_what_it_did(typed, folder):
    flip(packs_of(folder, "digits", 2)[0])

    done = typed("verify", folder, "--repair")

    assert done.exit_code == 1
    assert "; repaired: recorded as damaged" in done.stdout
    assert "recorded as damaged already" in typed("verify", folder).stdout


def test_json_is_one_object_in_one_line(typed, folder):
    flip(packs_of(folder, "digits", 2)[0])

    done = typed("verify", folder, "--json")

    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert (found["format"], found["ok"], found["damaged"]) == (1, False, ["digits@2"])
    assert found["findings"][0]["kind"] == "pack"
