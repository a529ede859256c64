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
    VersionNotFoundError,
)
from ckptstore.format.layout import journal_key
from tests.faults import Failing, store_on

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


def end_of_the_journal_gone(place, *, names):
    with Store(place, run="digits") as store:
        store.save(nn.Linear(2, 2), epoch=0, model_config=CONFIG)
        for name in names:
            store.tag("digits@1", name)
    (place / journal_key("digits", len(names))).unlink()


@pytest.mark.parametrize("choice", ["repair", "reindex"])
def test_which_end_of_a_journal_is_right_is_the_users_to_say(tmp_path, choice):
    end_of_the_journal_gone(tmp_path / "store", names=["first", "second"])

    with Store(tmp_path / "store", run="digits") as store:
        for _ in range(2):
            with pytest.raises(JournalDamagedError, match=r"verify\(repair=True\).* reindex\(\)"):
                store.best(run="digits")
        if choice == "repair":
            store.verify(repair=True)
            assert store.get("digits@second").version == 1
        else:
            store.reindex()
            with pytest.raises(VersionNotFoundError):
                store.get("digits@second")
        store.tag("digits@1", "third")
        assert store.verify().ok


def test_every_process_notices_a_hole_not_only_the_first(folder):
    for _ in range(3):
        with Store(folder, run="digits") as store, pytest.raises(JournalDamagedError):
            store.best(run="digits")
        with Store(folder) as store, pytest.raises(JournalDamagedError):
            store.best(run="dig*")


def test_nothing_is_shared_with_versions_whose_retirement_is_unknown(folder):
    with Store(folder, run="digits") as store:
        model = nn.Linear(2, 2)
        with pytest.warns(FallbackWarning):
            store.resume(model)
        with pytest.warns(RunWarning):
            assert store.save(model, epoch=3, model_config=CONFIG).new_bytes > 0


def test_an_entry_that_is_there_is_recorded_whatever_the_next_look_says(tmp_path):
    inner = Store(tmp_path / "store", catalog="sqlite://")._storage
    failing = Failing(inner)
    store = store_on(failing, run="digits")
    store.save(nn.Linear(2, 2), epoch=0, model_config=CONFIG)
    store.tag("digits@1", "first")
    failing.only, failing.count, failing.at, failing.always = {"read_many"}, 0, 3, True

    store._writer("digits").tag("second", 1)

    failing.rest()
    assert store.get("digits@second").version == 1


def test_an_entry_put_in_anothers_place_is_damage(tmp_path):
    place = tmp_path / "store"
    with Store(place, run="digits") as store:
        store.save(nn.Linear(2, 2), epoch=0, model_config=CONFIG)
        store.save(nn.Linear(2, 2), run="other", epoch=0, model_config=CONFIG)
        for name in ("first", "second"):
            store.tag("digits@1", name)
        store.tag("other@1", "theirs")
    one, two, theirs = (
        place / journal_key(*where) for where in (("digits", 1), ("digits", 2), ("other", 1))
    )
    first, second = one.read_bytes(), two.read_bytes()
    for data in (second, theirs.read_bytes()):
        one.write_bytes(data)
        with (
            Store(place, catalog="sqlite://") as other,
            pytest.raises(JournalDamagedError, match="put in another's place"),
        ):
            other.get("digits@first")
        one.write_bytes(first)


def test_indexing_anew_keeps_what_may_be_the_only_copy_of_a_journal(tmp_path):
    place = tmp_path / "store"
    with Store(place, run="digits") as store:
        for run in ("digits", "other"):
            store.save(nn.Linear(2, 2), run=run, epoch=0, model_config=CONFIG)
        for name in ("first", "second", "third"):
            store.tag("digits@1", name)
        path = place / journal_key("digits", 2)
        data = path.read_bytes()
        flip(path)

        with pytest.raises(JournalDamagedError):
            store.reindex()
        path.unlink()
        store.verify(repair=True)

        assert path.read_bytes() == data
        assert store.latest(run="other").epoch == 0
        assert store.reindex() == ["digits", "other"]


def test_indexing_anew_forgets_a_run_that_is_gone(tmp_path):
    place = tmp_path / "store"
    with Store(place, run="digits") as store:
        for run in ("digits", "other"):
            store.save(nn.Linear(2, 2), run=run, epoch=0, model_config=CONFIG)
        shutil.rmtree(place / "runs" / "other")

        assert store.reindex() == ["digits"]
        assert list(store._catalog.indexed_counts()) == ["digits"]
