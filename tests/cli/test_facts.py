from __future__ import annotations

import json

import pytest
import torch

from ckptstore import Store


@pytest.fixture
def folder(tmp_path):
    with Store(tmp_path / "store", run="digits") as store:
        for epoch in range(2):
            store.save({"w": torch.zeros(1)}, epoch=epoch)
    return tmp_path / "store"


def test_tags_are_set_moved_listed_and_taken_away(typed, folder):
    done = typed("tag", folder, "digits@1", "prod")
    assert (done.exit_code, done.stdout) == (0, "digits@1 has the tag prod.\n")
    typed("tag", folder, "@2", "prod")
    assert json.loads(typed("tags", folder, "--json").stdout) == {"tag": "prod", "ref": "digits@2"}
    assert typed("untag", folder, "prod").stdout == "No version has the tag prod.\n"
    assert typed("tags", folder).stdout == ""

    moves = typed("tags", folder, "--history", "--json").stdout.splitlines()
    assert [(move["previous"], move["version"]) for move in map(json.loads, moves)] == [
        (None, 1),
        (1, 2),
        (2, None),
    ]
    assert "prod" in typed("tags", folder, "--history").stdout


def test_metrics_are_logged(typed, folder):
    done = typed("log", folder, "digits@1", "test_acc=0.5", "count=3", "f1=nan")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "test_acc=0.5" in done.stdout
    with Store(folder) as store:
        assert repr(store.get(1).metrics) == "{'test_acc': 0.5, 'count': 3, 'f1': nan}"


@pytest.mark.parametrize("metric", ["test_acc", "=1", "test_acc=", "test_acc=high"])
def test_what_is_no_metric_is_refused(typed, folder, metric):
    done = typed("log", folder, "digits@1", metric)
    assert done.exit_code == 2
    assert "is no metric" in done.stderr


def test_a_note_is_written_and_taken_away(typed, folder):
    assert typed("note", folder, "digits@1", "good one").stdout == "digits@1 has the note.\n"
    with Store(folder) as store:
        assert store.get(1).note == "good one"
    assert typed("note", folder, "digits@1", "").stdout == "digits@1 has no note.\n"
