"""The first write: one ``ckptstore.json``, and no trust in storage that deserves none."""

from __future__ import annotations

import json
import threading

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    CatalogWarning,
    IntegrityError,
    NewerFormatError,
    NotExclusiveError,
    OutcomeUnknownError,
    SecondWriterError,
    StorageError,
)
from ckptstore.format.layout import STORE_KEY, version_key
from ckptstore.format.sealed import seal
from ckptstore.format.store_facts import DEFAULT_GRACE_S
from ckptstore.saving.founding import found
from ckptstore.storage.local import LocalStorage
from tests.faults import Failing, lost, store_on


class Careless(LocalStorage):
    """A storage that claims to let one writer win, and lets the last one."""

    def create(self, key, data):
        self.replace(key, data)


class Modest(Careless):
    """A storage that claims nothing."""

    def __init__(self, root):
        super().__init__(root)
        self.exclusive = False


@pytest.fixture
def local(tmp_path):
    return LocalStorage(tmp_path / "store")


def test_a_store_is_made_once(local):
    facts = found(local, single_writer=False)

    assert found(local, single_writer=False) == facts
    assert found(LocalStorage(local.url), single_writer=False) == facts
    value = json.loads(local.read(STORE_KEY))
    assert value["format"] == 1
    assert value["store"] == str(facts.store_id)
    assert value["grace_s"] == DEFAULT_GRACE_S == 604_800
    assert value["requires"] == []


def test_many_threads_found_one_store(tmp_path):
    facts = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        facts.append(found(LocalStorage(tmp_path / "store"), single_writer=False))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(facts) == 8
    assert len(set(facts)) == 1


def test_no_store_is_made_where_there_are_runs(local):
    local.create(version_key("digits", 1), b"of a store that was copied in part")

    with pytest.raises(IntegrityError, match="copied in part"):
        found(local, single_writer=False)

    assert local.list_folder("").files == ()


def test_storage_that_lets_two_writers_win_is_refused(tmp_path):
    storage = Careless(tmp_path)
    with pytest.raises(NotExclusiveError, match=r"If-None-Match[\s\S]*single_writer=True"):
        found(storage, single_writer=False)
    assert not storage.exclusive
    assert not list(tmp_path.rglob("*.jsonl"))


def test_storage_that_promises_nothing_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(NotExclusiveError, match="single_writer=True"):
        found(Modest(tmp_path), single_writer=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [Careless, Modest])
def test_one_writer_may_use_it(tmp_path, kind):
    storage = kind(tmp_path)
    facts = found(storage, single_writer=True)
    assert not storage.exclusive
    assert found(kind(tmp_path), single_writer=True) == facts


def test_the_check_never_gives_trust(tmp_path):
    local = LocalStorage(tmp_path)
    local.exclusive = False
    found(local, single_writer=True)
    assert not local.exclusive


def test_a_refusal_of_another_kind_takes_no_trust(local):
    found(local, single_writer=False)
    storage = Failing(local, at=1, only={"create"}, fault=lambda: StorageError("denied by policy"))
    found(storage, single_writer=False)
    assert storage.exclusive


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", IntegrityError),
        (b'{"format":1}', IntegrityError),
        (b"<html>not found</html>", IntegrityError),
        (seal({"format": 2, "requires": []}), NewerFormatError),
        (seal({"format": 1, "requires": ["deltas"]}), NewerFormatError),
        (seal({"format": 1, "requires": [], "store": "x"}), IntegrityError),
    ],
)
def test_a_store_that_is_damaged_or_newer_is_left_alone(local, data, error):
    local.create(STORE_KEY, data)
    with pytest.raises(error, match=r"ckptstore\.json"):
        store_on(local).save({"a": 1})
    assert local.read(STORE_KEY) == data
    assert local.list_folder("").files == (STORE_KEY,)
    assert local.list_folder("").folders == ()


def test_a_lost_reply_founds_the_store(local):
    storage = Failing(local, at=1, after=True, only={"create"})
    assert found(storage, single_writer=False) == found(local, single_writer=False)


def test_an_unreadable_outcome_is_unknown(local):
    storage = Failing(local, at=2, always=True, only={"create", "read"}, fault=lost)
    with pytest.raises(OutcomeUnknownError):
        found(storage, single_writer=False)


def single(root, kind=Modest):
    return store_on(kind(root), single_writer=True)


@pytest.mark.parametrize("kind", [Careless, Modest])
def test_a_single_writer_saves_on(tmp_path, kind):
    store = single(tmp_path, kind)
    assert [store.save({"a": n}).version for n in range(3)] == [1, 2, 3]
    again = single(tmp_path, kind)
    assert again.resume()
    assert again.save({"a": 3}).version == 4
    assert [each.state("model") for each in again.history()] == [{"a": n} for n in range(4)]


@pytest.mark.parametrize("kind", [Careless, Modest])
def test_no_pack_is_written_before_the_storage_is_trusted(tmp_path, kind):
    with pytest.raises(NotExclusiveError):
        store_on(kind(tmp_path)).save({"a": torch.ones(3)})
    assert not list(tmp_path.rglob("*.safetensors"))


def test_no_later_fact_is_written_before_the_storage_is_trusted(tmp_path):
    single(tmp_path).save({"a": 1}, run="digits")

    with pytest.raises(NotExclusiveError):
        store_on(Modest(tmp_path)).tag("digits@1", "prod")
    assert not list(tmp_path.rglob("_journal"))


def test_a_second_writer_is_noticed_by_its_version(tmp_path):
    class LooksFirst(Modest):
        def create(self, key, data):
            if self._path(key).exists():
                raise FileExistsError(key)
            super().create(key, data)

    one, two = single(tmp_path, LooksFirst), single(tmp_path, LooksFirst)
    one.save({"a": 1})
    assert two.resume()
    two.save({"a": 2})
    with pytest.raises(SecondWriterError, match="another process"):
        one.save({"a": 3})
    assert [each.state("model") for each in single(tmp_path).history()] == [{"a": 1}, {"a": 2}]


def test_a_second_writer_that_wrote_over_is_noticed(tmp_path):
    one, two = single(tmp_path), single(tmp_path)
    one.save({"a": 0})
    assert two.resume()
    two.save({"a": 1})
    with pytest.warns(CatalogWarning, match="gone, damaged or replaced"):
        one.save({"a": 2})  # over it: nothing here keeps them apart
    with pytest.raises(SecondWriterError, match=r"no longer what this process wrote"):
        two.save({"a": 3})
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2


@pytest.mark.parametrize("after", [True, False])
def test_a_single_writer_never_writes_over_a_save_whose_outcome_it_did_not_see(tmp_path, after):
    storage = Failing(Modest(tmp_path))
    store = store_on(storage, single_writer=True)
    store.save({"a": 0})
    storage.rest()
    storage.only = {"create", "read"}
    storage.at, storage.after, storage.always = 2, after, True
    with pytest.raises((OutcomeUnknownError, StorageError)):
        store.save({"a": 1})
    was_there = len(list(tmp_path.rglob("*.jsonl")))
    storage.rest()

    store.save({"a": 2})

    states = [each.state("model") for each in single(tmp_path).history()]
    assert states == ([{"a": 0}, {"a": 1}, {"a": 2}] if was_there == 2 else [{"a": 0}, {"a": 2}])
    assert (was_there == 2) is after


@pytest.mark.parametrize("inside", ["packs/mine", "runs/digits/mine", "files", "clock/mine"])
def test_a_store_among_the_files_of_another_is_refused(tmp_path, inside):
    Store(tmp_path / "outer").save({"w": torch.zeros(1)}, epoch=0)

    with pytest.raises(ArgumentError, match="among the files of the store at"):
        Store(tmp_path / "outer" / inside).save({"w": torch.zeros(1)}, epoch=0)

    assert not (tmp_path / "outer" / inside / "ckptstore.json").exists()


def test_a_store_beside_the_files_of_another_is_none_of_its_business(tmp_path):
    Store(tmp_path / "outer").save({"w": torch.zeros(1)}, epoch=0)

    assert Store(tmp_path / "outer" / "notes").save({"w": torch.zeros(1)}, epoch=0).version == 1
