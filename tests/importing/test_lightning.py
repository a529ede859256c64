"""With files that Lightning's own Trainer wrote."""

from __future__ import annotations

import pytest
import torch

from ckptstore.importing.file_names import Named, read_name
from ckptstore.importing.lightning import is_lightnings, recognise_lightning
from ckptstore.importing.plain import to_plain
from ckptstore.importing.unpickling import load_restricted
from tests.importing.lit import fitted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("lit"))


def read(path):
    value = to_plain(load_restricted(path, "it"), "it").value
    assert is_lightnings(value)
    return recognise_lightning(value, read_name(path.name)), value


def test_everything_in_it_has_its_place(folder):
    path = next(folder.glob("epoch=1-*.ckpt"))
    found, value = read(path)
    assert {name: part.kind for name, part in found.parts.items()} == {
        "model": "state_dict",
        "optimizer": "optimizer",
        "scheduler": "object",
    }
    assert (found.epoch, found.step) == (1, 8)
    assert found.config == found.model_config == {"width": 5, "lr": 0.1}
    assert list(found.parts["model"].state) == list(value["state_dict"])
    assert set(found.extra) == {"callbacks", "loops", "pytorch-lightning_version"}
    placed = {"state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step",
              "hyper_parameters", "hparams_name", *found.extra}  # fmt: skip
    assert placed == set(value)


def test_the_metric_is_the_exact_one_and_not_the_names(folder):
    for path in folder.glob("epoch=*.ckpt"):
        found, _ = read(path)
        (exact,) = found.metrics.values()
        rounded = read_name(path.name).metrics["val_loss"]
        assert round(exact, 2) == rounded
        assert exact != rounded


def test_a_score_of_another_validation_is_not_this_checkpoints():
    state = {"monitor": "val_loss", "current_score": torch.tensor(0.9)}
    value = {"state_dict": {}, "pytorch-lightning_version": "2", "callbacks": {"c": state}}
    named = Named(metrics={"val_loss": 0.12}, digits={"val_loss": 2})
    assert recognise_lightning(value, named).metrics == {}
    assert recognise_lightning(value, Named()).metrics == {"val_loss": pytest.approx(0.9)}


def test_hyperparameters_that_are_one_argument_are_that_argument():
    value = {"state_dict": {}, "hyper_parameters": {"a": 1}, "hparams_name": "hparams"}
    assert recognise_lightning(value, Named()).model_config == {"hparams": {"a": 1}}


def test_other_dicts_are_not_lightnings():
    assert not is_lightnings({"state_dict": {}})
    assert not is_lightnings([])
