"""Collection: what is deleted, what is not, and when it refuses."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest

from ckptstore.errors import (
    CatalogError,
    CollectionRefusedError,
    NotAStoreError,
    NotExclusiveError,
    StorageError,
)
from ckptstore.format.layout import (
    STORE_KEY,
    STORE_KEY_NEWER,
    clock_key,
    journal_folder,
    journal_key,
    pack_key,
    version_key,
)
from ckptstore.storage.base import Leftover
from ckptstore.upkeep import collection
from ckptstore.upkeep.collection import collect
from tests.catalog.places import START, newer
from tests.clocks import ProcessClocks
from tests.upkeep.histories import DAY, GRACE, RUN, Bucket, History

SECOND = timedelta(seconds=1)
JOURNAL = journal_folder(RUN)


@pytest.fixture
def history():
    return History()


def test_what_a_live_version_names_is_kept_however_old(history):
    _, key = history.save()
    history.wait(1000 * DAY)
    done = history.collect()
    assert history.has(key)
    assert done.deleted == ()
    assert (done.in_use.count, done.in_use.size_bytes) == (1, 8)


def test_what_was_retired_for_longer_than_the_grace_period_is_deleted(history):
    version, key = history.save()
    history.wait(DAY)
    history.retire(version)
    history.wait(GRACE)
    assert history.collect().retired.count == 1
    assert history.has(key)

    history.wait(SECOND)
    done = history.collect()

    assert [stored.key for stored in done.deleted] == [key]
    assert done.deleted_bytes == 8
    assert not history.has(key)


def test_manifests_and_journals_stay(history):
    version, _ = history.save()
    history.retire(version)
    history.wait(GRACE + SECOND)
    before = {key for key in history.storage.objects if key.startswith("runs/")}
    history.collect()
    assert {key for key in history.storage.objects if key.startswith("runs/")} == before


def test_opaque_files_go_as_packs_do(history):
    kept, gone = history.file(), history.file()
    history.commit(kept)
    history.retire(history.commit(gone))
    history.wait(GRACE + SECOND)
    history.collect()
    assert history.has(kept)
    assert not history.has(gone)


def test_a_pack_that_another_version_names_is_kept(history):
    first, key = history.save()
    history.commit(key, run="other/run")
    history.retire(first)
    history.wait(GRACE + SECOND)
    assert history.collect().deleted == ()
    assert history.has(key)


def test_a_pack_is_kept_until_the_last_of_its_versions_has_waited(history):
    first, key = history.save()
    second = history.commit(key)
    history.retire(first)
    history.wait(GRACE)
    history.retire(second)
    history.wait(GRACE)
    assert history.collect().deleted == ()
    history.wait(SECOND)
    assert [stored.key for stored in history.collect().deleted] == [key]


def test_an_undeleted_version_is_live(history):
    version, key = history.save()
    history.retire(version)
    history.wait(DAY)
    history.undelete(version)
    history.wait(10 * GRACE)
    assert history.collect().deleted == ()
    assert history.has(key)


def test_a_version_retired_again_waits_again(history):
    version, key = history.save()
    history.retire(version)
    history.wait(DAY)
    history.undelete(version)
    history.wait(GRACE)
    history.retire(version)
    history.wait(GRACE)
    assert history.collect().deleted == ()
    history.wait(SECOND)
    assert [stored.key for stored in history.collect().deleted] == [key]


def test_retiring_twice_does_not_prolong_the_wait(history):
    version, key = history.save()
    history.retire(version)
    history.wait(GRACE)
    history.retire(version)
    history.wait(SECOND)
    assert [stored.key for stored in history.collect().deleted] == [key]


def test_what_nobody_names_counts_from_its_own_age(history):
    key = history.pack()
    history.save()
    history.wait(GRACE)
    assert history.collect().recent.count == 1
    history.wait(SECOND)
    assert [stored.key for stored in history.collect().deleted] == [key]


def test_a_young_pack_of_a_long_retired_version_is_kept(history):
    version = history.commit()
    history.retire(version)
    history.wait(GRACE + SECOND)
    key = history.pack()
    assert history.collect().recent.count == 1
    assert history.has(key)


def test_times_that_entries_state_do_not_count(history):
    """They are by the clocks of whoever wrote them: all entries here are dated START."""
    history.wait(100 * DAY)
    version, key = history.save()
    history.retire(version)
    history.wait(GRACE)
    assert history.collect().deleted == ()
    assert history.has(key)


def test_what_has_an_unknown_name_is_left_alone(history):
    strange = ["packs/README", "packs/ab/model.safetensors", "files/x", "other/thing"]
    for key in strange:
        history.storage.create(key, b"mine")
    history.wait(10 * GRACE)
    history.collect()
    assert all(map(history.has, strange))


def test_leftovers_go_once_nobody_can_be_at_work_on_them(history):
    history.save()
    old = Leftover("packs/00/.tmp-0123456789abcdef", None, 7, START)
    history.wait(GRACE + SECOND)
    new = Leftover(pack_key(UUID(int=7), 0), "upload", None, history.storage.now - GRACE)
    unknown = Leftover("packs/00/.tmp-fedcba9876543210", None, 7, None)
    history.storage.left += [old, new, unknown]
    done = history.collect()
    assert done.leftovers == (old,)
    assert done.deleted_bytes == 7
    assert history.storage.left == [new, unknown]


def test_clocks_that_nobody_removed_are_leftovers(history):
    history.save()
    one, two = clock_key(UUID(int=1)), clock_key(UUID(int=2))
    history.storage.create(one, b"x")
    history.storage.create("clock/mine", b"a user's own")
    history.wait(GRACE + SECOND)
    history.storage.create(two, b"x")
    done = history.collect()
    assert [each.key for each in done.leftovers] == [one]
    left = {key for key in history.storage.objects if key.startswith("clock/")}
    assert left == {two, "clock/mine"}


def test_what_others_left_below_the_root_is_theirs(history):
    """A bucket may hold other stores and other people's uploads; a folder their files."""
    history.save()
    history.wait(GRACE + SECOND)
    pack = pack_key(UUID(int=7), 0)
    uploads = ("videos/someone-elses.mp4", f"team2/{pack}", "packs/mine.bin", version_key(RUN, 9))
    theirs = [Leftover(key, "upload", None, START) for key in uploads]
    files = ("data/.tmp-precious.csv", "packs/.tmp-mine", f"team2/{JOURNAL}/.tmp-0123456789abcdef")
    theirs += [Leftover(key, None, 1, START) for key in files]
    own = [
        Leftover(pack, "upload", None, START),
        Leftover(f"{JOURNAL}/.tmp-0123456789abcdef", None, 1, START),
    ]
    history.storage.left += [*theirs, *own]

    done = history.collect()

    assert list(done.leftovers) == own
    assert history.storage.left == theirs


def test_a_dry_run_deletes_nothing_and_says_the_same(history):
    _, kept = history.save()
    key = history.pack()
    history.wait(GRACE + SECOND)
    history.storage.left.append(Leftover("packs/00/.tmp-0123456789abcdef", None, 7, START))
    before = dict(history.storage.objects)

    would = history.collect(dry_run=True)

    assert history.storage.objects == before
    assert len(history.storage.left) == 1
    did = history.collect()
    assert (would.deleted, would.leftovers) == (did.deleted, did.leftovers)
    assert (would.dry_run, did.dry_run) == (True, False)
    assert not history.has(key)
    assert history.has(kept)


def test_deletes_that_fail_are_reported_and_a_rerun_finishes(history):
    keys = [history.pack() for _ in range(3)]
    history.save()
    history.storage.left.append(Leftover("packs/00/.tmp-0123456789abcdef", None, 7, START))
    history.wait(GRACE + SECOND)
    history.storage.stuck = {keys[1], "packs/00/.tmp-0123456789abcdef"}

    done = history.collect()

    assert {stored.key for stored in done.deleted} == {keys[0], keys[2]}
    assert done.failed == {
        keys[1]: f"{keys[1]} is locked",
        "packs/00/.tmp-0123456789abcdef": "packs/00/.tmp-0123456789abcdef is locked",
    }
    assert done.leftovers == ()
    history.storage.stuck = set()
    again = history.collect()
    assert [stored.key for stored in again.deleted] == [keys[1]]
    assert history.storage.left == []
    assert again.failed == {}


def test_progress_is_told(history, monkeypatch):
    monkeypatch.setattr(collection, "DELETE_BATCH", 2)
    history.save()
    for _ in range(3):
        history.pack()
    history.wait(GRACE + SECOND)
    told = []
    history.collect(progress=lambda *step: told.append(step))
    assert told == [
        (2, None, "listing packs"),
        (4, None, "listing packs"),
        (1, 1, "reading"),
        (2, 3, "deleting"),
        (3, 3, "deleting"),
        (3, 3, "deleting"),
    ]


def test_one_that_slept_looks_again_before_it_deletes_more(history, monkeypatch):
    """Should an assumption not hold, what was decided a week ago does no harm today."""
    monkeypatch.setattr(collection, "DELETE_BATCH", 1)
    clocks = ProcessClocks(monkeypatch)
    versions = [history.save() for _ in range(3)]
    history.retire(*(version for version, _ in versions))
    history.wait(GRACE + SECOND)
    asleep = []

    def sleep(doing, _key):
        if doing == "delete" and _key.startswith("packs/") and not asleep:
            asleep.append(True)
            clocks.pass_by(7 * DAY)
            history.undelete(2)  # long after it may be, by some other program

    history.storage.before = sleep
    history.storage.stuck = {versions[2][1]}
    done = history.collect()

    assert [stored.key for stored in done.deleted] == [versions[0][1]]
    assert done.failed.keys() == {versions[2][1]}
    assert history.has(versions[1][1])
    assert done.in_use.count == 1


def second_look(history, monkeypatch, fault):
    """Two packs are garbage; something happens after the first was deleted, for a long time."""
    monkeypatch.setattr(collection, "DELETE_BATCH", 1)
    clocks = ProcessClocks(monkeypatch)
    keys = [history.pack() for _ in range(2)]
    history.save()
    history.wait(GRACE + SECOND)

    def sleep(doing, key):
        if doing == "delete" and key == keys[0]:
            clocks.pass_by(DAY)
            fault()

    history.storage.before = sleep
    return keys


@pytest.mark.parametrize("fault", ["gone", "damaged", "down", "no times"])
def test_one_that_is_refused_at_its_second_look_says_what_was_deleted(history, monkeypatch, fault):
    def walk(*_):
        raise StorageError("the connection broke")

    faults = {
        "gone": lambda: history.storage.objects.pop(version_key(RUN, 1)),
        "damaged": lambda: history.storage.objects.update({version_key(RUN, 1): b"{}"}),
        "down": lambda: monkeypatch.setattr(Bucket, "leftovers", walk),
        "no times": lambda: monkeypatch.setattr(Bucket, "written_at", lambda *_: None),
    }
    keys = second_look(history, monkeypatch, faults[fault])
    if fault == "gone":
        history.save()
    with pytest.raises(CollectionRefusedError) as raised:
        history.collect()
    assert [history.has(key) for key in keys] == [False, True]
    told = str(raised.value)
    assert "1 packs, files and leftovers (8 B) were deleted before" in told
    assert "Nothing was deleted" not in told
    assert "nothing was deleted" not in told


def test_a_catalog_that_fails_at_the_second_look_does_not_hide_what_was_deleted(
    history, monkeypatch
):
    asked = []

    def known():
        asked.append(True)
        if len(asked) > 1:
            raise CatalogError("the database is locked")
        return history.known()

    second_look(history, monkeypatch, lambda: None)
    with pytest.raises(CatalogError) as raised:
        history.collect(known=known)
    assert "(8 B) were deleted before" in raised.value.__notes__[0]


def test_what_cannot_be_deleted_is_tried_once_however_slow_that_is(history, monkeypatch):
    monkeypatch.setattr(collection, "DELETE_BATCH", 1)
    clocks = ProcessClocks(monkeypatch)
    keys = [history.pack() for _ in range(3)]
    history.save()
    history.wait(GRACE + SECOND)
    history.storage.stuck = set(keys)
    history.storage.before = lambda doing, _key: doing == "delete" and clocks.pass_by(DAY)
    assert history.collect().failed.keys() == set(keys)


# ------------------------------------------------------------------------------------ refusing


def refused(history, match, **options):
    """Collect when a version and an orphan are old, see that it is refused and nothing is gone."""
    history.wait(10 * GRACE)
    before = {key for key in history.storage.objects if key.startswith(("packs/", "files/"))}
    assert before
    with pytest.raises(CollectionRefusedError, match=match) as raised:
        history.collect(**options)
    assert "othing was deleted" in str(raised.value)
    assert before <= history.storage.objects.keys()
    return raised.value


@pytest.fixture
def full(history):
    """Three versions, of which the second is retired, and an orphan."""
    for _ in range(3):
        history.save()
    history.retire(2)
    history.pack()
    return history


def test_it_would_collect_were_nothing_wrong(full):
    full.wait(10 * GRACE)
    assert len(full.collect().deleted) == 2


def test_a_place_without_a_store_is_none():
    storage = Bucket()
    with pytest.raises(NotAStoreError):
        collect(storage, single_writer=True, known=dict)
    assert storage.objects == {}


def test_runs_without_a_store_are_refused(full):
    del full.storage.objects[STORE_KEY]
    refused(full, STORE_KEY)


def test_a_damaged_store_is_refused(full):
    full.storage.objects[STORE_KEY] = b"{}"
    refused(full, STORE_KEY)


def test_a_newer_format_beside_is_refused(full):
    full.storage.create(STORE_KEY_NEWER, b"{}")
    refused(full, STORE_KEY_NEWER)


def test_storage_that_keeps_no_two_writers_apart_takes_a_promise(full):
    full.storage.exclusive = False
    full.wait(10 * GRACE)
    with pytest.raises(NotExclusiveError, match="single_writer"):
        full.collect()
    assert len(collect(full.storage, single_writer=True, known=full.known).deleted) == 2


def test_storage_without_times_is_refused(full, monkeypatch):
    monkeypatch.setattr(Bucket, "written_at", lambda *_: None)
    refused(full, "does not say when")


@pytest.mark.parametrize("prefix", ["packs/", "runs/digits/_journal"])
def test_an_object_without_a_time_is_refused(full, monkeypatch, prefix):
    real = Bucket.walk

    def walk(storage, folder):
        for stored in real(storage, folder):
            yield stored._replace(written_at=None) if stored.key.startswith(prefix) else stored

    times = Bucket.written_at
    monkeypatch.setattr(Bucket, "walk", walk)
    monkeypatch.setattr(
        Bucket,
        "written_at",
        lambda self, key: None if key.startswith(prefix) else times(self, key),
    )
    refused(full, "does not say when")


@pytest.mark.parametrize("folder", ["packs", "files", "runs", "clock"])
def test_a_listing_that_fails_is_refused(full, folder):
    def fail(doing, key):
        if (doing, key) == ("walk", folder):
            raise StorageError("the connection broke")

    full.storage.before = fail
    refused(full, "the connection broke")


def test_leftovers_that_cannot_be_listed_are_refused(full):
    def fail(doing, _key):
        if doing == "leftovers":
            raise StorageError("the connection broke")

    full.storage.before = fail
    refused(full, "the connection broke")


def test_a_manifest_that_cannot_be_read_is_refused(full):
    def fail(_doing, key):
        if key == version_key(RUN, 2):
            raise StorageError("the connection broke")

    full.storage.before = fail
    refused(full, "the connection broke")


def hide(monkeypatch, is_hidden):
    real = Bucket.walk
    monkeypatch.setattr(
        Bucket,
        "walk",
        lambda self, folder: (each for each in real(self, folder) if not is_hidden(each.key)),
    )


@pytest.mark.parametrize("known", [None, dict], ids=["by the catalog", "without it"])
@pytest.mark.parametrize(
    "is_hidden",
    [
        lambda key: key.startswith("runs/"),
        lambda key: key.startswith("runs/") and key >= version_key(RUN, 2),
        lambda key: key == version_key(RUN, 3),
        lambda key: key == journal_key(RUN, 1),
    ],
    ids=["all runs", "from the second on", "the last version", "the journal"],
)
def test_a_short_listing_is_refused(full, monkeypatch, is_hidden, known):
    hide(monkeypatch, is_hidden)
    refused(full, "the listing lacks", known=known)


def test_what_a_listing_left_out_in_the_middle_is_asked_for(full, monkeypatch):
    hide(monkeypatch, lambda key: key == version_key(RUN, 1))
    full.wait(10 * GRACE)
    assert len(full.collect().deleted) == 2


def test_a_run_that_only_the_catalog_knows_is_refused(full):
    refused(
        full, r"catalog knows runs/gone/_versions/00000004.*reindex", known=lambda: {"gone": (4, 0)}
    )


def test_a_journal_entry_that_only_the_catalog_knows_is_refused(full):
    refused(full, "catalog knows runs/digits/_journal/00000002", known=lambda: {RUN: (3, 2)})


def test_a_missing_manifest_is_refused(full):
    del full.storage.objects[version_key(RUN, 1)]
    refused(full, "00000001.jsonl is missing.*copy_to")


def test_a_missing_journal_entry_is_refused(full):
    full.retire(1)
    del full.storage.objects[journal_key(RUN, 1)]
    refused(full, "00000001.json is missing")


@pytest.mark.parametrize("key", [version_key(RUN, 10**7), journal_key(RUN, 10**7)])
def test_a_stray_number_is_refused_at_once(full, key):
    full.storage.create(key, b"")
    refused(full, "numbered up to 10000000")


DAMAGE = {
    "flipped": lambda data: b"X" + data[1:],
    "cut short": lambda data: data[: len(data) // 3],
    "empty": lambda _data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_manifest_is_refused_until_it_was_retired_for_the_grace_period(full, damage):
    key = version_key(RUN, 3)
    full.storage.objects[key] = damage(full.storage.objects[key])
    error = refused(full, r"verify\(repair=True\)")
    assert key in str(error)
    full.retire(3, reason="damaged: cut short")
    full.wait(GRACE)
    with pytest.raises(CollectionRefusedError, match="or wait"):
        full.collect()
    full.wait(SECOND)
    assert len(full.collect().deleted) == 3


def test_a_missing_manifest_that_was_retired_long_ago_is_in_nobodys_way(full):
    del full.storage.objects[version_key(RUN, 1)]
    full.retire(1, reason="damaged: gone")
    full.wait(GRACE + SECOND)
    assert len(full.collect().deleted) == 3


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_journal_entry_is_refused(full, damage):
    key = journal_key(RUN, 1)
    full.storage.objects[key] = damage(full.storage.objects[key])
    refused(full, "00000001.json")


def test_what_a_newer_version_made_is_refused(full):
    full.storage.objects[version_key(RUN, 3)] = newer(3)
    refused(full, "newer ckptstore")


def test_a_retired_version_that_a_newer_ckptstore_made_is_refused_too(full):
    full.storage.objects[version_key(RUN, 2)] = newer(2)
    refused(full, "newer ckptstore")


def test_a_manifest_in_anothers_place_is_refused(full):
    full.storage.objects[version_key(RUN, 3)] = full.storage.objects[version_key(RUN, 1)]
    refused(full, "digits@1, in another's place")


def test_a_manifest_in_another_runs_place_is_refused(full):
    full.storage.create(version_key("other", 1), full.storage.objects[version_key(RUN, 1)])
    refused(full, "digits@1, in another's place")


@pytest.mark.parametrize("path", ["Digits", "con", "a b", "x/"])
def test_a_manifest_where_no_run_can_be_is_refused(full, path):
    manifest = full.storage.objects[version_key(RUN, 1)]
    full.storage.create(f"runs/{path}/_versions/00000001.jsonl", manifest)
    refused(full, "can't be a run's path")


def test_a_catalog_that_fails_ends_it(full):
    def fail():
        raise StorageError("the catalog's disk is gone")

    refused(full, "disk is gone", known=fail)


@pytest.mark.parametrize("kind", ["manifest", "entry"])
def test_torn_in_place_is_void(kind):
    history = History(in_place=True)
    _, key = history.save()
    orphan = history.pack()
    torn = version_key(RUN, 2) if kind == "manifest" else journal_key(RUN, 1)
    history.storage.create(torn, b'{"format":1,"requi')
    history.save()
    history.wait(GRACE + SECOND)
    assert [stored.key for stored in history.collect().deleted] == [orphan]
    assert history.has(key)


def test_a_manifest_as_large_as_can_be_is_read_whole(full):
    keys = [full.pack() for _ in range(400)]
    full.commit(*keys)
    full.wait(10 * GRACE)
    full.collect()
    assert len(full.storage.objects[version_key(RUN, 4)]) > 64 * 1024
    assert all(map(full.has, keys))


def test_what_was_done_can_be_written_as_json(full):
    full.wait(10 * GRACE)
    done = full.collect()
    value = json.loads(json.dumps(done.to_json(), allow_nan=False))
    assert value["deleted_bytes"] == 16
    assert [each["key"] for each in value["deleted"]] == [each.key for each in done.deleted]
    assert value["kept"]["in_use"] == {"count": 2, "size_bytes": 16}
