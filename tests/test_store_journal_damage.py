"""A damaged journal: what was recorded later is unknown, and training goes on."""

from __future__ import annotations

import shutil

import pytest
from torch import nn

from ckptstore import Keep, Store
from ckptstore.errors import (
    CollectionRefusedError,
    FallbackWarning,
    JournalDamagedError,
    RunWarning,
    SettingsWarning,
)
from ckptstore.format.layout import journal_key

CONFIG = {"in_features": 2, "out_features": 2}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path):
    path.unlink()


@pytest.fixture(params=[flip, remove], ids=["flipped", "removed"])
def folder(tmp_path, request):
    """A store whose run's second of three journal entries is damaged, and no catalog has it."""
    place = tmp_path / "store"
    with Store(place, run="digits") as store:
        for epoch in range(3):
            store.save(nn.Linear(2, 2), epoch=epoch, val_loss=epoch, model_config=CONFIG)
        for name in ("first", "second", "third"):
            store.tag("digits@1", name)
        store.save(nn.Linear(2, 2), run="other", epoch=7, model_config=CONFIG)
    request.param(place / journal_key("digits", 2))
    (place / "catalog.sqlite3").unlink()
    return place


@pytest.fixture(params=["on disk", "in memory"])
def store(folder, request):
    with Store(
        folder, run="digits", catalog=None if request.param == "on disk" else "sqlite://"
    ) as opened:
        yield opened


def test_a_training_resumes_and_saves(store):
    model = nn.Linear(2, 2)
    with pytest.warns(FallbackWarning, match=r"retired or found damaged .* unknown"):
        resumed = store.resume(model)
    with pytest.warns(RunWarning, match="nothing more can be recorded"):
        saved = store.save(model, epoch=3, model_config=CONFIG)

    assert (resumed.checkpoint.version, saved.version) == (3, 4)


def test_a_version_is_loaded_by_its_number(store):
    with pytest.warns(FallbackWarning, match="00000002"):
        assert store.get("digits@2").epoch == 1


@pytest.mark.parametrize("ref", ["digits@best", "digits@latest", "digits@third", "@first"])
def test_what_later_facts_decide_is_not_guessed(store, ref):
    with pytest.raises(JournalDamagedError, match="verify"):
        store.get(ref if ref != "@first" else "digits@first")


def test_another_run_is_not_held_up(store):
    assert store.runs() == ["digits", "other"]
    assert store.latest(run="other").epoch == 7
    assert store.latest(run="o*").epoch == 7


def test_what_has_to_be_recorded_says_so_after_the_save(store):
    run = store.run("digits", keep=Keep(last=1))

    with (
        pytest.warns(RunWarning),
        pytest.warns(SettingsWarning, match="next save tries again"),
    ):
        saved = run.save(nn.Linear(2, 2), epoch=3, model_config=CONFIG)

    assert saved.version == 4


def test_nothing_is_collected(store):
    with pytest.raises(CollectionRefusedError, match="00000002"):
        store.collect()


def test_a_catalog_that_still_has_the_entry_brings_it_back(tmp_path):
    place = tmp_path / "store"
    with Store(place, run="digits") as store:
        store.save(nn.Linear(2, 2), epoch=0, model_config=CONFIG)
        for name in ("first", "second", "third"):
            store.tag("digits@1", name)
        (place / journal_key("digits", 2)).unlink()

        store.verify(repair=True)

    shutil.copytree(place, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sqlite3*"))
    with Store(tmp_path / "copy") as copy:
        assert copy.get("digits@second").version == 1


@pytest.mark.parametrize("chosen", [{}, {"run": "digits"}, {"ref": ["digits@1", "digits@3"]}])
def test_what_is_there_can_be_copied_to_go_on_with(store, tmp_path, chosen):
    with pytest.warns(FallbackWarning, match="without what was recorded later in run 'digits'"):
        store.copy_to(tmp_path / "copy", **chosen)

    with Store(tmp_path / "copy") as copy:
        assert [entry.epoch for entry in copy.history("digits")] in ([0, 1, 2], [0, 2])
        assert copy.get("digits@first").epoch == 0
