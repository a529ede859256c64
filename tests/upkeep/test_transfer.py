"""Copies between stores: whole, bit for bit, once each, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

import pytest
import torch
from safetensors.torch import load_file

from ckptstore import Keep, Store
from ckptstore.errors import (
    ArgumentError,
    CopyWarning,
    IntegrityError,
    InvalidNameError,
    NotAStoreError,
    NotExclusiveError,
    RetiredError,
    RunNotFoundError,
    RunWarning,
    VersionNotFoundError,
)
from ckptstore.format.digest import digest
from ckptstore.format.layout import file_key, pack_key
from ckptstore.upkeep import transfer
from tests.loading import forging
from tests.upkeep.copies import data_bytes, facts, filled, is_indexed_rightly, origins, same, state

REFS = ["digits@1", "digits@2", "digits@3", "digits@4"]


@pytest.fixture
def here(tmp_path):
    return filled(tmp_path / "here")


@pytest.fixture
def there(tmp_path):
    return Store(tmp_path / "there")


# ------------------------------------------------------------------------------ all comes along


def test_a_copy_on_any_storage_and_back_is_the_same_bit_for_bit(here, store_url, tmp_path):
    with Store(store_url, catalog="sqlite://") as middle:
        copied = here.copy_to(middle)
        back = Store(tmp_path / "back")
        middle.copy_to(back)

        assert copied.copied == [(ref, ref) for ref in REFS]
        for ref in REFS:
            assert facts(here, ref) == facts(middle, ref) == facts(back, ref)
        for part in ("model", "optimizer", "rng", "extra"):
            saved = here.get("digits@2").state(part)
            assert same(saved, middle.get("digits@2").state(part))
            assert same(saved, back.get("digits@2").state(part))
        assert back.best().ref == "digits@3"
        assert middle.verify().ok
        assert back.verify().ok
        assert is_indexed_rightly(middle)
        assert is_indexed_rightly(back)


def test_a_copy_resumes_and_predicts_as_the_original(here, there):
    here.copy_to(there)
    module = torch.nn.Linear(5, 4)
    optimizer = torch.optim.AdamW(module.parameters())
    assert there.resume(module, optimizer, run="digits").next_epoch == 4
    assert torch.equal(module.weight, here.load_latest(torch.nn.Linear, device="cpu").weight)
    sample = [0.1, 0.2, 0.3, 0.4, 0.5]
    first, second = (s.load_package(torch.nn.Linear, device="cpu") for s in (here, there))
    assert first.predict_proba([sample]).tolist() == second.predict_proba([sample]).tolist()


def test_a_copy_says_of_what_it_is_one(here, there):
    here.copy_to(there)
    original, copy = here.get("digits@2").head, there.get("digits@2").head
    assert copy.save_id != original.save_id
    assert copy.copied_from.version.save_id == original.save_id
    assert copy.copied_from.store_id == here._catalog._facts().store_id
    assert copy.copied_from.copied_at > original.created_at
    assert copy.copied_from.parent == original.parent


def test_parents_are_the_copies_of_parents(here, there):
    here.save({"w": torch.ones(3)}, run="fork", parent="digits@2", rng=False)
    here.save({"w": torch.ones(3)}, run="a-fork", parent="fork@1", rng=False)
    here.copy_to(there)
    assert [there.get(ref).parent for ref in (*REFS, "fork@1", "a-fork@1")] == [
        None,
        "digits@1",
        "digits@2",
        "digits@3",
        "digits@2",
        "fork@1",
    ]
    assert there.get("a-fork@1").head.parent.save_id == there.get("fork@1").head.save_id
    children = there._catalog.children("digits")[2]
    assert [(each.run, str(each.save_id)) for each in children] == [
        ("fork", there.get("fork@1").save_id)
    ]


def test_a_parent_that_was_not_copied_is_told_by_the_copy_alone(here, there):
    here.copy_to(there, ref="digits@2")
    copy = there.get("digits@1")
    assert copy.parent is None
    assert copy.head.copied_from.parent.version == 1
    here.copy_to(there)
    assert there.get("digits@3").epoch == 3
    assert there.get("digits@3").parent == "digits@1"


def test_shared_bytes_stay_shared(here, there):
    copied = here.copy_to(there)
    assert data_bytes(there) <= 1.05 * data_bytes(here)
    assert [each.bytes_shared > 0 for each in copied.versions] == [False, True, True, True]
    assert copied.bytes_written == data_bytes(there)
    assert there.get("digits@4").new_bytes == 0


def test_a_fork_shares_with_its_parent_in_the_other_store(here, there):
    here.save(extra=state(1), run="fork", parent="digits@1", rng=False)
    here.copy_to(there)
    assert data_bytes(there) <= 1.05 * data_bytes(here)


def test_names_in_packs_stay_so_that_a_model_is_a_file_for_others(here, there):
    here.copy_to(there)
    names = [
        sorted(
            name for pack in forging.packs_of(store.url, "digits", 1) for name in load_file(pack)
        )
        for store in (here, there)
    ]
    assert names[0] == names[1]
    assert "weight" in names[0]


def test_tensors_in_several_chunks_stay_so(here, there):
    def cut(head, parts):
        tensor = parts["extra"]["tensors"][1]
        chunk = tensor["chunks"][0]
        path = Path(here.url) / pack_key(UUID(head["save"]), head["packs"][chunk["pack"]]["number"])
        data = path.read_bytes()[chunk["start"] : chunk["start"] + chunk["length"]]
        tensor["chunks"] = [
            chunk
            | {"start": chunk["start"] + at * 8, "length": size * 8}
            | {"offsets": [at], "shape": [size], "blake3": digest(data[at * 8 : (at + size) * 8])}
            for at, size in ((0, 100), (100, 8900))
        ]

    forging.forge(here.url, "digits", cut)
    fresh = Store(here.url, catalog="sqlite://")
    fresh.copy_to(there)
    assert len(facts(there, "digits@1")["chunks"]) == len(facts(there, "digits@2")["chunks"]) + 1
    assert facts(there, "digits@1") == facts(fresh, "digits@1")
    assert same(fresh.get("digits@1").state("extra"), there.get("digits@1").state("extra"))
    assert there.verify().ok


def test_opaque_files_come_along(here, there):
    save, data = UUID(int=77), b"an export" * 1000
    path = Path(here.url) / file_key(save, 3)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)

    def name(head, _):
        head["files"] = [
            {"save": str(save), "number": 3, "size_bytes": len(data), "blake3": digest(data)}
        ]

    forging.forge(here.url, "digits", name)
    Store(here.url, catalog="sqlite://").copy_to(there)
    (file,) = there.get("digits@1").head.files
    assert there._storage.read(file_key(file.save_id, file.number)) == data
    assert file.save_id == there.get("digits@1").head.save_id


# ------------------------------------------------------------------------------ what is chosen


def test_runs_versions_and_all_of_a_store_can_be_chosen(here, tmp_path):
    for run in ("sweep/a", "sweep/b"):
        here.save({"w": torch.ones(3)}, run=run, rng=False)

    def runs(**options):
        target = Store(tmp_path / str(len(list(tmp_path.iterdir()))))
        here.copy_to(target, **options)
        return target.runs()

    assert runs() == ["digits", "sweep/a", "sweep/b"]
    assert runs(run="sweep/*") == ["sweep/a", "sweep/b"]
    assert runs(run=["digits", "sweep/b"]) == ["digits", "sweep/b"]
    assert runs(ref="digits@best") == ["digits"]
    assert runs(ref=["digits@2", "digits@3"], run="sweep/a") == ["digits", "sweep/a"]


def test_a_run_may_have_another_name_there(here, there):
    copied = here.copy_to(there, run="digits", into="old/Digits")
    assert copied.copied[0] == ("digits@1", "old/Digits@1")
    assert there.get("old/Digits@2").parent == "old/Digits@1"
    assert here.copy_to(there, run="digits", into="old/Digits").copied == []
    assert here.copy_to(there).copied == [(ref, ref) for ref in REFS]


def test_into_is_for_one_run(here, there):
    here.save({"w": torch.ones(3)}, run="other", rng=False)
    with pytest.raises(ArgumentError, match=r"into='x' gives one run another name, and 2"):
        here.copy_to(there, into="x")
    with pytest.raises(InvalidNameError):
        here.copy_to(there, run="digits", into="../x")


def test_what_is_not_there_is_named(here, there, tmp_path):
    with pytest.raises(RunNotFoundError, match="has no run 'x'"):
        here.copy_to(there, run="x")
    with pytest.raises(VersionNotFoundError, match="no version 9"):
        here.copy_to(there, ref="digits@9")
    with pytest.raises(NotAStoreError):
        Store(tmp_path / "nothing").copy_to(there)
    assert not (tmp_path / "there").exists()
    assert not (tmp_path / "nothing").exists()


def test_a_store_is_not_copied_into_itself(here, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for other in (here, str(tmp_path / "here"), str(tmp_path / "link")):
        with pytest.raises(ArgumentError, match="can't be copied into itself"):
            here.copy_to(other)


def test_a_run_that_is_spelled_otherwise_there_is_refused(here, there):
    there.save({"w": torch.ones(1)}, run="Digits", rng=False)
    with pytest.raises(InvalidNameError, match="'Digits'"):
        here.copy_to(there)


def test_storage_that_cannot_keep_writers_apart_must_be_trusted(here, there):
    there._storage.exclusive = False
    with pytest.raises(NotExclusiveError):
        here.copy_to(there)
    trusting = Store(there.url, single_writer=True)
    trusting._storage.exclusive = False
    assert len(here.copy_to(trusting).copied) == 4


def test_another_store_may_be_named_by_its_address(here, tmp_path):
    assert len(here.copy_to(tmp_path / "there").copied) == 4
    assert len(Store(tmp_path / "there").history()) == 4


# ------------------------------------------------------------------------------ once each


def test_copied_again_nothing_is_copied_but_what_is_new(here, there):
    here.copy_to(there)
    again = here.copy_to(there)
    assert (again.copied, again.entries, again.bytes_written) == ([], 0, 0)
    assert again.there == [(ref, ref) for ref in REFS]
    here.save(extra=state(9), run="digits", rng=False)
    assert here.copy_to(there).copied == [("digits@5", "digits@5")]
    assert there.get("digits@5").parent == "digits@3"


def test_copied_back_nothing_is_there_twice(here, there, tmp_path):
    third = Store(tmp_path / "third")
    here.copy_to(there)
    there.copy_to(third)
    for source, target in ((there, here), (third, here), (here, third), (third, there)):
        assert source.copy_to(target).copied == []
    assert origins(here) == origins(there) == origins(third)


def test_what_was_renamed_is_known_where_it_came_from(here, there):
    here.copy_to(there, run="digits", into="archive")
    assert there.copy_to(here).there == [(f"archive@{n}", f"digits@{n}") for n in range(1, 5)]
    assert here.runs() == ["digits"]


def test_a_plain_copy_of_all_files_counts_as_there(here, tmp_path):
    shutil.copytree(tmp_path / "here", tmp_path / "plain")
    plain = Store(tmp_path / "plain")
    assert here.copy_to(plain).copied == []
    here.save(extra=state(5), run="digits", rng=False)
    assert here.copy_to(plain).copied == [("digits@5", "digits@5")]


def test_versions_of_both_stores_live_side_by_side(here, there):
    for number in range(2):
        there.save(extra=state(50 + number), run="digits", rng=False)
    there.copy_to(here)
    here.copy_to(there)
    assert sorted(origins(here)) == sorted(origins(there))
    assert len(origins(here)) == 6


def test_what_comes_while_it_is_copied_is_not_copied_twice(here, there, tmp_path, monkeypatch):
    original, raced = transfer.carry, []

    def carry(*args, **options):
        carried = original(*args, **options)
        if not raced:
            raced.append(True)
            Store(here.url, catalog="sqlite://").copy_to(tmp_path / "there", ref="digits@1")
        return carried

    monkeypatch.setattr(transfer, "carry", carry)
    copied = here.copy_to(there)
    assert copied.there == [("digits@1", "digits@1")]
    assert copied.copied == [(ref, ref) for ref in REFS[1:]]
    assert origins(there) == origins(here)


def test_a_copy_is_not_what_a_training_goes_on_from(here, there):
    here.copy_to(there)
    fresh = Store(there.url)
    here.save(extra=state(9), run="digits", rng=False)
    here.copy_to(fresh)
    with pytest.warns(RunWarning, match="neither resumed nor created"):
        saved = fresh.save({"w": torch.ones(2)}, run="digits", rng=False)
    assert (saved.version, saved.parent) == (6, None)


# ------------------------------------------------------------------------------ retired, damaged


def test_retired_versions_are_left_and_said(here, there):
    here.prune(Keep(last=1), run="digits")
    copied = here.copy_to(there)
    assert copied.retired == ("digits@1", "digits@2")
    assert copied.copied == [("digits@3", "digits@1"), ("digits@4", "digits@2")]
    assert there.get("digits@2").parent == "digits@1"
    with pytest.raises(RetiredError, match=r"digits@1 was retired"):
        here.copy_to(there, ref="digits@1")


def test_what_was_retired_there_stays_retired(here, there):
    here.copy_to(there)
    there.prune(Keep(last=1), run="digits")
    assert here.copy_to(there).copied == []
    assert there.get("digits@1").retired


def test_damage_is_named_and_the_rest_is_copied(here, there):
    flip(forging.packs_of(here.url, "digits", 2)[-1])
    with pytest.raises(
        IntegrityError, match=r"1 version\(s\) were not copied.*\n  - digits@2: "
    ) as e:
        here.copy_to(there)
    assert "3 copied" in str(e.value)
    assert e.value.ref == "digits@2"
    assert here._catalog.is_passed_over(here.get("digits@2").head.save_id)
    assert [there.get(f"digits@{n}").epoch for n in (1, 2, 3)] == [1, 3, 3]
    assert there.verify().ok


def test_what_a_failure_leaves_is_said_though_the_rest_is_copied(here, there, monkeypatch):
    """An upload that could not be aborted is noted on what it was that failed: passed on then."""
    real = transfer.carry

    def carry(opened, *args, **options):
        if opened.head.version == 2:
            error = IntegrityError("it can't be read")
            error.add_note("an upload is left")
            raise error
        return real(opened, *args, **options)

    monkeypatch.setattr(transfer, "carry", carry)
    with pytest.raises(IntegrityError, match="1 version") as caught:
        here.copy_to(there)

    assert caught.value.__notes__ == ["an upload is left"]
    assert len(there.history()) == 3


def test_what_a_failure_leaves_is_warned_of_where_nothing_is_raised(here, there, monkeypatch):
    def carry(*_, **__):
        here.prune(Keep(last=1), run="digits")
        error = IntegrityError("it was collected")
        error.add_note("an upload is left")
        raise error

    monkeypatch.setattr(transfer, "carry", carry)
    with pytest.warns(CopyWarning, match="an upload is left"):
        here.copy_to(there, ref="digits@1")


def test_what_is_known_to_be_damaged_is_not_read(here, there):
    flip(forging.packs_of(here.url, "digits", 2)[-1])
    here.verify(repair=True)
    with pytest.raises(IntegrityError, match=r"digits@2: "):
        here.copy_to(there)
    assert len(there.history()) == 3


def test_an_unreadable_manifest_is_named_and_the_rest_is_copied(here, there):
    forging.manifest_of(here.url, "digits", 2).chmod(0o600)
    flip(forging.manifest_of(here.url, "digits", 2), 10)
    fresh = Store(here.url, catalog="sqlite://")
    with pytest.raises(IntegrityError, match=r"digits@2: .*does not match"):
        fresh.copy_to(there)
    assert len(there.history()) == 3


def test_a_backup_of_what_rots_later_is_no_trouble(here, there):
    here.copy_to(there)
    flip(forging.packs_of(here.url, "digits", 2)[-1])
    here.verify(repair=True)
    assert here.copy_to(there).copied == []


def test_what_rots_there_is_copied_anew_and_brings_back_what_rots_here(here, there):
    here.copy_to(there)
    flip(forging.packs_of(there.url, "digits", 2)[-1])
    there.verify(repair=True)
    assert here.copy_to(there).copied == [("digits@2", "digits@5")]
    assert same(there.get("digits@5").state("extra"), here.get("digits@2").state("extra"))
    assert there.copy_to(here).copied == []


def test_damage_of_the_other_store_is_not_taken_for_damage_of_a_version(here, there):
    here.copy_to(there, ref="digits@1")
    there.save({"w": torch.ones(1)}, run="digits", rng=False, parent="digits@1")
    hole = forging.manifest_of(there.url, "digits", 1)
    hole.unlink()
    with pytest.raises(IntegrityError, match="no manifest of version 1"):
        here.copy_to(Store(there.url, catalog="sqlite://"), ref="digits@2")


def test_a_version_whose_data_are_collected_while_it_is_read_is_retired(here, there, monkeypatch):
    original = transfer.carry

    def carry(opened, *args, **options):
        if opened.head.version == 1:
            other = Store(here.url, catalog="sqlite://")
            other.prune(Keep(last=2), run="digits")
            for pack in forging.packs_of(here.url, "digits", 1):
                pack.rename(pack.with_suffix(".gone"))
            try:
                return original(opened, *args, **options)
            finally:
                for pack in forging.packs_of(here.url, "digits", 1):
                    pack.with_suffix(".gone").rename(pack)
        return original(opened, *args, **options)

    monkeypatch.setattr(transfer, "carry", carry)
    copied = here.copy_to(there)
    assert copied.retired == ("digits@1",)
    assert len(copied.copied) == 3


def flip(path, at=-1):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# ------------------------------------------------------------------------------ progress


def test_progress_comes_to_its_end(here, there):
    told = []
    here.copy_to(there, progress=lambda *args: told.append(args))
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1] == sum(here.get(ref).size_bytes for ref in REFS)
    assert {each[2] for each in told} == set(REFS)


def test_a_version_too_large_for_a_manifest_is_named(here, there, monkeypatch):
    monkeypatch.setattr("ckptstore.upkeep.transfer.MAX_LINE_BYTES", 1000)
    with pytest.raises(IntegrityError, match=r"digits@1: its head would take"):
        here.copy_to(there)
    assert there._storage.list_folder("runs").folders == ()
