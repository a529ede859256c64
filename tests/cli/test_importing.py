from __future__ import annotations

import json

import pytest
import torch

from ckptstore import Store
from tests.importing.files import Net, full


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    for epoch in (2, 1):
        torch.save(full(epoch=epoch), folder / f"model_{epoch}.pth")
    (folder / "log.csv").write_text("epoch,loss\n")
    return folder


def test_a_folder_is_imported_and_the_table_says_what_was(typed, old, tmp_path):
    done = typed("import", tmp_path / "store", old, "--run", "digits")
    assert (done.exit_code, done.stderr) == (0, "")
    header, first, second, summary = done.stdout.splitlines()
    assert header.split()[:2] == ["ref", "epoch"]
    assert (first.split()[:2], second.split()[:2]) == (["digits@1", "1"], ["digits@2", "2"])
    assert summary.endswith("2 imported, 0 there already, 1 no checkpoint (log.csv)")
    again = typed("import", tmp_path / "store", old, "--run", "digits")
    assert "Warning: 2 of 2 were imported before" in again.stderr
    assert "--again does" in again.stderr
    assert "0 imported, 2 there already" in again.stdout


@pytest.mark.parametrize(("options", "first"), [([], "a"), (["--no-unwrap"], "module.a")])
def test_prefixes_of_wrappers_can_stay(typed, tmp_path, options, first):
    torch.save({"module.a": torch.ones(1)}, tmp_path / "x")
    assert typed("import", tmp_path / "s", tmp_path / "x", "--run", "d", *options).exit_code == 0
    with Store(tmp_path / "s") as store:
        assert list(store.latest().state("model")) == [first]


def test_json_is_one_line(typed, old, tmp_path):
    done = typed("import", tmp_path / "s", old / "model_1.pth", "--run", "d", "--json")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["versions"][0]["ref"] == "d@1"


def test_keys_and_names_are_typed_as_pairs(typed, tmp_path):
    value = {"my": {"net.a": torch.ones(1)}, "score_": 0.5, "cache": [1]}
    torch.save(value, tmp_path / "x")
    options = ["--key", "my=model", "--key", "score_=acc", "--key", "cache=", "--rename", "net.="]
    done = typed("import", tmp_path / "s", tmp_path / "x", "--run", "d", *options, "--tie", "b=a")
    assert done.exit_code == 0
    with Store(tmp_path / "s") as store:
        checkpoint = store.latest()
        assert list(checkpoint.state("model")) == ["a", "b"]
        assert (checkpoint.metrics, checkpoint.extra) == ({"acc": 0.5}, None)


@pytest.mark.parametrize("pair", ["model", "=model"])
def test_what_is_no_pair_is_refused(typed, old, tmp_path, pair):
    done = typed("import", tmp_path / "s", old, "--run", "d", "--key", pair)
    assert done.exit_code == 2
    assert "--key takes A=B" in done.stderr


def test_what_needs_trust_is_refused_in_words_to_type(typed, tmp_path):
    torch.save(Net(), tmp_path / "whole.pt")
    done = typed("import", tmp_path / "s", tmp_path / "whole.pt", "--run", "d")
    assert done.exit_code == 1
    assert "tests.importing.files.Net" in done.stderr
    assert "pass --trust-pickle, which reads it" in done.stderr
    trusted = typed("import", tmp_path / "s", tmp_path / "whole.pt", "--run", "d", "--trust-pickle")
    assert trusted.exit_code == 0
