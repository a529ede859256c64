"""Opaque files through upkeep: checked, copied, shared, indexed, and collected as packs are."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import IntegrityError
from ckptstore.format.layout import file_key
from ckptstore.saving import checkpoint as saving
from ckptstore.saving.files import NewFile
from ckptstore.upkeep import collection
from tests.catalog.places import rows

CONTENT = {1: b"a program" * 1000, 2: b"a program" * 1000, 3: b"another" * 1000}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Three versions: the first two share a program, the third has another; none is traced."""
    store = Store(tmp_path / "here", run="digits", catalog=f"sqlite:///{tmp_path}/here.sqlite3")
    for number, content in CONTENT.items():
        new = NewFile("program", "model", [content])
        monkeypatch.setattr(saving, "program_file", lambda *_, new=new: new)
        model = torch.nn.Sequential(torch.nn.Linear(3, 2))
        store.save(model, epoch=number, program=torch.ones(1), rng=False)
    return store


def files(store):
    return sorted(each.key for each in store._storage.walk("files"))


def contents(store, ref):
    entry = store.get(ref)
    return [(file.role, file.part, bytes(entry.read_file(file))) for file in entry.files]


def path_of(store, ref):
    (file,) = store.get(ref).files
    return Path(store._storage.local_folder) / file_key(file.save_id, file.number)


def test_a_shared_file_is_there_once(store):
    assert len(files(store)) == 2
    assert [contents(store, f"digits@{number}")[0][2] for number in CONTENT] == [*CONTENT.values()]


@pytest.mark.parametrize("deep", [True, False])
def test_each_file_is_checked_once_and_damage_is_told_of_all_that_share_it(store, deep):
    whole = store.verify(deep=deep)
    assert whole.ok
    assert whole.packs == 3 + 2

    path = path_of(store, "digits@1")
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    report = Store(store.url, catalog="sqlite://").verify(deep=deep)
    assert report.damaged == (("digits@1", "digits@2") if deep else ())


def test_a_copy_has_the_files_and_shares_them_too(store, tmp_path):
    there = Store(tmp_path / "there", catalog="sqlite://")
    copied = store.copy_to(there)
    assert len(files(there)) == 2
    for number in CONTENT:
        assert contents(there, f"digits@{number}") == contents(store, f"digits@{number}")
    first, second, _ = copied.versions
    size = len(CONTENT[1])
    assert first.bytes_written > size > second.bytes_written
    assert second.bytes_shared >= size
    assert there.verify().ok


def test_an_index_made_anew_says_the_same(store, tmp_path):
    fresh = Store(store.url, catalog=f"sqlite:///{tmp_path}/fresh.sqlite3")
    fresh.reindex()
    assert rows(fresh._catalog) == rows(store._catalog)
    assert [entry.size_bytes for entry in fresh.history()] == [
        sum(info.size_bytes for info in entry.head.parts) + entry.files[0].size_bytes
        for entry in store.history()
    ]


def test_what_only_retired_versions_name_is_collected(store, monkeypatch):
    monkeypatch.setattr(collection, "storage_now", _in_months(collection.storage_now))
    store.prune(Keep(last=2), run="digits")
    store.collect()
    assert len(files(store)) == 2, "a live version shares it"
    store.prune(Keep(last=1), run="digits")
    kept = path_of(store, "digits@3")
    store.collect()
    assert [Path(store._storage.local_folder) / key for key in files(store)] == [kept]
    assert contents(store, "digits@3") == [("program", "model", CONTENT[3])]


def test_a_version_whose_file_is_gone_is_not_undeleted(store):
    store.prune(Keep(last=1), run="digits")
    assert contents(store, "digits@3")
    path_of(store, "digits@2").unlink()
    with pytest.raises(IntegrityError, match="files/"):
        store.undelete("digits@2")


def _in_months(now):
    return lambda *args: now(*args) + timedelta(days=90)
