"""A run as processes write it: numbers, spellings, parents, settings, tags, threads and forks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import warnings

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import (
    CatalogError,
    CatalogWarning,
    IntegrityError,
    InvalidNameError,
    RunWarning,
    SettingsWarning,
    StorageError,
    VersionNotFoundError,
)
from ckptstore.saving import run_writer
from ckptstore.storage.local import LocalStorage
from tests.faults import Failing, store_on

STATE = {"w": torch.ones(2)}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def opened(root, **options):
    return Store(root, catalog="sqlite://", **options)


def test_versions_are_numbered_without_holes_and_name_their_parents(root):
    store = opened(root)
    saved = [store.save(STATE, epoch=n) for n in range(3)]
    assert [each.version for each in saved] == [1, 2, 3]
    assert [each.parent for each in saved] == [None, "default@1", "default@2"]
    assert len({each.save_id for each in saved}) == 3


def test_the_parent_is_what_was_resumed_or_restored_or_given(root):
    store = opened(root)
    for n in range(3):
        store.save(STATE, epoch=n)
    other = opened(root)
    assert other.resume().checkpoint.version == 3
    assert other.save(STATE).parent == "default@3"
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    store.save(model, run="b")
    store.get("b@1").restore(model)
    assert store.save(model, run="b").parent == "b@1"
    assert store.save(STATE, run="c", parent=store.get("default@2")).parent == "default@2"
    assert store.save(STATE, run="c", parent="b@1").parent == "b@1"
    assert store.save(STATE, run="c").parent == "c@2"
    with pytest.raises(VersionNotFoundError):
        store.save(STATE, run="c", parent="default@99")
    assert store.latest(run="c").version == 3


def test_saving_into_a_run_begun_elsewhere_warns_once(root):
    opened(root).save(STATE)
    other = opened(root)
    with pytest.warns(RunWarning, match=r"already has 1 version.*resume\(\) first") as caught:
        assert other.save(STATE).version == 2
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert other.save(STATE).version == 3


def test_a_run_resumed_or_begun_here_does_not_warn(root):
    store = opened(root)
    store.save(STATE)
    store.save(STATE)
    other = opened(root)
    other.resume()
    other.save(STATE)
    other.save(STATE, run="new")


def test_a_package_goes_on_with_nothing_and_does_not_warn(root):
    opened(root).save(torch.nn.Linear(1, 1), model_config={})
    other = opened(root)
    other.save_package(other.latest())
    with pytest.warns(RunWarning):
        other.save(STATE)


def test_a_warning_taken_for_an_error_saves_nothing(root):
    opened(root).save(STATE)
    other = opened(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RunWarning):
            other.save(STATE)
    assert other.latest().version == 1


def test_a_run_is_spelled_as_its_first_version_is(root):
    store = opened(root)
    store.save(STATE, run="Digits")
    for other in (store, opened(root)):
        with pytest.raises(InvalidNameError, match="'Digits'"):
            other.save(STATE, run="digits")
    assert opened(root).latest(run="DIGITS").run == "Digits"
    assert len(store.history()) == 1


def test_another_spelling_asked_for_first_does_not_stick(root):
    opened(root).save(STATE, run="Digits")
    other = opened(root)
    assert other.resume(run="digits").checkpoint.ref == "Digits@1"
    with pytest.raises(InvalidNameError, match="there already as 'Digits'"):
        other.save(STATE, run="digits")
    assert other.save(STATE, run="Digits").ref == "Digits@2"


def test_names_that_share_a_beginning_are_different_runs(root):
    store = opened(root)
    for run in ("a", "a/b", "a/b/c", "ab", "a.b"):
        store.save(STATE, run=run)
    assert sorted(each.ref for each in store.history("*")) == ["a.b@1", "a@1", "ab@1"]
    assert store.history("a/b")[0].ref == "a/b@1"


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "", "/etc", "a\0", "C:/x", "~", "con", "a::b", "é"]
)
def test_a_name_outside_the_grammar_writes_nothing(tmp_path, name):
    store = opened(tmp_path / "store")
    for call in (
        lambda: store.save(STATE, run=name or "/"),
        lambda: store.run(name),
        lambda: opened(tmp_path / "store", run=name),
        lambda: store.save(STATE, tags=[name]),
    ):
        with pytest.raises(InvalidNameError):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_hole_in_the_numbers_is_damage(root):
    store = opened(root)
    for _ in range(3):
        store.save(STATE)
    (root / "runs/default/_versions/00000002.jsonl").unlink()
    with pytest.raises(IntegrityError, match=r"no manifest of version 2.*00000002\.jsonl"):
        opened(root).save(STATE)
    assert len(list(root.rglob("*.jsonl"))) == 2


def test_stray_files_beside_the_manifests_are_left_alone(root):
    store = opened(root)
    store.save(STATE)
    folder = root / "runs/default/_versions"
    for name in ("00000009.jsonl~", "000000009.jsonl", ".DS_Store", "9.jsonl"):
        (folder / name).write_bytes(b"?")
    other = opened(root)
    other.resume()
    assert other.save(STATE).version == 2


def settings_of(root):
    files = sorted((root / "runs/default/_journal").glob("*"))
    return [
        (entry["monitor"], entry["mode"], entry["config"])
        for entry in (json.loads(file.read_bytes()) for file in files)
        if entry["kind"] == "settings"
    ]


def test_settings_are_recorded_once_and_known_to_every_process(root):
    store = opened(root, monitor="acc", mode="max")
    for acc in (0.1, 0.9, 0.5):
        store.save(STATE, acc=acc)
    assert settings_of(root) == [("acc", "max", None)]
    assert opened(root).best().metrics == {"acc": 0.9}


def test_other_settings_are_recorded_with_a_warning(root):
    opened(root, monitor="acc", mode="max").save(STATE, acc=1)
    other = opened(root, monitor="loss", mode="min")
    other.resume()
    with pytest.warns(SettingsWarning, match=r"monitor='acc'.*are now monitor='loss'") as caught:
        other.save(STATE, loss=1)
    assert caught[0].filename == __file__
    other.save(STATE, loss=2)
    assert [monitor for monitor, _, _ in settings_of(root)] == ["acc", "loss"]


def test_a_run_without_settings_has_no_journal(root):
    opened(root).save(STATE)
    assert not (root / "runs/default/_journal").exists()


def test_a_runs_config_is_in_its_settings_and_in_each_version(root):
    store = opened(root)
    run = store.run("default", config={"lr": 0.1, "betas": (0.9, 0.99)})
    assert run.save(STATE).config == {"lr": 0.1, "betas": (0.9, 0.99)}
    assert run.save(STATE, config={"lr": 0.2}).config == {"lr": 0.2}
    assert settings_of(root) == [("val_loss", "min", {"lr": 0.1, "betas": {"$tuple": [0.9, 0.99]}})]


def test_settings_that_cannot_be_recorded_warn_and_are_tried_again(root):
    storage = Failing(LocalStorage(root), only={"create"})
    store = store_on(storage, monitor="acc", mode="max")
    store.save(STATE, run="warm")
    storage.rest()
    storage.at, storage.always = 3, True  # founding again, the manifest, the journal
    with pytest.warns(SettingsWarning, match="the version is saved"):
        assert store.save(STATE).version == 1
    storage.rest()
    store.save(STATE)
    assert settings_of(root) == [("acc", "max", None)]


def test_tags_move_and_go(root):
    store = opened(root)
    one = store.save(STATE, tags=["prod", "first"])
    two = store.save(STATE, tags=["prod"])
    assert two.tags == ("prod",)
    assert store.get("@prod") == two
    store.tag(one, "prod")
    assert opened(root).get("default@prod") == one
    assert opened(root).get("default@1").tags == ("first", "prod")
    store.untag("prod")
    store.untag("prod")
    with pytest.raises(VersionNotFoundError, match="prod"):
        opened(root).get("@prod")


def test_a_tag_that_cannot_be_set_says_that_the_version_is_saved(root):
    storage = Failing(LocalStorage(root), only={"create"})
    store = store_on(storage)
    store.save(STATE)
    storage.rest()
    storage.at, storage.always = 2, True
    with pytest.raises(StorageError) as raised:
        store.save(STATE, tags=["prod"])
    (note,) = raised.value.__notes__
    assert "default@2 is saved; only its tag 'prod' may not be set" in note
    assert opened(root).latest().version == 2


@pytest.mark.parametrize("fault", ["locked", "gone"])
def test_a_catalog_that_fails_never_fails_a_save(root, tmp_path, fault):
    folder = tmp_path / "index"
    store = Store(root, catalog=f"sqlite:///{folder}/index.db")
    if fault == "locked":
        folder.mkdir()
        (folder / "index.db").write_bytes(b"this is no database" * 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CatalogWarning)
        store.save(STATE)
        store.save(STATE)
    assert opened(root).latest().version == 2


def test_a_catalog_that_fails_once_the_version_is_committed_fails_no_save(root, monkeypatch):
    store = opened(root)

    def fail(*_):
        raise CatalogError("the server went down")

    monkeypatch.setattr(store._catalog, "add", fail)
    with pytest.warns(CatalogWarning, match=r"default@1 is saved; the catalog is behind"):
        saved = store.save(STATE)
    assert saved.version == 1


def test_a_parent_in_another_run_is_told_of_its_child(root):
    store = opened(root)
    for loss in (0.9, 0.1):
        store.save(STATE, run="base", val_loss=loss)
    store.save(STATE, run="fork", parent="base@1")

    (pruned,) = opened(root).prune(Keep(last=1), run="base")

    assert pruned.kept == [2, 1]


def test_threads_share_a_store(root):
    store = opened(root)
    start = threading.Barrier(6)
    saved = []

    def work(thread):
        start.wait()
        for n in range(3):
            state = {"w": torch.full((3,), float(10 * thread + n))}
            saved.append((store.save(state, rng=False, step=thread).version, 10 * thread + n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(version for version, _ in saved) == list(range(1, 19))
    for version, value in saved:
        assert store.get(version).state("model")["w"].tolist() == [value] * 3


def test_threads_commit_one_at_a_time(root, monkeypatch):
    store = opened(root)
    inside, most, second = [], [], threading.Event()
    create_next = run_writer.create_next

    def watched(*args):
        inside.append(1)
        most.append(len(inside))
        if len(inside) > 1:
            second.set()
        second.wait(0.2)  # nobody comes where there is a lock
        inside.pop()
        return create_next(*args)

    monkeypatch.setattr(run_writer, "create_next", watched)
    threads = [threading.Thread(target=store.save, args=(STATE,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1]


def test_a_forked_child_saves_through_the_same_store(root):
    store = opened(root)
    store.save(STATE, rng=False)
    writer = store._writer("default")
    held, done = threading.Event(), threading.Event()

    def hold():
        with writer._lock:
            held.set()
            done.wait()

    other = threading.Thread(target=hold)  # saving at this moment
    other.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(30)  # waiting for that lock would be for ever
        os._exit(0 if store.save(STATE, rng=False, step=7).version == 2 else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    other.join()
    assert status == 0
    assert store.save(STATE, rng=False).version == 3
    assert store.get(2).step == 7


def save_many(root, process, count, results):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = Store(root)
    for n in range(count):
        value = 100.0 * process + n
        results.put((store.save({"w": torch.full((4,), value)}, rng=False).version, value))


def test_eight_processes_save_into_one_run_and_none_is_lost(root):
    # Each child starts afresh, from a server that has imported torch: that alone takes seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "ckptstore.saving.checkpoint", "ckptstore.store"])
    results = context.Queue()
    processes = [
        context.Process(target=save_many, args=(str(root), n, 3, results)) for n in range(8)
    ]
    for process in processes:
        process.start()
    saved = dict(results.get(timeout=120) for _ in range(24))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(saved) == list(range(1, 25))
    store = Store(root)
    assert [each.version for each in store.history()] == list(range(1, 25))
    for version, value in saved.items():
        assert store.get(version).state("model")["w"].tolist() == [value] * 4
    assert len(list(root.rglob("*.jsonl"))) == 24
