"""What a folder does after it could not be synced, which no later success may hide."""

from __future__ import annotations

import pytest

from ckptstore.errors import DurabilityError
from ckptstore.storage import durable
from ckptstore.storage.local import LocalStorage


def test_no_name_comes_after_one_in_doubt_before_that_is_sure(tmp_path, monkeypatch):
    storage = LocalStorage(tmp_path / "store")
    storage.create("a/0", b"the folder and its name are sure")
    sync, failing, seen = durable.sync_folder, [True], []

    def sync_folder(folder):
        seen.append(sorted(path.name for path in folder.iterdir() if path.name.isdigit()))
        if failing.pop():
            raise DurabilityError("the device failed")
        failing.append(False)
        sync(folder)

    monkeypatch.setattr(durable, "sync_folder", sync_folder)
    with pytest.raises(DurabilityError):
        storage.create("a/1", b"in doubt")
    failing.append(False)
    storage.create("a/2", b"after it")
    storage.create("a/3", b"after that")

    first, *later = seen
    assert first == ["0", "1"]
    assert later == [["0", "1"], ["0", "1", "2"], ["0", "1", "2", "3"]]
