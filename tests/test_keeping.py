"""The store's verbs that keep it in order, from the outside."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import (
    ArgumentError,
    CatalogWarning,
    FallbackWarning,
    IntegrityError,
    RetentionWarning,
    RetiredError,
    RunNotFoundError,
    SettingsWarning,
    VersionNotFoundError,
)
from ckptstore.format.layout import journal_key, pack_key, version_key
from tests.faults import Failing, store_on


@pytest.fixture
def store(store_url):
    with Store(store_url, run="digits") as opened:
        yield opened


def save(to, epoch, val_loss=1.0, **options):
    state = {"w": torch.full((500,), float(epoch))}
    return to.save(state, epoch=epoch, val_loss=val_loss, **options)


def live(store, run="digits"):
    return [entry.version for entry in store.history(run) if entry.retired is None]


# ------------------------------------------------------------------------------ retention


def test_what_a_run_keeps_is_applied_after_each_save(store):
    run = store.run("digits", keep=Keep(last=2))
    for epoch in range(6):
        save(run, epoch, val_loss=abs(epoch - 1))

    assert live(store) == [2, 5, 6]  # the best by the monitor, and the last two
    assert len(store.history("digits")) == 6


def test_another_process_keeps_what_was_recorded(store, store_url):
    save(store.run("digits", keep=Keep(last=1)), 0, val_loss=0.1)

    with Store(store_url, run="digits") as other:
        run = other.run("digits")
        with pytest.warns(UserWarning, match="neither resumed nor created"):
            save(run, 1)
        save(run, 2)

        assert live(other) == [1, 3]


def test_a_run_without_keep_keeps_everything(store):
    for epoch in range(4):
        save(store, epoch)

    assert live(store) == [1, 2, 3, 4]


def test_a_package_counts_as_a_save(store):
    run = store.run("digits", keep=Keep(last=1))
    save(run, 0)
    save(run, 1)
    run.save_package("@2")

    assert live(store) == [1, 2, 3]  # val_loss ties: the first is the best


def test_other_words_for_keep_are_recorded_with_a_warning(store):
    save(store.run("digits", keep=Keep(last=5)), 0)

    with pytest.warns(SettingsWarning, match=r"keep=\{'last': 1\}"):
        save(store.run("digits", keep=Keep(last=1)), 1)


def test_keep_is_a_keep_and_nothing_else(store):
    with pytest.raises(ArgumentError, match="keep= takes a Keep"):
        store.run("digits", keep=3)


def test_pruning_by_hand_says_what_it_did(store):
    for epoch in range(5):
        save(store, epoch, val_loss=epoch)

    (done,) = store.prune(Keep(last=2), run="digits")

    assert (done.kept, done.retired) == ([5, 4, 1], [3, 2])
    assert live(store) == [1, 4, 5]


def test_a_dry_run_prints_the_decisions_and_retires_nothing(store, capsys):
    for epoch in range(3):
        save(store, epoch, val_loss=epoch)

    store.prune(Keep(last=1), run="digits", dry_run=True)

    said = capsys.readouterr().out
    assert "digits@2" in said
    assert "best by val_loss" in said
    assert live(store) == [1, 2, 3]


def test_the_store_prunes_runs_that_are_named(store):
    for run in ("sweep/a", "sweep/b", "other"):
        for epoch in range(3):
            save(store, epoch, val_loss=-epoch, run=run)

    with pytest.raises(ArgumentError, match="needs run="):
        store.prune(Keep(last=1))
    with pytest.raises(RunNotFoundError):
        store.prune(Keep(last=1), run="nothing/*")
    done = store.prune(Keep(last=1), run="sweep/*")

    assert [each.run for each in done] == ["sweep/a", "sweep/b"]
    assert (live(store, "sweep/a"), live(store, "other")) == ([3], [1, 2, 3])


def test_without_a_recorded_keep_pruning_needs_one(store):
    save(store, 0)

    with pytest.raises(ArgumentError, match="keep"):
        store.run("digits").prune()


def test_the_version_this_process_resumed_from_is_never_retired(store, store_url):
    weights, how = torch.nn.Linear(2, 2), {"model_config": {"in_features": 2, "out_features": 2}}
    for epoch in range(3):
        store.save(weights, epoch=epoch, val_loss=epoch, **how)
    with Store(store_url, run="digits") as other:
        other.get("digits@2").restore(weights)
        run = other.run("digits", keep=Keep(last=1))
        for epoch in range(3, 6):
            run.save(weights, epoch=epoch, val_loss=epoch, **how)

        assert live(other) == [1, 2, 6]


def test_a_second_store_of_the_process_knows_what_it_resumed_from(store, store_url):
    weights, how = torch.nn.Linear(2, 2), {"model_config": {"in_features": 2, "out_features": 2}}
    for epoch in range(4):
        store.save(weights, epoch=epoch, val_loss=epoch, **how)
    store.get("digits@2").restore(weights)
    with Store(store_url, run="digits") as other:
        other.prune(Keep(last=1), run="digits")
        assert live(other) == [1, 2, 4]


def test_a_run_prunes_by_what_it_was_opened_with(store):
    """Nothing recorded it, as nothing was saved since."""
    for epoch in range(4):
        save(store, epoch, val_loss=4 - epoch)
    assert store.run("digits", keep=Keep(last=2)).prune().kept == [4, 3]


@pytest.mark.parametrize("keep", [{"last": 3}, "x", 3])
def test_what_is_no_keep_is_refused_by_its_keyword(store, keep):
    save(store, 0)
    with pytest.raises(ArgumentError, match=r"keep= takes a Keep, e\.g\. Keep\(last=3, best=2\)"):
        store.prune(keep, run="digits")
    with pytest.raises(ArgumentError, match="keep= takes a Keep"):
        store.run("digits").prune(keep)


def test_a_version_with_a_child_in_another_run_is_never_retired(store):
    for epoch in range(3):
        save(store, epoch, val_loss=epoch)
    save(store, 0, run="fork", parent="digits@2")

    store.prune(Keep(last=1), run="digits")

    assert live(store) == [1, 2, 3]


def test_a_pruning_that_fails_leaves_the_save_a_save(tmp_path):
    inner = Store(tmp_path / "store", catalog="sqlite://")._storage
    failing = Failing(inner)
    store = store_on(failing, run="digits")
    run = store.run("digits", keep=Keep(last=1))
    save(run, 0)
    save(run, 1)
    save(run, 2)
    failing.at, failing.count, failing.always = 2, 0, True
    failing.only = {"create"}  # the manifest's creation works, the journal's does not

    with pytest.warns(RetentionWarning, match="the version is saved"):
        saved = save(run, 3)

    assert saved.version == 4


# ------------------------------------------------------------------------------ undelete


def test_a_retired_version_is_not_loaded_and_can_be_undeleted(store):
    for epoch in range(3):
        save(store, epoch, val_loss=epoch)
    store.prune(Keep(last=1), run="digits")

    with pytest.raises(RetiredError, match=r"digits@2 was retired on .*undelete"):
        store.get("digits@2").state("model")
    entry = store.undelete("digits@2")

    assert entry.retired is None
    assert torch.equal(entry.state("model")["w"], torch.ones(500))
    assert live(store) == [1, 2, 3]


def test_a_manifest_that_is_brought_back_is_a_version_that_can_be_undeleted(tmp_path):
    store = Store(tmp_path, run="digits")
    for epoch in range(3):
        save(store, epoch, val_loss=-epoch)
    manifest = tmp_path / version_key("digits", 3)
    whole = manifest.read_bytes()
    manifest.chmod(0o644)
    manifest.write_bytes(b"no manifest")
    with pytest.warns(CatalogWarning, match="damaged or replaced"):
        store.verify(repair=True)
    with pytest.raises(IntegrityError, match="digits@3 is damaged"):
        store.get("digits@3")
    manifest.write_bytes(whole)

    assert store.get("digits@3").retired.reason.startswith("damaged: ")
    store.undelete("digits@3")

    assert store.get("digits@latest").version == store.get("digits@best").version == 3
    assert live(store) == [1, 2, 3]
    store.close()


def test_undeleting_what_is_live_changes_nothing(store):
    save(store, 0)

    assert store.run("digits").undelete(1).ref == "digits@1"
    assert store._catalog.next_numbers("digits")[1] == 1


def test_undeleting_what_was_never_there_says_so(store):
    save(store, 0)

    with pytest.raises(VersionNotFoundError):
        store.undelete("digits@7")


# ------------------------------------------------------------------------------ collect, verify


def test_a_fresh_store_has_nothing_to_collect(store):
    for epoch in range(3):
        save(store, epoch, val_loss=epoch)
    store.prune(Keep(last=1), run="digits")

    done = store.collect()

    assert (done.deleted, done.leftovers, done.failed) == ((), (), {})
    assert len(store.history("digits")) == 3


def test_progress_of_a_collection_is_told(store):
    save(store, 0)
    told = []

    store.collect(dry_run=True, progress=lambda *facts: told.append(facts))

    assert told


def damage(store, entry):
    (pack, *_) = entry.head.packs
    path = store._storage._path(pack_key(pack.save_id, pack.number))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    with Store(tmp_path / "store", run="digits") as opened:
        yield opened


def test_what_a_check_found_damaged_is_picked_by_nobody_here(folder):
    save(folder, 0, val_loss=0.5)
    damage(folder, save(folder, 1, val_loss=0.1))

    report = folder.verify()

    assert (report.ok, report.damaged) == (False, ("digits@2",))
    with pytest.warns(FallbackWarning, match="digits@2"):
        assert folder.best().version == 1
    with pytest.warns(FallbackWarning, match="digits@2"):
        assert folder.latest().version == 1


def test_what_was_repaired_is_picked_by_nobody_anywhere(folder):
    save(folder, 0, val_loss=0.5)
    damage(folder, save(folder, 1, val_loss=0.1))

    folder.verify(repair=True)

    with Store(folder.url, catalog="sqlite://") as other:
        with pytest.warns(FallbackWarning, match="digits@2"):
            assert other.latest().version == 1
        assert other.get("digits@2").damage


def test_a_check_without_repair_writes_nothing(folder):
    damage(folder, save(folder, 0))

    folder.verify()

    assert not folder._storage._path(journal_key("digits", 1)).exists()


def test_reindex_names_the_runs(store):
    save(store, 0)
    save(store, 0, run="other")

    assert store.reindex() == ["digits", "other"]
    assert store.latest(run="other").epoch == 0
