"""Who is told that a save goes into a run somebody else began."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import RunWarning


def begun(url):
    Store(url).save(nn.Linear(2, 2), epoch=0, val_loss=1.0, model_config={})
    return Store(url)  # as another process would open it


def test_a_training_that_goes_on_without_resume_is_warned_once(tmp_path):
    store = begun(tmp_path)

    with pytest.warns(RunWarning, match=r"1 version\(s\).*as version 2; call resume\(\)"):
        store.save(nn.Linear(2, 2), epoch=1, model_config={})
    store.save(nn.Linear(2, 2), epoch=2, model_config={})


def test_a_package_goes_on_with_no_training_so_nobody_is_warned(tmp_path):
    store = begun(tmp_path)

    package = store.save_package(store.best(), class_names=["a", "b"])

    assert package.parent == "default@1"


def test_a_package_does_not_silence_the_warning_of_a_later_checkpoint(tmp_path):
    store = begun(tmp_path)
    store.save_package(store.best())

    with pytest.warns(RunWarning, match="as version 3"):
        store.save(nn.Linear(2, 2), epoch=1, model_config={})


def test_a_training_that_resumed_is_not_warned(tmp_path):
    store = begun(tmp_path)
    model = nn.Linear(2, 2)

    assert store.resume(model).next_epoch == 1
    assert torch.equal(model.weight, store.latest().state("model")["weight"])
    store.save(model, epoch=1, model_config={})
