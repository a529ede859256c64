"""What a version was made with, without secrets and without ever failing a save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import torch

from ckptstore import Store
from ckptstore.state import environment
from ckptstore.state.environment import (
    COMPARED,
    describe,
    device_types,
    differences,
    rank,
    without_secrets,
    world_size,
)


def test_it_is_plain_json():
    found = describe()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads()
    assert found["world_size"] == 1
    assert set(COMPARED) <= found.keys()
    assert rank() == 0
    assert world_size() == 1


def test_what_differs_is_told_then_and_now():
    found = describe()
    assert differences(found, {}) == {}
    assert differences(found | {"torch": "1.0", "host": "other", "argv": []}, {}) == {
        "torch": ("1.0", found["torch"])
    }
    assert differences({}, {}) == {}


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["train.py", "--lr", "0.1"], ["train.py", "--lr", "0.1"]),
        (["--api-key", "s3cr3t", "x"], ["--api-key", "***", "x"]),
        (["--api_key=s3cr3t"], ["--api_key=***"]),
        (["--wandb-token", "s3cr3t"], ["--wandb-token", "***"]),
        (["--password", "--next"], ["--password", "--next"]),
        (["AWS_SECRET_ACCESS_KEY=s3cr3t"], ["AWS_SECRET_ACCESS_KEY=***"]),
        (["db.password=a\nb"], ["db.password=***"]),
        (["postgresql://me:s3cr3t@host/db"], ["postgresql://***@host/db"]),
        (["--url=https://s3cr3t@host/x"], ["--url=https://***@host/x"]),
        (["\udcff"], ["?"]),
        ([Path("data"), "--token", PurePosixPath("s3cr3t"), 7], ["data", "--token", "***", "7"]),
    ],
)
def test_a_command_line_is_recorded_without_its_secrets(argv, shown):
    assert without_secrets(argv) == shown


def test_no_secret_is_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", "s3cr3t", "s3://u:s3cr3t@bucket"])
    Store(tmp_path).save({"a": 1})
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"s3cr3t" not in path.read_bytes()


def test_flags_that_have_no_one_value_are_none():
    source = """
        import torch
        from ckptstore.state.environment import describe
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"
        found = describe()
        assert found["cudnn_tf32"] is None, found
    """
    subprocess.run(
        [sys.executable, "-c", "\n".join(line.strip() for line in source.splitlines())], check=True
    )


@pytest.fixture
def fresh_git():
    environment._git.cache_clear()
    yield
    environment._git.cache_clear()


def git(folder, *arguments):
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],  # noqa: S607 - as users have it
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.usefixtures("fresh_git")
def test_the_commit_and_its_dirtiness_are_recorded(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    monkeypatch.chdir(tmp_path)
    clean = describe()["git"]
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "train.py").write_text("2")
    environment._git.cache_clear()
    assert describe()["git"] == clean | {"dirty": True}


@pytest.mark.usefixtures("fresh_git")
def test_outside_a_checkout_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert describe()["git"] is None


@pytest.mark.usefixtures("fresh_git")
def test_without_git_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert describe()["git"] is None


def test_a_working_folder_that_is_gone_fails_no_save(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    store = Store(tmp_path / "store")
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert store.save({"a": 1}).environment["git"] is None


def elsewhere(source):
    """Run a few lines in a process of their own, with the functions under test in reach."""
    lines = [
        "import torch",
        "from ckptstore.state.environment import describe, differences",
        *(line.strip() for line in source.splitlines()),
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_every_setting_that_changes_bits_is_compared():
    elsewhere("""
        import os
        before = describe()
        torch.set_num_threads(before["threads"] + 1)
        torch.set_num_interop_threads(before["interop_threads"] + 1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = not before["cudnn_tf32"]
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        found = differences(before, {})
        for name in (
        "threads", "interop_threads", "deterministic", "deterministic_warn_only",
        "cudnn_deterministic", "cudnn_benchmark", "cudnn_tf32", "matmul_precision",
        "default_dtype", "cublas_workspace_config",
        ): assert name in found, (name, found)
        assert found["threads"] == (before["threads"], before["threads"] + 1), found
        assert found["cublas_workspace_config"] == (None, ":4096:8"), found
    """)


def test_switches_of_kernels_and_of_rounding_are_compared():
    elsewhere("""
        import os
        before = describe()
        cuda = torch.backends.cuda
        cuda.matmul.allow_bf16_reduced_precision_reduction = False
        cuda.matmul.allow_fp16_reduced_precision_reduction = False
        cuda.matmul.allow_fp16_accumulation = True
        cuda.enable_flash_sdp(False)
        torch.backends.mkldnn.enabled = False
        torch.backends.mkldnn.deterministic = True
        torch.utils.deterministic.fill_uninitialized_memory = False
        os.environ["PYTHONHASHSEED"] = "4"
        flushed = torch.set_flush_denormal(True)
        found = differences(before, {})
        expected = {
        "bf16_reduced_precision", "fp16_reduced_precision", "fp16_accumulation", "sdpa", "mkldnn",
        "mkldnn_deterministic", "fill_uninitialized_memory", "pythonhashseed",
        }
        if flushed: expected.add("flush_denormal")
        assert set(found) == expected, set(found) ^ expected
        assert found["sdpa"][1] == before["sdpa"] | {"flash": False}, found
    """)


def test_another_version_of_a_library_is_told_where_both_use_it():
    elsewhere("""
        before = describe()
        assert before["torchmetrics"] is None, before
        assert differences(before | {"torchmetrics": "0.1"}, {}) == {}
        import torchmetrics
        assert differences(before, {}) == {}
        found = differences(before | {"torchmetrics": "0.1"}, {})
        assert found == {"torchmetrics": ("0.1", torchmetrics.__version__)}, found
    """)


def test_settings_of_the_newer_kind_are_compared():
    elsewhere("""
        before = describe()
        torch.backends.cudnn.rnn.fp32_precision = "ieee"
        found = differences(before, {})["fp32_precision"]
        assert found[1]["cudnn_rnn"] == "ieee" != found[0]["cudnn_rnn"], found
    """)


def test_where_modules_were_and_are_is_compared_part_by_part():
    recorded = {"devices": {"model": ["cuda"], "ema": ["cpu"], "other": ["cuda"]}}

    assert differences(recorded, {"model": ["cpu"], "ema": ["cpu"], "new": ["cpu"]}) == {
        "devices": ({"model": ["cuda"]}, {"model": ["cpu"]})
    }
    assert differences(recorded, {}) == {}


@pytest.mark.parametrize("devices", [None, "cuda", ["model"], {"model": 3}, {"model": None}])
def test_whatever_another_program_recorded_is_compared(devices):
    found = differences({"devices": devices, "gpus": {}, "threads": "x"}, {"model": ["cpu"]})

    assert found["threads"] == ("x", torch.get_num_threads())


def test_the_kinds_of_device_that_tensors_are_on_are_listed_once():
    tensors = [torch.ones(1), torch.ones(1, device="meta"), torch.ones(2)]

    assert device_types(tensors) == ["cpu", "meta"]
