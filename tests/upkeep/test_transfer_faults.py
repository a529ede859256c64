"""Copies that are interrupted anywhere, and how much memory one takes."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import CkptStoreError, LateCommitError, StorageError
from ckptstore.format.manifest import decode_head
from ckptstore.saving.moment import Moment
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep import carrying
from ckptstore.upkeep.retelling import KINDS
from tests.faults import Failing, lost, store_on
from tests.upkeep.copies import is_indexed_rightly, origins


class Killed(BaseException):
    """The process ends here: nothing of ours may catch it."""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A store of two runs, with a tag, a late metric and a note; tests only read it."""
    store = Store(tmp_path_factory.mktemp("copies") / "here", monitor="loss", mode="min")
    store.save({"w": torch.ones(9), "b": torch.zeros(3)}, run="a", loss=1.0, rng=False)
    store.save({"w": torch.ones(9), "b": torch.ones(3)}, run="a", loss=0.5, rng=False, tags=["t"])
    store.save({"w": torch.ones(2)}, run="b", parent="a@1", rng=False)
    store.get("a@1").log(acc=0.5)
    return store


WRITES = {"prepare", "create", "open_writer", "write", "finish"}


def copy(here, storage):
    """Copy as a process of its own does."""
    source = Store(here.url, catalog="sqlite://")
    return source.copy_to(store_on(storage))


def operations(here, tmp_path, only=None):
    counting = Failing(LocalStorage(tmp_path / "counted"), only=only)
    copy(here, counting)
    return counting.count


def complete(here, folder):
    """Copy what is missing; say whether all is there then, once each, as it should be."""
    there = Store(folder, catalog="sqlite://")
    assert here.copy_to(there).left == ()
    return (
        origins(there, "a") == origins(here, "a")
        and origins(there, "b") == origins(here, "b")
        and there.get("a@t").ref == "a@2"
        and there.get("a@1").metrics == {"loss": 1.0, "acc": 0.5}
        and there.best(run="a").ref == "a@2"
        and there.get("b@1").parent == "a@1"
        and len(there._catalog.journal("a", KINDS)) == 3
    )


def whole(here, folder):
    """The same, and whether a check and an index built anew find nothing else."""
    there = Store(folder, catalog="sqlite://")
    return complete(here, folder) and there.verify().ok and is_indexed_rightly(there)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_a_rerun_completes_it(here, tmp_path, after):
    # Before each odd one and after it: each moment between two of them once.
    for at in range(1, operations(here, tmp_path, WRITES) + 1, 2):
        folder = tmp_path / str(at)
        storage = Failing(LocalStorage(folder), at, fault=Killed, after=after, only=WRITES)
        # What fails by itself, as creating ckptstore.json a second time must, has no "after".
        with suppress(Killed):
            copy(here, storage)
        assert whole(here, folder), f"killed at write {at}: {storage.done[-1]}"


@pytest.mark.parametrize(("always", "only", "step"), [(False, None, 5), (True, WRITES, 2)])
def test_a_storage_that_fails_is_a_storage_error_and_a_rerun_completes(
    here, tmp_path, always, only, step
):
    for at in range(1, operations(here, tmp_path, only) + 1, step):
        folder = tmp_path / str(at)
        storage = Failing(LocalStorage(folder), at, fault=lost, always=always, only=only)
        with suppress(StorageError):
            copy(here, storage)
        assert complete(here, folder), f"failed at operation {at}: {storage.done[-1]}"


def test_a_source_that_fails_anywhere_is_a_storage_error_and_no_damage(here, tmp_path):
    counting = Failing(LocalStorage(here.url))
    store_on(counting).copy_to(tmp_path / "counted")
    for at in range(1, counting.count + 1, 2):
        with pytest.raises(StorageError, match="the connection broke"):
            store_on(Failing(LocalStorage(here.url), at)).copy_to(tmp_path / str(at))
    assert whole(here, tmp_path / str(at))


def test_nothing_is_visible_of_a_version_whose_bytes_do_not_match(here, tmp_path):
    folder = tmp_path / "there"
    for pack in sorted(LocalStorage(here.url).walk("packs")):
        source = Failing(LocalStorage(here.url))
        original = source.read_into

        def read_into(key, start, out, *, bad=pack.key, original=original):
            original(key, start, out)
            if key == bad and start:
                out[0] ^= 1

        source.read_into = read_into
        there = Store(folder / pack.key[-50:-12], catalog="sqlite://")
        with pytest.raises(CkptStoreError, match="does not hold the bytes that were saved"):
            store_on(source).copy_to(there)
        manifests = [each.key for each in there._storage.walk("runs") if "_versions" in each.key]
        lines = [there._storage.read(key).split(b"\n")[0] for key in manifests]
        heads = [decode_head(line, "x") for line in lines]
        assert pack.key not in {
            f"packs/{p.save_id.hex[-2:]}/{p.save_id}-{p.number}.safetensors"
            for head in heads
            for p in here.get(f"{head.run}@{head.copied_from.version.version}").head.packs
        }
        assert there.verify().ok
        assert list(there._storage.leftovers()) == []


def test_a_copy_that_takes_too_long_is_taken_back_and_made_again(here, tmp_path, monkeypatch):
    there = Store(tmp_path / "there")
    took = [0.0, 0.0, 400_000.0]
    monkeypatch.setattr(Moment, "elapsed_s", lambda _: took.pop(0) if len(took) > 1 else took[0])
    with pytest.raises(LateCommitError, match="took longer than half"):
        here.copy_to(there, run="a")
    monkeypatch.undo()
    assert here.copy_to(there, run="a").copied[0][0] == "a@1"
    live = [each for each in there._catalog.identities("a") if each.retired is None]
    assert [str(each.origin) for each in live] == origins(here, "a")


@pytest.mark.parametrize("size_bytes", [256 * 1024 * 1024])
def test_memory_is_a_few_mib_however_large_a_tensor_is(tmp_path, size_bytes):
    here = Store(tmp_path / "here")
    here.save({"large": torch.zeros(size_bytes // 4)}, rng=False)
    there = Store(tmp_path / "there")
    here.copy_to(
        there, ref="default@1", into="warm"
    )  # imports and engines are not what is measured
    tracemalloc.start()
    try:
        here.copy_to(there)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert there.get("default@1").new_bytes > size_bytes
    assert peak < 2 * carrying.PIECE_BYTES + 4 * 1024 * 1024
