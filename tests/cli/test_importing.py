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
    assert "2 imported, 0 there already, 54 tensors, digests equal, 1 no checkpoint" in summary
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


def test_facts_of_one_file_are_typed(typed, tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "x")
    facts = ["--epoch", "3", "--step", "70", "--metric", "acc=0.5", "--tag", "old", "--tag", "b"]
    configs = ["--config", '{"lr": 0.1}', "--model-config", '{"width": 4}']
    done = typed("import", tmp_path / "s", tmp_path / "x", "--run", "d", *facts, *configs)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "The digests of all its tensors are those of the file's" in done.stdout
    with Store(tmp_path / "s") as store:
        found = store.get("d@old")
        assert (found.epoch, found.step, found.metrics) == (3, 70, {"acc": 0.5})
        assert (found.config, found.model_config, found.tags) == (
            {"lr": 0.1}, {"width": 4}, ("b", "old"),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--epoch", "1"], "--epoch is for one file"),
        (["--metric", "acc=1"], "--metric is for one file"),
        (["--tag", "x"], "--tag is for one file"),
        (["--config", "{lr"], "--config takes a JSON object"),
        (["--model-config", "[1]"], "--model-config takes a JSON object"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_options_that_do_not_fit_are_refused(typed, old, tmp_path, options, why):
    done = typed("import", tmp_path / "s", old, "--run", "d", *options)
    assert done.exit_code != 0
    assert why in done.stderr


def test_a_metric_is_a_number(typed, old, tmp_path):
    done = typed("import", tmp_path / "s", old / "model_1.pth", "--run", "d", "--metric", "acc=x")
    assert "--metric takes NAME=NUMBER, not 'acc=x'" in done.stderr


def test_each_file_that_could_not_come_stands_beside_those_that_did(typed, old, tmp_path):
    (old / "bad.pt").write_bytes(b"PK\x03\x04 and no more")
    done = typed("import", tmp_path / "s", old, "--run", "d")
    assert done.exit_code == 1
    assert "1 of 3 could not be imported" in done.stderr
    for line in ("model_1.pth: d@1", "model_2.pth: d@2", "bad.pt: "):
        assert done.stderr.count(f"  {line}") == 1


def test_help_lists_what_can_be_imported(typed):
    said = typed("import", "--help").stdout
    for kind in ("torch.save", "Lightning", "Hugging Face", "safetensors", "distributed"):
        assert kind in said
