"""Repair does what is safe, says what it did, and takes nothing away."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import replace

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import CollectionRefusedError, FallbackWarning, StorageError
from ckptstore.format.journal import DamageEntry, RetireEntry, decode_entry
from ckptstore.format.layout import journal_key, version_key
from ckptstore.format.store_facts import decode_store, encode_store
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.findings import Finding
from ckptstore.upkeep.repair import Case, mark, repair, retire
from tests.catalog.places import rows
from tests.faults import Failing, store_on
from tests.loading.forging import manifest_of, packs_of
from tests.upkeep.checking import (
    check,
    filled,
    flip,
    kinds,
    only,
    repaired,
    retired,
    snapshot,
    state,
)


@pytest.fixture
def folder(tmp_path):
    filled(tmp_path / "store").close()
    return tmp_path / "store"


def entry(folder, number):
    return decode_entry((folder / journal_key("digits", number)).read_bytes(), "a test")


def test_what_is_whole_is_left_as_it_is(folder):
    before = snapshot(folder)

    assert repaired(Store(folder)).findings == ()
    assert snapshot(folder) == before


def test_damaged_data_are_recorded_once_and_passed_over(folder):
    flip(packs_of(folder, "digits", 3)[0])
    store = Store(folder)

    report = repaired(store)

    assert not report.ok
    assert "recorded as damaged" in only(report).repaired
    recorded = entry(folder, 1)
    assert isinstance(recorded, DamageEntry)
    assert (recorded.version, recorded.damage) == (3, only(report).message)
    again = only(repaired(Store(folder)))
    assert again.repaired is None
    assert again.message.endswith("it is recorded as damaged already")
    assert not (folder / journal_key("digits", 2)).exists()


@pytest.mark.filterwarnings("ignore::ckptstore.errors.FallbackWarning")
def test_readers_step_over_what_was_recorded_as_damaged(folder):
    flip(packs_of(folder, "digits", 3)[0])
    repaired(Store(folder))
    store = Store(folder)

    assert store.best().version == 2
    assert store.latest().version == 2
    assert store.get("digits@3").version == 3
    assert [entry.version for entry in store.history()] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::ckptstore.errors.FallbackWarning")
def test_training_resumes_from_the_newest_intact_version(tmp_path):
    module = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(3)) for name in "ab"})
    for _ in range(3):
        store = Store(tmp_path)
        store.resume(module, run="digits")
        with torch.no_grad():
            module["a"] += 1
            module["b"] -= 1
        store.save(module, run="digits", model_config={}, rng=False)
    flip(packs_of(tmp_path, "digits", 3)[0])
    flip(manifest_of(tmp_path, "digits", 2), 100)
    repaired(Store(tmp_path))
    store = Store(tmp_path)

    resumed = store.resume(module, run="digits")

    assert resumed.checkpoint.version == 1
    assert module["a"].tolist() == [1, 1, 1]
    assert store.save(module, run="digits", model_config={}, rng=False).version == 4


def test_versions_put_back_from_a_copy_are_whole_again(folder):
    pack = packs_of(folder, "digits", 3)[0]
    flip(pack)
    repaired(Store(folder))
    flip(pack)
    store = Store(folder)

    assert kinds(check(store)) == [("note", "mended", "digits@3")]
    assert check(store, deep=False).findings == ()  # sizes alone say nothing of that
    assert only(repaired(store)).repaired == "recorded as whole again"
    assert entry(folder, 2).damage is None
    assert check(store).findings == ()
    assert store.latest().version == 3


def test_a_version_whose_manifest_can_not_be_read_is_retired(folder):
    flip(manifest_of(folder, "digits", 2), 100)
    store = Store(folder)
    found = check(store)

    report = repaired(store)

    assert found.damaged == report.damaged == ("digits@2",)
    assert "retired, so that collection goes on" in report.findings[0].repaired
    written = entry(folder, 1)
    assert isinstance(written, RetireEntry)
    assert written.reasons.keys() == {2}
    assert written.reasons[2].startswith("damaged: ")
    after = check(store)
    assert after.ok
    assert ("note", "manifest", "digits@2") in kinds(after)
    assert check(Store(folder)).ok


def test_once_it_was_retired_for_a_grace_period_collection_goes_on(folder):
    path = folder / "ckptstore.json"
    facts = decode_store(path.read_bytes(), "a test")
    path.write_bytes(encode_store(replace(facts, grace_s=0)))
    flip(manifest_of(folder, "digits", 2), 100)
    with pytest.raises(CollectionRefusedError):
        Store(folder).collect()

    repaired(Store(folder))
    collected = Store(folder).collect()

    assert len(collected.deleted) == 1  # what only the lost version named
    assert [each.version for each in Store(folder).history() if each.retired is None] == [1, 3]
    assert check(Store(folder)).ok


def test_tags_of_what_can_not_be_read_are_named(folder):
    Store(folder).tag("digits@2", "prod")
    flip(manifest_of(folder, "digits", 2), 100)

    assert "the tags prod point at it" in repaired(Store(folder)).findings[0].message


def test_a_missing_journal_entry_is_written_again_from_the_catalog(folder):
    store = Store(folder)
    for number in (1, 2, 3):
        store.tag(f"digits@{number}", "prod")
    lost = folder / journal_key("digits", 2)
    data = lost.read_bytes()
    lost.unlink()
    flip(packs_of(folder, "digits", 1)[0])

    assert kinds(check(store)) == [("damage", "hole", "digits"), ("damage", "pack", "digits@1")]
    report = repaired(store)

    assert report.findings[0].repaired == "written again from the catalog, byte for byte"
    assert lost.read_bytes() == data
    assert report.findings[1].repaired is not None
    assert check(Store(folder)).damaged == ("digits@1",)


def test_what_a_catalog_has_of_an_entry_is_checked_before_it_is_written(folder):
    store = Store(folder)
    for number in (1, 2, 3):
        store.tag(f"digits@{number}", "prod")
    store.close()
    lost = folder / journal_key("digits", 2)
    lost.unlink()
    database = sqlite3.connect(folder / "catalog.sqlite3")
    with database:
        database.execute("UPDATE journal SET entry = replace(entry, 'prod', 'test')")
    database.close()

    report = repaired(Store(folder))

    (hole,) = [each for each in report.findings if each.kind == "hole"]
    assert hole.repaired is None
    assert "could not be repaired" in hole.message
    assert not lost.exists()


def test_what_nobody_has_can_not_be_made_again(folder):
    store = Store(folder)
    for number in (1, 2, 3):
        store.tag(f"digits@{number}", "prod")
    store.close()
    (folder / "catalog.sqlite3").unlink()
    (folder / journal_key("digits", 2)).unlink()
    manifest_of(folder, "digits", 1).unlink()
    before = snapshot(folder)

    report = repaired(Store(folder))

    assert {each.kind for each in report.findings} == {"hole", "orphan"}
    assert all(each.repaired is None for each in report.findings)
    assert all("from a copy" in each.message for each in report.findings if each.kind == "hole")
    after = snapshot(folder)
    assert before.items() <= after.items()
    assert {key for key in after if key not in before} <= {"catalog.sqlite3"}


def test_a_damaged_journal_stops_the_repair_of_its_run_alone(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    store.save(state(5), run="other", rng=False)
    store.close()
    (folder / "catalog.sqlite3").unlink()
    flip(folder / journal_key("digits", 1), 50)
    for run in ("digits", "other"):
        flip(packs_of(folder, run, 1)[0])

    report = repaired(Store(folder))

    found = {(each.kind, each.ref): each for each in report.findings}
    assert set(found) == {("journal", "digits"), ("pack", "digits@1"), ("pack", "other@1")}
    assert found["journal", "digits"].repaired is None
    assert found["pack", "digits@1"].repaired is None
    assert "could not be repaired" in found["pack", "digits@1"].message
    assert found["pack", "other@1"].repaired is not None


def change(folder, statement):
    with sqlite3.connect(folder / "catalog.sqlite3") as connection:
        connection.execute(statement)
    connection.close()


def test_a_catalog_that_says_something_else_is_indexed_anew(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    right = rows(store._catalog)
    change(folder, "UPDATE versions SET epoch = 77 WHERE version = 2")
    change(folder, "DELETE FROM metrics WHERE version = 3")
    change(folder, "UPDATE tags SET version = 3")

    report = repaired(store)

    assert kinds(report) == [("damage", "catalog", "digits")]
    assert "versions 2 has other values of epoch" in only(report).message
    assert "metrics val_loss 3 is missing" in only(report).message
    assert "tags prod has other values of version" in only(report).message
    assert only(report).repaired == "indexed anew from the storage"
    assert rows(store._catalog) == right
    assert check(store).ok


def test_what_differs_in_one_run_costs_no_other_its_only_copy_of_an_entry(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    store.save(state(5), run="other", rng=False)
    lost = folder / journal_key("digits", 1)
    data = lost.read_bytes()
    flip(lost, 50)
    change(folder, "UPDATE versions SET epoch = 77 WHERE path = 'other'")

    report = repaired(store)

    found = {(each.kind, each.ref): each for each in report.findings}
    assert found["catalog", "other"].repaired == "indexed anew from the storage"
    assert found["journal", "digits"].repaired is None
    lost.unlink()
    assert only(repaired(Store(folder))).repaired == "written again from the catalog, byte for byte"
    assert lost.read_bytes() == data
    assert check(Store(folder)).ok


def test_a_run_with_a_damaged_journal_keeps_its_rows_whatever_they_say(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    flip(folder / journal_key("digits", 1), 50)
    manifest_of(folder, "digits", 3).unlink()
    before = rows(store._catalog)

    report = repaired(store)

    (finding,) = [each for each in report.findings if each.kind == "catalog"]
    assert finding.repaired is None
    assert "not indexed anew while a journal entry is lost" in finding.message
    assert rows(store._catalog) == before


def test_the_newest_journal_entries_are_written_again_in_order(folder):
    store = Store(folder)
    for number in (1, 2, 3):
        store.tag(f"digits@{number}", "prod")
    lost = [folder / journal_key("digits", number) for number in (2, 3)]
    data = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()

    report = repaired(store)

    assert kinds(report) == [("damage", "hole", "digits")] * 2
    assert {each.repaired for each in report.findings} == {
        "written again from the catalog, byte for byte"
    }
    assert [path.read_bytes() for path in lost] == data
    assert check(Store(folder)).ok


def test_after_an_entry_of_somebody_else_no_later_one_is_written(folder):
    store = Store(folder)
    for number in (1, 2, 3):
        store.tag(f"digits@{number}", "prod")
    two, three = (folder / journal_key("digits", number) for number in (2, 3))
    two.unlink()
    three.unlink()

    class Overtaken(Failing):
        def create(self, key, data):
            if key == journal_key("digits", 2):
                two.write_bytes(b"of somebody else")
            return super().create(key, data)

    overtaken = Overtaken(store._storage)
    findings = [
        Finding("hole", "damage", "digits", journal_key("digits", number), "is gone")
        for number in (2, 3)
    ]

    found = repair(overtaken, store._catalog, None, [Case(each) for each in findings])

    assert found[0].repaired == "somebody wrote another entry meanwhile"
    assert found[1].repaired is None
    assert not three.exists()


def test_an_entry_that_is_another_one_than_was_indexed_is_left_to_people(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    store.close()
    path = folder / journal_key("digits", 1)
    path.unlink()
    index = folder / "catalog.sqlite3"
    kept = index.rename(folder / "kept")
    Store(folder).tag("digits@2", "prod")
    kept.replace(index)
    before = rows(Store(folder)._catalog)

    finding = only(repaired(Store(folder)))

    assert (finding.kind, finding.repaired) == ("journal", None)
    assert "is not the one that this catalog indexed" in finding.message
    assert rows(Store(folder)._catalog) == before


def test_a_whole_manifest_in_another_ones_place_is_not_retired(folder):
    path = manifest_of(folder, "digits", 2)
    path.write_bytes(manifest_of(folder, "digits", 1).read_bytes())

    report = repaired(Store(folder))

    (finding,) = [each for each in report.findings if each.kind == "manifest"]
    assert (finding.severity, finding.repaired) == ("damage", None)
    assert "put the right one in its place" in finding.message
    assert not (folder / journal_key("digits", 1)).exists()


def test_whatever_is_repaired_nothing_that_was_there_is_changed(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    retired(store, 1)
    flip(packs_of(folder, "digits", 2)[0])
    flip(manifest_of(folder, "digits", 3), 100)
    store.close()
    for path in folder.glob("catalog.sqlite3*"):
        path.unlink()
    before = snapshot(folder)

    repaired(Store(folder))

    assert before.items() <= snapshot(folder).items()


def test_damage_in_a_bucket_is_recorded_in_the_bucket(s3_url, s3_client):
    store = filled(s3_url, 2)
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    pack = store.get("digits@2").head.packs[0]
    key = f"{prefix}/packs/{pack.save_id.hex[-2:]}/{pack.save_id}-0.safetensors"
    s3_client.delete_object(Bucket=bucket, Key=key)

    assert only(repaired(store)).repaired is not None

    with pytest.warns(FallbackWarning, match="without digits@2: known to be damaged"):
        assert Store(s3_url, catalog="sqlite://").latest().version == 1


def test_a_journal_that_can_not_be_appended_to_is_said(folder):
    flip(packs_of(folder, "digits", 2)[0])
    failing = Failing(Store(folder)._storage, 1, always=True, only={"create"})

    finding = only(repaired(store_on(failing)))

    assert finding.repaired is None
    assert finding.message.endswith("could not be repaired: the connection broke")


def test_decisions_say_nothing_twice():
    from datetime import UTC, datetime
    from uuid import UUID

    from ckptstore.format.facts import Facts, Retired, VersionFacts

    now, writer = datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1)
    known = VersionFacts(retired=Retired(now, "old", 1), damage="flipped")
    facts = Facts(versions={1: known})

    assert retire(1, "x")(facts, now, writer) is None
    assert retire(2, "x")(facts, now, writer) == RetireEntry({2: "damaged: x"}, now, writer)
    assert mark(1, "flipped")(facts, now, writer) is None
    assert mark(1, None)(facts, now, writer) == DamageEntry(1, None, now, writer)


def eio():
    error = StorageError("the device failed")
    error.errno = errno.EIO
    return error


class BadSector(Failing):
    """A storage where one manifest can't be read so many times."""

    def __init__(self, storage, key, times):
        super().__init__(storage)
        self.key, self.times = key, times

    def read_many(self, keys, length):
        if self.key in keys and self.times:
            self.times -= 1
            raise eio()
        return super().read_many(keys, length)


@pytest.mark.parametrize(("times", "is_retired"), [(2, False), (1000, True)])
def test_what_could_not_be_read_is_read_again_before_it_is_retired(folder, times, is_retired):
    """Each look reads twice: with others, then by itself."""
    storage = BadSector(LocalStorage(folder), version_key("digits", 2), 0)
    store = store_on(storage)
    store.history()  # the catalog has read it, when it could be read
    storage.times = times

    report = repaired(store)

    found = next(each for each in report.findings if each.kind == "manifest")
    assert found.severity == "damage"
    assert ("a moment later it could be read" in found.message) == (not is_retired)
    assert (found.repaired is not None) == is_retired
    assert (folder / journal_key("digits", 1)).exists() == is_retired
