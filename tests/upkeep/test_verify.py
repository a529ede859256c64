"""Whole stores: what is damaged is found and named, what is not is left in peace."""

from __future__ import annotations

import shutil
from dataclasses import replace
from uuid import UUID

import pytest

from ckptstore import Store
from ckptstore.errors import (
    InvalidNameError,
    NewerFormatError,
    NotAStoreError,
    RunNotFoundError,
    StorageError,
    VersionNotFoundError,
)
from ckptstore.format.layout import journal_key, pack_key
from ckptstore.format.store_facts import decode_store, encode_store
from tests.catalog.places import newer
from tests.faults import Failing, store_on
from tests.loading.forging import manifest_of, packs_of
from tests.upkeep.checking import check, filled, flip, kinds, only, retired, snapshot, state


def test_a_whole_store_is_whole_on_any_storage(store_url):
    store = filled(store_url)
    store.tag("digits@1", "prod")

    report = check(store)

    assert report.ok
    assert report.findings == ()
    assert (report.runs, report.versions, report.journal_entries, report.packs) == (1, 3, 1, 3)
    assert report.bytes_read == 3 * (4096 + 12_014)
    assert not check(store, deep=False).findings


@pytest.fixture
def folder(tmp_path):
    filled(tmp_path / "store").close()
    return tmp_path / "store"


def test_it_changes_nothing_not_even_a_store_that_can_not_be_written(folder):
    flip(packs_of(folder, "digits", 2)[0])
    (folder / "catalog.sqlite3").unlink()
    before = snapshot(folder)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert check(Store(folder)).damaged == ("digits@2",)
        assert snapshot(folder) == before
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("place", [0, 8, 4095, 4096, 9000, -1])
def test_a_flipped_bit_of_a_pack_names_the_version_and_the_pack(folder, place):
    pack = packs_of(folder, "digits", 2)[0]
    flip(pack, place)

    finding = only(check(Store(folder)))

    assert (finding.kind, finding.severity, finding.ref) == ("pack", "damage", "digits@2")
    assert finding.key == str(pack.relative_to(folder))
    said = "tensor 'model/" if place in {4096, 9000, -1} else "does not begin as it was saved"
    assert said in finding.message


def test_a_shallow_check_finds_what_sizes_and_headers_tell(folder):
    flip(packs_of(folder, "digits", 1)[0], 9000)
    flip(packs_of(folder, "digits", 2)[0], 30)
    pack = packs_of(folder, "digits", 3)[0]
    pack.write_bytes(pack.read_bytes()[:-1])

    report = check(Store(folder), deep=False)

    assert kinds(report) == [("damage", "pack", "digits@2"), ("damage", "pack", "digits@3")]
    assert "should have 16110 bytes, and has 16109" in report.findings[1].message
    assert report.bytes_read == 2 * 4096


def test_a_pack_that_is_gone_is_damage(folder):
    packs_of(folder, "digits", 3)[0].unlink()

    finding = only(check(Store(folder)))

    assert (finding.kind, finding.ref) == ("pack", "digits@3")
    assert "is gone" in finding.message


def test_two_packs_swapped_are_found(folder):
    one, other = (packs_of(folder, "digits", number)[0] for number in (1, 3))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)

    assert check(Store(folder)).damaged == ("digits@1", "digits@3")


def test_a_pickle_in_the_place_of_a_pack_runs_no_code(folder, tmp_path):
    marker = tmp_path / "ran"
    program = b"cbuiltins\nopen\n(V" + str(marker).encode() + b"\nVw\ntR."
    pack = packs_of(folder, "digits", 1)[0]
    pack.write_bytes(program.ljust(pack.stat().st_size, b"\0"))

    assert "does not begin as it was saved" in only(check(Store(folder))).message
    assert not marker.exists()


def test_a_flipped_bit_anywhere_in_a_manifest_is_found(folder):
    path = manifest_of(folder, "digits", 2)
    size, store = path.stat().st_size, Store(folder)
    harmless = [at for at, byte in enumerate(path.read_bytes()) if byte == ord("\n")][2:]
    for at in range(3, size, 31):
        flip(path, at)
        report = check(store, deep=False)
        flip(path, at)
        assert at in harmless or "digits@2" in report.damaged, f"byte {at}"


def test_a_manifest_cut_short_is_damage(folder):
    path = manifest_of(folder, "digits", 2)
    data = path.read_bytes()
    for length in (0, 1, data.index(b"\n") + 30, len(data) - 2):
        path.write_bytes(data[:length])
        assert check(Store(folder), deep=False).damaged == ("digits@2",), length


def test_bytes_after_a_manifest_are_worth_a_note(folder):
    path = manifest_of(folder, "digits", 2)
    path.write_bytes(path.read_bytes() + b"\n")

    report = check(Store(folder))

    assert report.ok
    assert kinds(report) == [("note", "manifest", "digits@2")]


def test_a_manifest_in_another_ones_place_is_damage(folder):
    shutil.copy(manifest_of(folder, "digits", 1), manifest_of(folder, "digits", 2))

    findings = check(Store(folder)).findings

    assert ("manifest", "digits@2") in {(each.kind, each.ref) for each in findings}
    assert "is the manifest of digits@1" in findings[0].message


def test_damage_hides_no_other_damage(folder):
    flip(packs_of(folder, "digits", 1)[0])
    flip(manifest_of(folder, "digits", 2), 100)
    packs_of(folder, "digits", 3)[0].unlink()

    assert check(Store(folder)).damaged[:3] == ("digits@1", "digits@2", "digits@3")


def test_a_torn_file_where_files_are_written_in_place_is_none(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    store.close()
    (folder / "catalog.sqlite3").unlink()
    path = folder / "ckptstore.json"
    facts = decode_store(path.read_bytes(), "a test")
    path.write_bytes(encode_store(replace(facts, in_place=True)))
    for torn in (manifest_of(folder, "digits", 2), folder / journal_key("digits", 1)):
        torn.write_bytes(torn.read_bytes()[:50])

    report = check(Store(folder))

    assert report.ok
    assert kinds(report)[:2] == [("note", "void", "digits"), ("note", "void", "digits@2")]
    assert {each.kind for each in report.findings[2:]} == {"orphan"}  # the torn version's packs


def test_a_version_of_a_newer_ckptstore_is_left_alone(folder):
    path = manifest_of(folder, "digits", 4)
    path.write_bytes(newer(4))

    report = check(Store(folder))

    assert report.ok
    assert kinds(report) == [("note", "newer", "digits@4")]


def test_a_store_of_a_newer_ckptstore_is_not_checked(folder):
    (folder / "ckptstore.json").rename(folder / "ckptstore-2.json")

    with pytest.raises(NewerFormatError):
        check(Store(folder))


def test_where_there_is_no_store_it_says_so(tmp_path):
    with pytest.raises(NotAStoreError):
        check(Store(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("harm", ["gone", "flipped"])
def test_a_damaged_store_file_is_damage_and_the_rest_is_checked(folder, harm):
    if harm == "gone":
        (folder / "ckptstore.json").unlink()
    else:
        flip(folder / "ckptstore.json", 10)
    flip(packs_of(folder, "digits", 2)[0])

    report = check(Store(folder))

    assert kinds(report) == [("damage", "pack", "digits@2"), ("damage", "store", None)]


# ---------------------------------------------------------------- some of it


def test_one_version_one_run_or_several_are_checked_alone(folder):
    store = Store(folder)
    store.save(state(8), run="sweep/a", rng=False)
    store.save(state(9), run="sweep/b", rng=False)
    for run, number in (("digits", 1), ("digits", 3), ("sweep/b", 1)):
        flip(packs_of(folder, run, number)[0])
    (folder / "packs" / "stray.txt").write_text("not ours")

    assert check(store, "digits@2").ok
    assert check(store, "digits@2").versions == 1
    assert check(store, "digits@3").damaged == ("digits@3",)
    assert check(store, "DIGITS").damaged == ("digits@1", "digits@3")
    assert check(store, "sweep/*").damaged == ("sweep/b@1",)
    assert check(store, "sweep/*").runs == 2
    assert check(store, "sweep/a").findings == ()
    assert check(Store(folder), "digits@latest").damaged == ("digits@3",)
    assert len(check(store).findings) == 4


def test_a_ref_may_leave_the_only_run_out(folder):
    assert check(Store(folder), 2).versions == 1
    assert check(Store(folder), "@latest").versions == 1


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("other", RunNotFoundError),
        ("other@1", RunNotFoundError),
        ("oth*", RunNotFoundError),
        ("digits@4", VersionNotFoundError),
        ("digits@prod", VersionNotFoundError),
        ("a//b", InvalidNameError),
    ],
)
def test_what_is_not_there_can_not_be_checked(folder, ref, error):
    with pytest.raises(error):
        check(Store(folder), ref)


# ---------------------------------------------------------------- how it reads


def test_a_pack_that_several_versions_share_is_read_once(tmp_path):
    storage = Failing(Store(tmp_path / "store")._storage)
    store = store_on(storage)
    first = store.save(state(1), run="digits", rng=False)
    for _ in range(3):
        store.save(state(1), run="digits", rng=False)
    assert store.latest().new_bytes < first.new_bytes
    storage.rest()

    report = check(store)

    pieces = [key for operation, key in storage.done if operation == "read_into"]
    assert report.versions == 4
    assert len(pieces) == 2 * report.packs  # its header, and its data
    assert len(set(pieces)) == report.packs


def test_progress_counts_up_to_all_bytes(folder):
    told = []

    check(Store(folder), progress=lambda *facts: told.append(facts))

    done, total, _ = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] == 3 * 16_110
    assert len(set(total)) == 1


def test_a_storage_that_fails_is_no_damage(folder):
    store = Store(folder)
    count = Failing(store._storage)
    check(store_on(count))
    for at in range(1, len(count.done) + 1):
        with pytest.raises(StorageError):
            check(store_on(Failing(store._storage, at)))


def test_a_bad_sector_is_damage_of_the_file_on_it_alone(folder):
    store = Store(folder)
    bad = str(packs_of(folder, "digits", 2)[0].relative_to(folder))

    class Failed(Failing):
        def do(self, operation, key, work):
            if key == bad and operation == "read_into":
                error = StorageError("the device failed")
                error.errno = 5
                raise error
            return super().do(operation, key, work)

    finding = only(check(store_on(Failed(store._storage))))

    assert finding.ref == "digits@2"
    assert "can't be read: the device failed" in finding.message


# ---------------------------------------------------------------- what is not damage


def test_retired_versions_may_be_collected_without_a_word(folder):
    store = Store(folder)
    retired(store, 1)
    packs_of(folder, "digits", 1)[0].unlink()

    assert check(store).findings == ()


def test_damage_of_a_retired_version_is_worth_a_note(folder):
    store = Store(folder)
    retired(store, 1)
    flip(packs_of(folder, "digits", 1)[0])

    report = check(store)

    assert report.ok
    assert kinds(report) == [("note", "pack", "digits@1")]


def test_a_version_that_is_collected_during_the_check_is_no_damage(folder):
    store = Store(folder)
    pack = packs_of(folder, "digits", 1)[0]

    class Collected(Failing):
        def walk(self, folder):
            if folder == "packs" and pack.exists():
                retired(store, 1)
                pack.unlink()
            return super().walk(folder)

    assert check(store_on(Collected(store._storage))).findings == ()
    assert not pack.exists()


def test_what_another_process_saves_during_the_check_is_no_damage(tmp_path):
    other = filled(tmp_path)

    def work(*_: object) -> None:
        if done:
            return
        done.append(True)
        other.save(state(7), run="digits", rng=False)
        other.tag("digits@4", "prod")
        other.save(state(8), run="new", rng=False)
        other.tag("new@1", "prod")

    done: list[bool] = []

    report = check(Store(tmp_path), progress=work)

    assert done
    assert report.ok
    assert report.findings == ()


def test_a_pack_that_a_listing_lacks_is_not_gone(folder):
    pack = packs_of(folder, "digits", 2)[0]

    class Short(Failing):
        def walk(self, folder):
            return (each for each in super().walk(folder) if not each.key.endswith(pack.name))

    assert check(store_on(Short(Store(folder)._storage))).findings == ()


def test_a_link_that_leads_to_itself_is_damage_of_that_file_alone(folder):
    pack = packs_of(folder, "digits", 2)[0]
    pack.unlink()
    pack.symlink_to(pack.name)
    flip(packs_of(folder, "digits", 3)[0])

    report = check(Store(folder))

    assert kinds(report)[:2] == [("damage", "pack", "digits@2"), ("damage", "pack", "digits@3")]
    assert "can't be read" in report.findings[0].message
    assert {(each.severity, each.kind) for each in report.findings[2:]} == {("note", "unknown")}
    assert check(Store(folder), "digits@2").damaged == ("digits@2",)


def test_a_newer_store_file_beside_this_ones_is_noted(folder):
    (folder / "ckptstore-2.json").write_text("{}")

    finding = only(check(Store(folder)))

    assert (finding.kind, finding.severity, finding.key) == ("newer", "note", "ckptstore-2.json")


@pytest.mark.parametrize("harm", ["missing", "damaged", "newer"])
def test_data_of_a_version_whose_manifest_is_lost_are_not_called_garbage(folder, harm):
    path = manifest_of(folder, "digits", 2)
    path.unlink()
    if harm == "damaged":
        path.write_bytes(b"noise")
    elif harm == "newer":
        path.write_bytes(newer(2))

    (orphan,) = [each for each in check(Store(folder)).findings if each.kind == "orphan"]

    assert "It may well belong to digits@2 (its manifest" in orphan.message
    assert "leave it" in orphan.message


def test_a_damaged_journal_entry_that_the_catalog_has_is_said_to_be_there(folder):
    store = Store(folder)
    store.tag("digits@1", "prod")
    flip(folder / journal_key("digits", 1), 50)

    assert "This machine's catalog has it as it was: delete" in only(check(store)).message

    (folder / "catalog.sqlite3").unlink()
    assert "This machine's catalog has it" not in only(check(Store(folder))).message


def test_what_belongs_to_nobody_is_noted(folder):
    version = manifest_of(folder, "digits", 3)
    version.unlink()
    (folder / "catalog.sqlite3").unlink()
    pack = min((folder / "packs").rglob("*.safetensors"))
    (pack.parent / ".tmp-0123456789abcdef").write_bytes(b"half a pack")
    (pack.parent / "notes.txt").write_text("ours")
    (version.parent / "0004.jsonl").write_text("misnamed")

    report = check(Store(folder))

    assert report.ok
    assert [each.kind for each in report.findings] == ["leftover", "orphan", "unknown", "unknown"]
    assert "16.1 kB, written 20" in report.findings[1].message
    assert report.findings[0].key.endswith("/.tmp-0123456789abcdef")


def test_an_interrupted_upload_is_noted(s3_url, s3_client):
    store = filled(s3_url, 1)
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    key = pack_key(UUID(store.latest(run="digits").save_id), 7)
    s3_client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{key}")

    finding = only(check(store))

    assert (finding.kind, finding.key) == ("leftover", key)


def test_damage_in_a_bucket_is_found(s3_url, s3_client):
    store = filled(s3_url)
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    head = store.get("digits@2").head
    one, other = (
        f"{prefix}/{pack_key(store.get(f'digits@{number}').head.packs[0].save_id, 0)}"
        for number in (1, 3)
    )
    s3_client.delete_object(
        Bucket=bucket, Key=f"{prefix}/{pack_key(head.packs[0].save_id, head.packs[0].number)}"
    )
    first, second = (
        s3_client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in (one, other)
    )
    s3_client.put_object(Bucket=bucket, Key=one, Body=second)
    s3_client.put_object(Bucket=bucket, Key=other, Body=first)

    assert check(store).damaged == ("digits@1", "digits@2", "digits@3")
