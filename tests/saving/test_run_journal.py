"""A run's journal as one process writes to it."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import InvalidNameError
from ckptstore.format.layout import journal_key
from ckptstore.saving import moment
from ckptstore.saving.bases import LOOK_S
from ckptstore.saving.journaling import noting


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", run="digits") as opened:
        opened.save({"w": torch.ones(2)}, epoch=0)
        yield opened


@pytest.fixture
def later(monkeypatch):
    shift = [0.0]
    real = moment.time.monotonic
    monkeypatch.setattr(moment.time, "monotonic", lambda: real() + shift[0])
    return lambda seconds: shift.__setitem__(0, shift[0] + seconds)


def test_whatever_is_raised_has_the_note():
    with pytest.raises(KeyboardInterrupt) as caught, noting("digits@1 is saved"):
        raise KeyboardInterrupt

    assert caught.value.__notes__ == ["ckptstore: digits@1 is saved"]


def test_a_name_that_is_none_makes_no_entry(store):
    with pytest.raises(InvalidNameError):
        store._writer("digits").tag("7", 1)

    assert not store._storage._path(journal_key("digits", 1)).exists()


def test_that_a_run_keeps_is_looked_up_once_in_a_while(store, later):
    writer = store._writer("digits")
    assert not writer.keeps
    with Store(store.url) as other:
        other.resume(run="digits")
        other.run("digits", keep=Keep(last=1)).save({"w": torch.zeros(2)}, epoch=1)

    assert not writer.keeps
    later(LOOK_S)
    assert writer.keeps


def test_settings_that_are_recorded_already_make_no_entry(store):
    run = store.run("digits", keep=Keep(last=5))
    for epoch in (1, 2):
        run.save({"w": torch.ones(2)}, epoch=epoch)

    assert store._catalog.next_numbers("digits")[1] == 2
