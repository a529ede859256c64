"""What its owner vouches for is read elsewhere, and brings nothing along but values."""

from __future__ import annotations

import ast
import io
import json
import os
import time
import warnings
from datetime import timedelta
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


def test_one_that_takes_for_ever_is_stopped(tmp_path):
    torch.save(Runs(time.sleep, 4), tmp_path / "x")
    with pytest.raises(ImportRefusedError, match=r"within 0:00:00\.500000, and was stopped"):
        read_trusted(tmp_path / "x", "x", timeout=timedelta(seconds=0.5))


def leaving(path, code):
    """A file that runs *code* when it is read."""
    run = Runs(exec, f"exec({code!r}, {{}})")
    torch.save({"run": run, "w": torch.ones(2)}, path)
    return path


def leaving_at_last(path, code):
    """A file that runs *code* when its reader has done all it does."""
    inner = "\n".join(f"    {line}" for line in code.split("\n"))
    return leaving(path, f"import atexit, os\ndef f():\n{inner}\natexit.register(f)\n")


def test_a_process_that_ends_well_and_left_nothing_is_refused(tmp_path):
    with pytest.raises(ImportRefusedError, match=r"x could not be read: .*left no whole store"):
        read_trusted(leaving(tmp_path / "x", "import os; os._exit(0)"), "x")


def test_a_pipe_in_the_place_of_what_it_says_keeps_nobody_waiting(tmp_path):
    code = "os.unlink('../outcome.json'); os.mkfifo('../outcome.json'); os._exit(5)"
    with pytest.raises(ImportRefusedError, match="ended with 5: it said nothing"):
        read_trusted(leaving_at_last(tmp_path / "x", code), "x")


def test_nor_does_one_in_the_store(tmp_path):
    code = (
        "for a, _, fs in os.walk('../store'):\n"
        "    for f in fs:\n"
        "        os.unlink(a + '/' + f); os.mkfifo(a + '/' + f)"
    )
    with pytest.raises(ImportRefusedError, match="neither a folder nor a plain file"):
        read_trusted(leaving_at_last(tmp_path / "x", code), "x")


def test_links_are_no_plain_files(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    with pytest.raises(ImportRefusedError, match="'link' in it is neither"):
        separate._check_files(tmp_path / "link")
    (tmp_path / "store" / "link").symlink_to("gone")
    with pytest.raises(ImportRefusedError, match="'link' in it is neither"):
        separate._check_files(tmp_path / "store")


@pytest.mark.parametrize(
    ("outcome", "said", "why"),
    [
        (b'{"error": "it is so"}', b"", "it is so"),
        (b'{"error": "' + b"x" * 10**6, b"", "the process that read it ended with 5: it said"),
        (b"[" * 10**5, b"end", "the process that read it ended with 5: end"),
        (b"", b"\0" * 10**6 + b"\nend", "end"),
    ],
    ids=["said", "long", "deep", "much"],
)
def test_no_more_of_what_it_said_is_read_than_is_shown(outcome, said, why):
    found = separate._why(io.BytesIO(said), io.BytesIO(outcome), 5)
    assert why in found
    assert len(found) < 2 * separate.MAX_SAID


@pytest.mark.parametrize(
    "about",
    [
        "{}", "[1]", "{'notes': [1], 'held': {}}", "{'notes': [], 'held': {'a': {'kind': 'x'}}}",
        "{'notes': [], 'held': {'a': {'kind': 'tree', 'class': 'x', 'model_config': None}}}",
        "{'notes': [], 'held': {'a': {'kind': 'object', 'class': 'x', 'model_config': [1]}}}",
        "{'notes': [], 'held': {'a': {'kind': [], 'class': 'x', 'model_config': None}}}",
    ],
)  # fmt: skip
def test_what_it_says_of_objects_has_the_form_it_has(about):
    with pytest.raises(ImportRefusedError, match="has another form"):
        separate._facts(ast.literal_eval(about))


def test_the_process_may_write_no_endless_file(tmp_path):
    code = "f = open('big', 'wb'); f.truncate(2**40)"
    with pytest.raises(ImportRefusedError, match="File too large"):
        read_trusted(leaving(tmp_path / "x", code), "x")


def test_nor_many_files_that_are_too_much_together(tmp_path, monkeypatch):
    monkeypatch.setattr(separate, "SMALL_BYTES", 2**20)
    monkeypatch.setattr(separate, "LOOK_S", 0.05)
    code = "import time\nfor n in range(8): open(str(n), 'wb').write(bytes(2**19))\ntime.sleep(60)"
    with pytest.raises(ImportRefusedError, match="reading it wrote"):
        read_trusted(leaving(tmp_path / "x", code), "x")
