"""What ``keys=`` may call the keys of a foreign checkpoint."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import ArgumentError
from ckptstore.importing.key_names import check_key_names


@pytest.mark.parametrize("name", ["model", "epoch", "val_acc", "optimizer"])
def test_two_keys_have_no_name_in_common(name):
    with pytest.raises(ArgumentError, match=f"calls both 'student' and 'a/teacher' '{name}'"):
        check_key_names({"student": name, "n": "step", "a/teacher": name})


@pytest.mark.parametrize("name", ["extra", "metrics", None])
def test_what_takes_any_number_may_be_said_of_several(name):
    check_key_names({"a": name, "b": name})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("modle", "model"), ("models", "model"), ("optimiser", "optimizer"), ("epochs", "epoch"),
        ("setp", "step"), ("confg", "config"), ("model_confg", "model_config"),
        ("schedular", "scheduler"), ("extras", "extra"),
    ],
)  # fmt: skip
def test_a_slip_is_no_name(name, meant):
    with pytest.raises(ArgumentError, match=f"did you mean '{meant}'"):
        check_key_names({"student": name})


@pytest.mark.parametrize("name", ["teacher", "model_ema", "optimizer2", "g_optimizer", "val_loss"])
def test_a_name_that_is_ones_own_is_one(name):
    check_key_names({"student": name})


def test_what_the_file_itself_calls_it_is_no_slip():
    check_key_names({"modelA": "modelA", "nets/modelB": "modelB"})


def test_they_are_refused_before_the_file_is_read(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"student": {"w": torch.ones(1)}, "teacher": {"w": torch.zeros(1)}}, path)
    store = Store(tmp_path / "store", catalog="sqlite://")

    for read in (store.import_file, store.import_folder):
        with pytest.raises(ArgumentError, match="calls both 'student' and 'teacher'"):
            read(path, keys={"student": "model", "teacher": "model"})

    assert not (tmp_path / "store").exists()
