from __future__ import annotations

import shutil

import pytest

from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.run_places import run_paths
from tests.catalog.places import commit, make_head, note, tag_entry
from tests.upkeep.checking import check, filled, only


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path)
    commit(storage, make_head("Digits", 1))
    return storage


def test_runs_are_known_by_their_files_and_the_rest_is_noted(storage, tmp_path):
    commit(storage, make_head("sweep/a", 1))
    note(storage, "only-journal", 1, tag_entry("prod", None))
    strays = [
        "runs/digits/_versions/1.jsonl",
        "runs/digits/_versions/00000000.jsonl",
        "runs/digits/_journal/00000001.jsonl",
        "runs/digits/notes.txt",
        "runs/UPPER/_versions/00000001.jsonl",
    ]
    for key in strays:
        path = tmp_path.joinpath(*key.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    found = []

    paths = run_paths(storage, found.append)

    assert paths == ["digits", "only-journal", "sweep/a"]
    assert sorted(each.key for each in found) == sorted(strays)


@pytest.mark.parametrize("inner", ["runs", "runs/copy", "runs/digits"])
def test_a_store_inside_of_a_store_is_noted_and_left_alone(tmp_path, inner):
    store = filled(tmp_path / "outer", 1)
    filled(tmp_path / "other", 2)  # none is made there, but one can be copied there
    shutil.copytree(tmp_path / "other", tmp_path / "outer" / inner, dirs_exist_ok=True)

    report = check(store)

    assert report.ok
    assert (only(report).kind, only(report).key) == ("unknown", inner)
    assert "is a store of its own" in only(report).message
    assert (report.runs, report.versions) == (1, 1)
