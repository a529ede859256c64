from __future__ import annotations

from uuid import UUID

import pytest

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.rows import Batch, JournalEntry, Version, damaged
from ckptstore.catalog.sync import LARGEST_BATCH, START_BYTES, Known, RunReader, gathered, walk
from ckptstore.errors import CatalogWarning, IntegrityError, NewerFormatError, StorageError
from ckptstore.format.digest import digest, dump_line
from ckptstore.format.journal import LogEntry, RetireEntry, UndeleteEntry, encode_entry
from ckptstore.format.layout import journal_key, version_key, versions_folder
from ckptstore.format.manifest import PartInfo, encode_head, encode_manifest
from tests.catalog.places import (
    START,
    DictStorage,
    commit,
    found_store,
    make_head,
    newer,
    note,
    rows,
    settings_entry,
    tag_entry,
    versions_of,
)

NOTHING = Known()


def batches(storage, known=NOTHING, *, in_place=False):
    return list(RunReader(storage, "digits", in_place=in_place).batches(known))


def numbers(found: list[Batch]) -> list[tuple[list[int], list[int]]]:
    return [
        ([version.number for version in batch.versions], [entry.number for entry in batch.entries])
        for batch in found
    ]


# ------------------------------------------------------------ the next numbers


def test_sync_with_nothing_new_asks_for_the_last_version_and_the_next_numbers_only(
    storage, catalog
):
    commit(storage, make_head("digits", 1))
    catalog.sync("digits")
    storage.requests.clear()

    catalog.sync("digits")

    assert storage.requests == [
        version_key("digits", 1),
        version_key("digits", 2),
        journal_key("digits", 1),
    ]


def test_nothing_is_found_in_one_request(storage):
    assert batches(storage) == []
    assert storage.requests[1:] == [version_key("digits", 1), journal_key("digits", 1)]


def test_batches_grow_and_come_in_order_without_holes(storage):
    for version in range(1, 101):
        commit(storage, make_head("digits", version))
    note(storage, "digits", 1, tag_entry("prod", 1))
    note(storage, "digits", 2, tag_entry("prod", 2))
    asked = []
    read_many = storage.read_many
    storage.read_many = lambda keys, length: asked.append(len(keys)) or read_many(keys, length)

    found = numbers(batches(storage))

    assert [versions for versions, _ in found] == [
        [1],
        [2, 3, 4, 5],
        list(range(6, 22)),
        list(range(22, 86)),
        list(range(86, 101)),
    ]
    assert [entries for _, entries in found] == [[1], [2], [], [], []]
    assert asked == [2, 4 + 4, 16, LARGEST_BATCH, LARGEST_BATCH]


def test_what_is_known_is_not_asked_for_again(storage):
    for version in range(1, 4):
        commit(storage, make_head("digits", version))
        note(storage, "digits", version, tag_entry("prod", version))
    storage.requests.clear()

    assert numbers(batches(storage, Known(3, 4))) == [([3], [])]
    assert version_key("digits", 2) not in storage.requests
    assert journal_key("digits", 3) not in storage.requests


def test_entries_come_without_versions(storage):
    for number in range(1, 8):
        note(storage, "digits", number, tag_entry("prod", number))

    assert numbers(batches(storage)) == [([], [1]), ([], [2, 3, 4, 5]), ([], [6, 7])]


def test_a_batch_that_is_just_full_is_followed_by_one_more_look(storage):
    for version in range(1, 6):
        commit(storage, make_head("digits", version))

    assert numbers(batches(storage)) == [([1], []), ([2, 3, 4, 5], [])]
    assert version_key("digits", 6) in storage.requests


def test_versions_committed_while_a_batch_is_read_leave_no_hole(storage, catalog):
    heads = {version: make_head("digits", version) for version in range(1, 5)}
    commit(storage, heads[1])
    read_many = storage.read_many

    def racing(keys, length):
        if len(keys) == 8:  # versions 2 to 5 and four journal entries
            found = read_many(keys, length)
            for version in (2, 3, 4):
                commit(storage, heads[version])
            return [found[0], *read_many(keys[1:], length)]
        return read_many(keys, length)

    storage.read_many = racing
    note(storage, "digits", 1, tag_entry("prod", 1))
    catalog.sync("digits")

    assert [record.head for record in catalog.history(["digits"])] == list(heads.values())


def test_a_missing_manifest_before_others_is_damage(storage, catalog):
    for version in (1, 2, 4):
        commit(storage, make_head("digits", version))

    catalog.sync("digits")

    assert "missing" in catalog.version("digits", 3).damage
    assert catalog.next_numbers("digits") == (5, 1)


@pytest.mark.parametrize("first", [2, LARGEST_BATCH + 3])
def test_a_run_whose_first_manifest_is_lost_is_not_invisible(storage, catalog, first):
    head = make_head("digits", first)
    commit(storage, head)

    assert catalog.discover() == ["digits"]

    assert catalog.latest("digits", None).head == head
    assert "missing" in catalog.version("digits", 1).damage
    assert catalog.next_numbers("digits") == (first + 1, 1)


def test_reindexing_finds_what_comes_after_a_wide_hole(storage, catalog):
    commit(storage, make_head("digits", LARGEST_BATCH + 3))

    catalog.reindex(["digits"])

    assert catalog.next_numbers("digits") == (LARGEST_BATCH + 4, 1)


def test_a_run_without_versions_is_listed_once_and_others_never(storage, catalog):
    commit(storage, make_head("full", 1))
    storage.requests.clear()

    for path in ("full", "new", "new"):
        catalog.sync(path)

    assert versions_folder("full") not in storage.requests
    assert storage.requests.count(versions_folder("new")) == 1


def test_a_hole_in_the_journal_is_damage(storage, catalog):
    for number in (1, 2, 4):
        note(storage, "digits", number, tag_entry("prod", number))

    with pytest.raises(IntegrityError, match=journal_key("digits", 3)):
        catalog.sync("digits")


def test_a_hole_that_comes_to_be_is_noticed_by_who_has_looked_for_one(storage, catalog):
    note(storage, "digits", 1, tag_entry("prod", 1))
    catalog.sync("digits")
    for number in (*range(2, 9), 10):
        note(storage, "digits", number, tag_entry("prod", number))

    with pytest.raises(IntegrityError, match=journal_key("digits", 9)):
        catalog.sync("digits")


def test_storage_that_fails_halfway_keeps_what_came_before(storage):
    for version in range(1, 4):
        commit(storage, make_head("digits", version))
    found = RunReader(storage, "digits", in_place=False).batches(Known())

    assert numbers([next(found)]) == [([1], [])]
    storage.is_down = True
    with pytest.raises(StorageError, match="does not answer"):
        next(found)


# ------------------------------------------------------------ whole heads and entries


def test_heads_longer_than_one_request_are_read_whole(storage, catalog):
    config = {"long": "x" * 500_000}
    commit(storage, make_head("digits", 1, config=config))
    note(storage, "digits", 1, settings_entry("acc", "max", config))

    catalog.sync("digits")

    assert catalog.version("digits", 1).head.config == config
    assert catalog.settings("digits").config == config


@pytest.mark.parametrize("beyond", [-1, 0, 1, START_BYTES * 8])
def test_a_head_is_whole_wherever_a_request_would_cut_it(storage, beyond):
    bare = len(encode_head(make_head("digits", 1, config={"long": ""})))
    head = make_head("digits", 1, config={"long": "x" * (START_BYTES - bare + beyond)})
    line = commit(storage, head)
    assert len(line) == START_BYTES + beyond

    (batch,) = batches(storage)

    assert [version.columns["head"] for version in batch.versions] == [line.decode()]


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_an_entry_is_whole_wherever_a_request_would_cut_it(storage, beyond):
    bare = len(encode_entry(settings_entry("acc", "max", "")))
    entry = settings_entry("acc", "max", "x" * (START_BYTES - bare + beyond))
    note(storage, "digits", 1, entry)

    (batch,) = batches(storage)

    assert batch.entries == [JournalEntry(1, entry, encode_entry(entry).decode())]


# ------------------------------------------------------------ manifests that are no versions


def harmed(version, harm):
    whole = encode_manifest(make_head("digits", version), [b"{}"])
    return {
        "empty": b"",
        "torn": whole[:100],
        "torn in the digest": whole[: whole.index(b"\n") + 20],
        "flipped": whole.replace(b'"epoch":', b'"epoch": '),
        "not ours": b"\x80\x04pickle\n" + b"x" * 100,
        "of another run": encode_manifest(make_head("other", version), [b"{}"]),
        "of another version": encode_manifest(make_head("digits", version + 1), [b"{}"]),
        "deep": _sealed(b'{"a":' * 300 + b"1" + b"}" * 300),
        "without fields": _sealed(b'{"format":1,"requires":[]}'),
        "of endless size": encode_manifest(
            make_head(
                "digits",
                version,
                parts=[PartInfo(name, "module", 2**62, 2, "0" * 64) for name in "ab"],
            ),
            [b"{}", b"{}"],
        ),
    }[harm]


def _sealed(line):
    return line + b"\n" + dump_line(digest(line)) + b"\n{}\n"


HARMS = (
    "empty",
    "torn",
    "torn in the digest",
    "flipped",
    "not ours",
    "of another run",
    "of another version",
    "deep",
    "without fields",
    "of endless size",
)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_manifest_has_a_row_that_says_why(storage, catalog, harm):
    commit(storage, make_head("digits", 1))
    storage.create(version_key("digits", 2), harmed(2, harm))
    commit(storage, make_head("digits", 3, metrics={}))

    catalog.sync("digits")

    record = catalog.version("digits", 2)
    assert record.head is None
    assert version_key("digits", 2) in record.damage
    assert versions_of(catalog.history(["digits"], kind="checkpoint")) == [1, 2, 3]
    assert versions_of(catalog.newest_first("digits", "checkpoint")) == [3, 2, 1]
    assert catalog.best(["digits"], "val_loss", "min").version == 1
    assert catalog.next_numbers("digits") == (4, 1)


def test_a_torn_manifest_is_damage_where_whole_files_are_created_and_void_elsewhere(storage):
    storage.create(version_key("digits", 1), encode_head(make_head("digits", 1)))

    assert [version.kind for version in batches(storage)[0].versions] == ["damaged"]
    assert batches(storage, in_place=True)[0].versions == [Version(1, "void")]


@pytest.fixture
def in_place():
    place = DictStorage("bucket://in-place")
    found_store(place, in_place=True)
    return place


def test_a_torn_manifest_created_in_place_is_no_version_and_spends_its_number(in_place):
    catalog = Catalog("sqlite://", in_place)
    in_place.create(version_key("digits", 1), b"")
    catalog.sync("digits")
    assert catalog.discover() == []
    commit(in_place, make_head("digits", 2))
    in_place.create(version_key("digits", 3), encode_head(make_head("digits", 3)))
    catalog.sync("digits")

    assert versions_of(catalog.history(["digits"])) == [2]
    assert versions_of(catalog.newest_first("digits", None)) == [2]
    assert catalog.version("digits", 3) is None
    assert catalog.best(["digits"], "val_loss", "min").version == 2
    assert catalog.next_numbers("digits") == (4, 1)
    catalog.close()


def test_damage_is_damage_on_storage_that_creates_in_place_too(in_place):
    catalog = Catalog("sqlite://", in_place)
    in_place.create(version_key("digits", 2 - 1), harmed(1, "flipped"))
    catalog.sync("digits")

    assert catalog.latest("digits", None).damage
    catalog.close()


def test_a_manifest_seen_while_it_was_written_is_a_version_once_it_is_whole(in_place):
    catalog = Catalog("sqlite://", in_place)
    whole = encode_manifest(make_head("Digits", 1), [b"{}"])
    entry_key, entry = journal_key("digits", 1), DictStorage()
    note(entry, "digits", 1, tag_entry("prod", 1))
    in_place.create(version_key("digits", 1), whole[:50])
    in_place.create(entry_key, entry.objects[entry_key][:50])
    note(in_place, "digits", 2, tag_entry("test", 1))
    catalog.sync("digits")
    assert catalog.facts("digits").tags == {"test": 1}
    in_place.objects[version_key("digits", 1)] = whole
    in_place.objects[entry_key] = entry.objects[entry_key]
    catalog.sync("digits")

    assert catalog.latest("digits", None).tags == ("prod", "test")
    assert catalog.run_name("digits") == "Digits"
    assert catalog.next_numbers("digits") == (2, 3)
    fresh = Catalog("sqlite://", in_place)
    fresh.sync("digits")
    assert rows(fresh) == rows(catalog)
    fresh.close()
    catalog.close()


def test_what_is_not_settled_is_looked_at_again_and_told_only_once_it_is(storage):
    storage.create(version_key("digits", 1), b"")
    storage.create(journal_key("digits", 1), b"{")
    known = Known(
        3,
        2,
        newer=[(2, newer(2).partition(b"\n")[0].decode())],
        unread={1: None},
        void_entries=[1],
    )
    assert batches(storage, known, in_place=True) == []

    del storage.objects[version_key("digits", 1)], storage.objects[journal_key("digits", 1)]
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, tag_entry("prod", 1))

    assert numbers(batches(storage, known, in_place=True)) == [([1], [1])]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_manifest_that_is_brought_back_is_a_version_again(storage, catalog, harm, version):
    for number in (1, 2, 3):
        commit(storage, make_head(("Digits", "digits", "DIGITS")[number - 1], number))
    whole = storage.objects[version_key("digits", version)]
    storage.objects[version_key("digits", version)] = harmed(version, harm)
    catalog.sync("digits")
    assert catalog.version("digits", version).damage
    storage.objects[version_key("digits", version)] = whole

    catalog.sync("digits")

    assert catalog.version("digits", version).head.version == version
    assert rows(catalog) == rows_anew(storage)


def rows_anew(storage):
    fresh = Catalog("sqlite://", storage)
    fresh.sync("digits")
    found = rows(fresh)
    fresh.close()
    return found


def test_a_missing_manifest_that_is_brought_back_is_a_version_again(storage, catalog):
    for number in (1, 3):
        commit(storage, make_head("digits", number))
    catalog.sync("digits")
    assert catalog.version("digits", 2).damage
    commit(storage, make_head("digits", 2))

    catalog.sync("digits")

    assert versions_of(catalog.newest_first("digits", "checkpoint")) == [3, 2, 1]
    assert rows(catalog) == rows_anew(storage)


def test_damage_that_becomes_another_is_told_anew(storage, catalog):
    keys = [version_key("digits", number) for number in (1, 2, 3)]
    for number, key in enumerate(keys, 1):
        storage.objects[key] = harmed(number, "flipped")
    catalog.sync("digits")
    storage.objects[keys[0]] = harmed(1, "torn")
    del storage.objects[keys[1]]
    storage.objects[keys[2]] = newer(3)

    catalog.sync("digits")

    assert "cut short" in catalog.version("digits", 1).damage
    assert "missing" in catalog.version("digits", 2).damage
    assert rows(catalog) == rows_anew(storage)


def test_the_number_of_a_damaged_manifest_stays_spent_when_the_file_is_gone(storage, catalog):
    commit(storage, make_head("digits", 1))
    storage.objects[version_key("digits", 2)] = b"no manifest"
    catalog.sync("digits")
    del storage.objects[version_key("digits", 2)]

    catalog.sync("digits")

    assert catalog.next_numbers("digits") == (3, 1)
    assert catalog.version("digits", 2).damage


def test_what_was_recorded_of_a_damaged_version_holds_once_it_is_back(storage, catalog):
    for number in (1, 2):
        commit(storage, make_head("digits", number))
    whole = storage.objects[version_key("digits", 2)]
    storage.objects[version_key("digits", 2)] = b"no manifest"
    signed = (START, UUID(int=7))
    note(storage, "digits", 1, RetireEntry({2: "damaged"}, *signed))
    note(storage, "digits", 2, LogEntry(2, None, None, {"acc": 1}, *signed))
    catalog.sync("digits")
    storage.objects[version_key("digits", 2)] = whole

    catalog.sync("digits")
    assert catalog.version("digits", 2).facts.retired.reason == "damaged"
    assert catalog.best(["digits"], "val_loss", "min").version == 1
    note(storage, "digits", 3, UndeleteEntry((2,), *signed))
    catalog.sync("digits")

    assert catalog.best(["digits"], "val_loss", "min").version == 2
    assert catalog.best(["digits"], "acc", "max").version == 2
    assert rows(catalog) == rows_anew(storage)


def test_many_damaged_manifests_are_looked_at_again_a_batch_at_a_time(storage, catalog):
    for number in range(1, LARGEST_BATCH + 3):
        storage.objects[version_key("digits", number)] = b"no manifest"
    catalog.sync("digits")
    asked = []
    read_many = storage.read_many
    storage.read_many = lambda keys, length: asked.append(len(keys)) or read_many(keys, length)

    catalog.sync("digits")

    assert asked == [LARGEST_BATCH, 2, 2]


# ------------------------------------------------------------ the journal


@pytest.mark.parametrize("harm", ["torn", "flipped", "no utf-8"])
def test_a_damaged_journal_entry_is_named_and_the_rows_stay(storage, catalog, harm):
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, tag_entry("prod", 1))
    catalog.sync("digits")
    before = rows(catalog)
    note(storage, "digits", 2, tag_entry("prod", None))
    key = journal_key("digits", 2)
    data = storage.objects[key]
    storage.objects[key] = {
        "torn": data[:-9],
        "flipped": data.replace(b"prod", b"prud"),
        "no utf-8": b"\xff\xfe",
    }[harm]

    with pytest.raises(IntegrityError, match=f"bucket://place/{key}"):
        catalog.sync("digits")

    assert rows(catalog) == before


def test_a_journal_entry_of_a_newer_ckptstore_is_refused(storage, catalog):
    entry = b'{"format":2,"requires":[]'
    storage.create(
        journal_key("digits", 1), entry + b',"blake3":"' + digest(entry).encode() + b'"}\n'
    )

    with pytest.raises(NewerFormatError, match="newer ckptstore"):
        catalog.sync("digits")


def test_a_torn_entry_is_void_only_where_files_are_created_in_place(storage):
    note(storage, "digits", 1, tag_entry("prod", 1))
    storage.objects[journal_key("digits", 1)] = storage.objects[journal_key("digits", 1)][:-1]

    assert batches(storage, in_place=True)[0].entries == [JournalEntry(1)]
    with pytest.raises(IntegrityError, match="restore that file from a copy"):
        batches(storage)


# ------------------------------------------------------------ walking


def test_discover_finds_nested_runs_and_leaves_the_rest_alone(storage, catalog):
    for run in ("digits", "Sweep", "Sweep/lr=0.1", "a/b/c"):
        commit(storage, make_head(run, 1))
    note(storage, "noted", 1, tag_entry("prod", 1))
    storage.objects["runs/empty/_versions/readme.txt"] = b""
    storage.objects["runs/.trash/_versions/00000001.jsonl"] = b""
    storage.objects["runs/UPPER/_versions/00000001.jsonl"] = b""

    assert catalog.discover() == ["a/b/c", "digits", "noted", "sweep", "sweep/lr=0.1"]
    assert catalog.run_name("sweep") == "Sweep"
    assert catalog.run_name("noted") is None


def test_walk_finds_what_has_versions_or_a_journal_and_can_be_a_run():
    storage = DictStorage()
    for key in (
        version_key("b", 1),
        journal_key("a/b/c", 1),
        version_key("a/b", 1),
        "runs/a/readme.txt",
        "runs/_versions/00000001.jsonl",
        "runs/Upper/_versions/00000001.jsonl",
        "runs/nul/_versions/00000001.jsonl",
        "runs/.hidden/deep/_versions/00000001.jsonl",
        "runs/no one/_versions/00000001.jsonl",
        "packs/00/_versions/00000001.jsonl",
    ):
        storage.objects[key] = b""

    assert walk(storage) == ["a/b", "a/b/c", "b"]


def test_walk_lists_each_folder_once_and_no_manifests():
    storage = DictStorage()
    commit(storage, make_head("a/b", 1))
    storage.requests.clear()

    assert walk(storage) == ["a/b"]
    assert sorted(storage.requests) == ["runs", "runs/a", "runs/a/b"]


def test_walk_raises_where_a_listing_fails():
    storage = DictStorage()
    storage.is_down = True

    with pytest.raises(StorageError):
        walk(storage)


# ------------------------------------------------------------ many runs


def test_runs_that_did_not_change_are_asked_for_in_one_go(storage, catalog):
    for run in ("a", "b", "c"):
        commit(storage, make_head(run, 1))
    catalog.discover()
    commit(storage, make_head("b", 2))
    note(storage, "c", 1, tag_entry("prod", 1))
    asked = []
    really = storage.read_many
    storage.read_many = lambda keys, length: asked.append(keys) or really(keys, length)

    assert catalog.discover() == ["a", "b", "c"]

    assert len(asked[0]) == 9
    assert not any("runs/a/" in key for keys in asked[1:] for key in keys)
    assert catalog.next_numbers("b") == (3, 1)
    assert catalog.facts("c").tags == {"prod": 1}


@pytest.mark.parametrize("look", [lambda one: one.discover(), lambda one: one.sync("digits")])
def test_a_run_that_was_replaced_is_no_unchanged_one(storage, catalog, look):
    commit(storage, make_head("digits", 1, epoch=1))
    catalog.discover()
    del storage.objects[version_key("digits", 1)]
    commit(storage, make_head("digits", 1, epoch=7))

    with pytest.warns(CatalogWarning, match="indexed anew"):
        look(catalog)

    assert catalog.version("digits", 1).head.epoch == 7


def test_what_was_read_before_a_failure_is_gathered():
    def failing():
        yield Batch([damaged(1, "so")])
        yield Batch([damaged(2, "so")])
        raise StorageError("gone")

    found = gathered(failing())

    assert [each.number for each in next(found).versions] == [1, 2]
    with pytest.raises(StorageError, match="gone"):
        next(found)


def test_batches_are_gathered_to_transactions(monkeypatch):
    monkeypatch.setattr("ckptstore.catalog.sync.TRANSACTION", 2)
    found = gathered(Batch([damaged(number, "so")]) for number in (1, 2, 3))

    assert [[one.number for one in each.versions] for each in found] == [[1, 2], [3]]
