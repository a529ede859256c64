"""Collection and undeletion on every kind of storage, by its own clock, through the store."""

from __future__ import annotations

import os
import shutil
import time
from uuid import UUID

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import RetiredError
from ckptstore.format.facts import LATE
from ckptstore.format.journal import RetireEntry
from ckptstore.format.layout import STORE_KEY, pack_key
from ckptstore.format.store_facts import StoreFacts, encode_store
from ckptstore.storage.opening import open_storage

W = torch.arange(1000.0)


@pytest.fixture
def store(store_url):
    """A store with the ordinary grace period: two versions, of which the first is retired."""
    with Store(store_url, catalog="sqlite://") as made:
        made.save({"w": W}, rng=False)
        made.save({"w": W + 1}, rng=False)
        made._writer("default").append(
            lambda _facts, now, writer: RetireEntry({1: "old"}, now, writer)
        )
        yield made


def end_grace(store):
    """Take the store's grace period away, so that nobody has to wait for a week."""
    store_id = store._catalog._facts().store_id
    store._storage.delete([STORE_KEY])
    store._storage.create(STORE_KEY, encode_store(StoreFacts(store_id, 0, in_place=False)))
    time.sleep(1.1)  # until the clock of the storage, which may tick in seconds, has moved on


def packs(store):
    return sorted(stored.key for stored in store._storage.walk("packs"))


def test_within_the_grace_period_nothing_goes_and_all_can_come_back(store):
    done = store.collect()
    assert (done.deleted, done.leftovers) == ((), ())
    assert (done.in_use.count, done.retired.count) == (1, 1)
    assert store.undelete("default@1").retired is None
    assert torch.equal(store.get("default@1").state("model")["w"], W)


def test_after_it_what_was_retired_goes_and_the_rest_stays(store):
    orphan = pack_key(UUID(int=1), 0)
    store._storage.create(orphan, b"of a save that was killed")
    end_grace(store)
    would = store.collect(dry_run=True)
    assert packs(store) != []
    done = store.collect()
    assert done.deleted == would.deleted
    assert orphan in {stored.key for stored in done.deleted}
    assert len(done.deleted) == 2
    assert len(packs(store)) == 1
    assert torch.equal(store.get("default@2").state("model")["w"], W + 1)
    with pytest.raises(RetiredError):
        store.undelete("default@1")
    assert store.collect().deleted == ()


def test_only_the_store_is_left(store):
    store.collect()
    folders = {key.split("/")[0] for key in keys(store)}
    assert folders <= {STORE_KEY, "packs", "runs", "catalog.sqlite3"}


def keys(store):
    return [stored.key for stored in store._storage.walk("")]


def test_an_unfinished_upload_of_a_killed_save_goes_too(s3_url, s3_client):
    with Store(s3_url, catalog="sqlite://") as store:
        store.save({"w": W}, rng=False)
        bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
        key = f"{prefix}/{pack_key(UUID(int=1), 0)}"
        s3_client.create_multipart_upload(Bucket=bucket, Key=key)  # moto dates them all 2010
        end_grace(store)
        (leftover,) = store.collect().leftovers
        assert leftover.upload
        assert s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_uploads_of_others_in_the_bucket_go_on(s3_url, s3_client):
    bucket = s3_url.removeprefix("s3://").partition("/")[0]
    pack = pack_key(UUID(int=1), 0)
    others = {"videos/someone-elses.mp4", f"team2/{pack}", "packs/mine.bin"}
    for key in (*others, pack):
        s3_client.create_multipart_upload(Bucket=bucket, Key=key)
    with Store(f"s3://{bucket}", catalog="sqlite://") as store:
        store.save({"w": W}, rng=False)
        end_grace(store)
        assert [each.key for each in store.collect().leftovers] == [pack]
    left = s3_client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert {each["Key"] for each in left} == others


def test_files_of_the_user_below_the_root_stay(tmp_path):
    with Store(tmp_path) as store:
        store.save({"w": W}, rng=False)
        files = [tmp_path / "data" / ".tmp-precious.csv", tmp_path / "packs" / ".tmp-mine"]
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"mine")
        end_grace(store)
        assert store.collect().leftovers == ()
        assert all(map(os.path.exists, files))
        assert [each.key for each in store.verify().findings] == ["packs/.tmp-mine"]


def test_a_temporary_file_of_a_killed_save_goes_too(tmp_path):
    with Store(tmp_path) as store:
        store.save({"w": W}, rng=False)
        temporary = tmp_path / "runs" / "default" / "_versions" / ".tmp-0123456789abcdef"
        temporary.write_bytes(b"half a manif")
        assert store.collect().leftovers == ()
        end_grace(store)
        assert len(store.collect().leftovers) == 1
        assert not temporary.exists()


def test_a_copied_store_is_as_young_as_its_copy(tmp_path):
    """Its files have the copy's times, so nothing is deleted sooner than it would have been."""
    with Store(tmp_path / "a") as store:
        store.save({"w": W}, rng=False)
        store._writer("default").append(
            lambda _facts, now, writer: RetireEntry({1: "old"}, now, writer)
        )
        end_grace(store)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = open_storage(str(tmp_path / "b"))
    original = open_storage(str(tmp_path / "a"))
    for stored in original.walk("runs"):
        assert copy.written_at(stored.key) > stored.written_at


def test_what_was_late_says_so_when_it_is_undeleted(store):
    store._writer("default").append(
        lambda _facts, now, writer: RetireEntry({2: f"{LATE}slept"}, now, writer)
    )
    with pytest.raises(RetiredError, match="too late"):
        store.undelete("default@2")
