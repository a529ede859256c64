"""A whole save with a fault at each operation in turn: success or a typed error, never a half."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import (
    CkptStoreError,
    DurabilityError,
    LateCommitError,
    NotRankZeroError,
    OutcomeUnknownError,
    StorageError,
    UnsupportedValueError,
)
from ckptstore.format.digest import MAX_LINE_BYTES
from ckptstore.format.store_facts import DEFAULT_GRACE_S
from ckptstore.saving import save as saving
from ckptstore.saving.bases import LOOK_S
from ckptstore.storage.local import LocalStorage
from tests.clocks import ProcessClocks
from tests.faults import Failing, lost, store_on

BEFORE = {"w": torch.arange(3.0)}
AFTER = {"w": torch.arange(4.0) + 10, "v": torch.ones(2, 3).t()}


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A store with one version of the run "digits", its index beside it."""
    root = tmp_path_factory.mktemp("template") / "store"
    with Store(root) as store:
        store.save(BEFORE, run="digits", epoch=0, tags=["old"])
    return root


@pytest.fixture
def root(template, tmp_path):
    shutil.copytree(template, tmp_path / "store")
    return tmp_path / "store"


def save_second(store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this process did not begin the run
        return store.save(AFTER, run="digits", epoch=1, val_loss=0.5, tags=["new"])


def state_of(checkpoint):
    return {name: tensor.tolist() for name, tensor in checkpoint.state("model").items()}


def plain(state):
    return {name: tensor.tolist() for name, tensor in state.items()}


def check_whole(root):
    """Look at a store as another process does: every version is whole, and saving goes on."""
    with Store(root, catalog="sqlite://") as store:
        versions = list(store.history("digits"))
        assert [each.version for each in versions] == list(range(1, len(versions) + 1))
        assert not store.history("digits").damaged
        assert state_of(versions[0]) == plain(BEFORE)
        assert versions[0].tags == ("old",)
        for version in versions[1:]:
            assert state_of(version) == plain(AFTER)
            assert version.epoch == 1
            assert version.metrics == {"val_loss": 0.5}
        again = save_second(store)
        assert again.version == len(versions) + 1
        assert state_of(store.latest(run="digits")) == plain(AFTER)
        assert store.get("digits@new").version == again.version
        assert store.get("digits@old").version == 1
    leftovers = list(Path(root).rglob(".tmp-*"))
    assert leftovers == []
    return len(versions)


@pytest.fixture(scope="session")
def operations(template, tmp_path_factory):
    """The operations of a second save, in order."""
    copy = tmp_path_factory.mktemp("count") / "store"
    shutil.copytree(template, copy)
    storage = Failing(LocalStorage(copy))
    save_second(store_on(storage))
    return [f"{name} {key.split('/')[0]}" for name, key in storage.done]


FAULTS = {
    "lost": lost,
    "fsync": lambda: DurabilityError("fsync failed"),
    "interrupt": KeyboardInterrupt,
    "memory": MemoryError,
}


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_at_any_operation_leaves_all_versions_whole(  # noqa: PLR0917 - pytest names them
    template, tmp_path, operations, fault, after, always
):
    assert 10 < len(operations) < 60
    outcomes = set()
    for at in range(1, len(operations) + 1):
        root = tmp_path / str(at)
        shutil.copytree(template, root)
        store = store_on(
            Failing(LocalStorage(root), at=at, fault=FAULTS[fault], after=after, always=always)
        )
        committed_by_error = False
        try:
            done = save_second(store)
        except (CkptStoreError, KeyboardInterrupt, MemoryError) as error:
            said = " ".join([str(error), *getattr(error, "__notes__", [])])
            committed_by_error = (
                isinstance(error, (DurabilityError, OutcomeUnknownError))
                or "was committed" in said
                or "outcome unknown" in said
                or "is saved" in said
            )
            done = None
            outcomes.add(type(error).__name__)
        else:
            outcomes.add("saved")
        versions = check_whole(root)
        if done is not None:
            assert done.version == versions == 2, operations[at - 1]
        elif not committed_by_error:
            assert versions == 1, f"an error that says nothing of the version: {operations[at - 1]}"
    if fault == "lost" and after and not always:
        assert "saved" in outcomes  # a lost reply to the creation is no failure
    else:
        assert outcomes - {"saved"}


def test_the_same_store_object_goes_on_after_any_fault(template, tmp_path, operations):
    for at in range(1, len(operations) + 1):
        root = tmp_path / str(at)
        shutil.copytree(template, root)
        storage = Failing(LocalStorage(root), at=at)
        store = store_on(storage)
        try:
            save_second(store)
        except StorageError:
            storage.rest()
            save_second(store)
        storage.rest()
        assert state_of(store.latest(run="digits")) == plain(AFTER)
        assert store.get("digits@new") == store.latest(run="digits")
        check_whole(root)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_operation_leaves_all_versions_whole(template, tmp_path, operations, after):
    killed = 0
    count = len(operations)
    for at in range(1, count + 1):
        root = tmp_path / str(at)
        shutil.copytree(template, root)
        child = os.fork()
        if not child:
            store = store_on(
                Failing(
                    LocalStorage(root),
                    at=at,
                    after=after,
                    fault=lambda: os.kill(os.getpid(), signal.SIGKILL),
                )
            )
            save_second(store)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        for stray in root.rglob(".tmp-*"):
            stray.unlink()  # nobody reads them
        assert check_whole(root) in (1, 2)
    # Some operations end otherwise, as a creation that has to fail: no reply of those comes late.
    assert killed > count * 0.8


@pytest.mark.parametrize("call", ["write", "fsync", "link", "mkdir"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_system_call_leaves_all_versions_whole(
    root, tmp_path, monkeypatch, call, after
):
    at = 0
    while True:
        at += 1
        copy = tmp_path / str(at)
        shutil.copytree(root, copy)
        child = os.fork()
        if not child:
            monkeypatch.setattr(os, call, killing(getattr(os, call), at, after=after))
            save_second(store_on(LocalStorage(copy)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        for stray in copy.rglob(".tmp-*"):
            stray.unlink()
        versions = check_whole(copy)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            assert versions == 2
            break
        shutil.rmtree(copy)
    assert at < 60


def killing(call, at, *, after):
    calls = []

    def kill(*args, **kwargs):
        calls.append(1)
        if len(calls) == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return kill


def test_nothing_is_written_where_something_cannot_be_kept(root):
    before = sorted(path.name for path in root.rglob("*") if "catalog" not in path.name)
    storage = Failing(LocalStorage(root))
    store = store_on(storage)
    with pytest.raises(UnsupportedValueError, match="extra/hook"):
        store.save(AFTER, run="digits", extra={"hook": lambda: 0})
    assert storage.done == []
    assert sorted(path.name for path in root.rglob("*") if "catalog" not in path.name) == before


def test_a_head_too_long_to_be_read_is_refused(root, monkeypatch):
    monkeypatch.setattr(saving, "MAX_LINE_BYTES", 3000)
    store = Store(root, catalog="sqlite://")
    store.resume(run="digits")
    with pytest.raises(UnsupportedValueError, match="large data in extra="):
        store.save(AFTER, run="digits", config={"words": "x" * 3000})
    assert store.latest(run="digits").version == 1
    assert MAX_LINE_BYTES == 64 * 2**20


def test_a_save_is_as_old_as_its_look_at_what_it_builds_upon(tmp_path, monkeypatch):
    clocks = ProcessClocks(monkeypatch)
    store = Store(tmp_path / "store", catalog="sqlite://")
    store.save(BEFORE, rng=False)
    clocks.pass_by(timedelta(seconds=LOOK_S - 1))  # the look at version 1 still holds good
    writer = store._writer("default")
    commit = writer.commit

    def slowly(*args, **options):
        clocks.pass_by(timedelta(seconds=DEFAULT_GRACE_S / 2 - LOOK_S / 2))
        return commit(*args, **options)

    monkeypatch.setattr(writer, "commit", slowly)
    with pytest.raises(LateCommitError):
        store.save(BEFORE, rng=False)


def test_off_rank_zero_the_guard_is_shown(monkeypatch):
    monkeypatch.setattr(saving, "rank", lambda: 3)
    monkeypatch.setattr(saving, "world_size", lambda: 8)
    with pytest.raises(NotRankZeroError, match=r"rank 3 of 8[\s\S]*get_rank\(\) == 0"):
        saving.check_rank()
    monkeypatch.setattr(saving, "rank", lambda: 0)
    saving.check_rank()


def test_a_version_records_when_and_with_what_it_was_made(root):
    store = Store(root)
    store.resume(run="digits")
    saved = store.save(AFTER, run="digits", parent="digits@old")
    head = store.get(saved.ref).head
    assert head.started_at <= head.created_at
    assert head.save_id.version == 7
    assert head.environment["torch"] == torch.__version__
    assert saved.parent == "digits@1"
    assert saved.new_bytes > saved.size_bytes > 0
