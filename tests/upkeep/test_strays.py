from __future__ import annotations

from datetime import UTC, datetime

from ckptstore.format.layout import clock_key
from ckptstore.storage.base import Leftover, Stored
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.strays import data_objects, note_leftovers, note_orphans

ID = "01a20d50-6d37-7508-9c7c-582d663fdff7"
PACK, FILE = f"packs/f7/{ID}-0.safetensors", f"files/f7/{ID}-1"
TEMPORARY = "packs/aa/.tmp-0123456789abcdef"
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def put(folder, *keys):
    for key in keys:
        path = folder.joinpath(*key.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")


def test_packs_and_files_are_known_by_their_names_and_the_rest_is_noted(tmp_path):
    others = [f"packs/f8/{ID}-0.safetensors", f"packs/f7/{ID}-0.bin", "files/readme", "packs/x/y/z"]
    put(tmp_path, PACK, FILE, *others)
    found = []

    objects = data_objects(LocalStorage(tmp_path), found.append)

    assert {key: stored.size_bytes for key, stored in objects.items()} == {PACK: 4, FILE: 4}
    assert {each.key for each in found} == set(others)
    assert {(each.kind, each.severity) for each in found} == {("unknown", "note")}


def test_what_no_version_names_is_noted_with_its_age():
    found = []
    objects = [Stored(PACK, 4, WHEN), Stored(FILE, 5_000, None), Stored("named", 1, WHEN)]

    note_orphans(objects, {"named"}, found.append, {})

    assert [(each.kind, each.severity, each.key) for each in found] == [
        ("orphan", "note", PACK),
        ("orphan", "note", FILE),
    ]
    assert "4 B, written 2026-01-02T03:04:05" in found[0].message
    assert "5.0 kB, written at an unknown time" in found[1].message


def test_what_interrupted_writes_left_is_noted(tmp_path):
    class Interrupted(LocalStorage):
        def leftovers(self):
            yield Leftover(TEMPORARY, None, 7, WHEN)
            yield Leftover("data/.tmp-precious.csv", None, 7, WHEN)
            yield Leftover("videos/someone-elses.mp4", "upload-2", None, None)
            yield Leftover(PACK, "upload-1", None, None)

    clock = clock_key(ID)
    put(tmp_path, clock, "clock/mine")
    found = []

    note_leftovers(Interrupted(tmp_path), found.append)

    assert [(each.kind, each.key) for each in found] == [
        ("leftover", TEMPORARY),
        ("leftover", PACK),
        ("leftover", clock),
    ]
    assert found[0].message.startswith("a temporary file, 7 B, written 2026-01-02")
    assert found[1].message.startswith("an unfinished multipart upload, written at an unknown time")
    assert "to read the storage's clock" in found[2].message
