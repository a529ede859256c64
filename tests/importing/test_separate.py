"""What its owner vouches for is read elsewhere, and brings nothing along but values."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckptstore.errors import ImportRefusedError
from ckptstore.importing import child, separate
from ckptstore.importing.plain import Held
from ckptstore.importing.separate import environment, read_trusted
from tests.importing.files import Net, Runs, evil, same, trained

SECRET = "AWS_SECRET_ACCESS_KEY"


def test_both_sides_mean_the_same_parts():
    assert (separate.RUN, separate.VALUE, separate.ABOUT) == (child.RUN, child.VALUE, child.ABOUT)


def test_the_environment_has_no_credential(tmp_path, monkeypatch):
    for name in (SECRET, "HF_TOKEN", "PYTHONPATH", "PYTHONSTARTUP", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret-value")
    found = environment(tmp_path)
    assert "secret-value" not in found.values()
    assert found.keys() <= {*separate.KEPT, "HOME", "TMPDIR", "TEMP", "TMP", "CUDA_VISIBLE_DEVICES"}
    assert found["HOME"] == str(tmp_path / "empty")


def test_whole_objects_come_as_their_state(tmp_path):
    model, optimizer, scheduler = trained()
    saved = {"model": model, "optimizer": optimizer, "sched": scheduler, "kind": Net}
    torch.save(saved, tmp_path / "x")
    found = read_trusted(tmp_path / "x", "x")
    assert found.held == {
        "model": Held("module", "tests.importing.files.Net"),
        "optimizer": Held("optimizer", "torch.optim.adam.Adam"),
        "sched": Held("object", "torch.optim.lr_scheduler.StepLR"),
    }
    assert same(dict(found.value["model"]), dict(model.state_dict()))
    assert same(found.value["optimizer"], optimizer.state_dict())
    assert found.value["kind"] == "tests.importing.files.Net"
    assert any(note.startswith("kind") for note in found.notes)


def test_it_runs_elsewhere_in_an_empty_folder_without_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv(SECRET, "secret-value")
    told = tmp_path / "told"
    code = (
        f"(lambda o, j: open({str(told)!r}, 'w').write(j.dumps([o.getpid(), o.getcwd(), "
        "o.listdir(), dict(o.environ)])))(__import__('os'), __import__('json'))"
    )
    torch.save({"w": torch.ones(1), "run": Runs(eval, code)}, tmp_path / "x")
    read_trusted(tmp_path / "x", "x")
    pid, folder, inside, variables = json.loads(told.read_text())
    assert pid != os.getpid()
    assert folder != str(Path.cwd())
    assert inside == []
    assert SECRET not in variables
    assert "secret-value" not in variables.values()


def test_a_folder_of_pieces_too(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about there being no process group
        dcp.save({"w": torch.ones(2), "odd": slice(3)}, checkpoint_id=tmp_path / "x", no_dist=True)
    found = read_trusted(tmp_path / "x", "x", kind="dcp")
    assert found.value["w"].tolist() == [1, 1]
    assert found.value["odd"] == "slice(None, 3, None)"


def test_one_that_fails_says_why(tmp_path):
    torch.save(evil(tmp_path / "canary")["builtins.exec"], tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(data.replace(b"__builtin__\nexec", b"__builtin__\nexit"))
    with pytest.raises(ImportRefusedError, match="x could not be read: the process"):
        read_trusted(tmp_path / "x", "x")


def test_one_that_takes_for_ever_is_stopped(tmp_path, monkeypatch):
    torch.save(Runs(time.sleep, 4), tmp_path / "x")
    monkeypatch.setattr(separate, "TIME_LIMIT_S", 0.5)
    with pytest.raises(ImportRefusedError, match=r"within 0 s, and was stopped"):
        read_trusted(tmp_path / "x", "x")
