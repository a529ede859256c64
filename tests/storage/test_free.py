"""How much room there is."""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

from ckptstore.storage.free import free_bytes


def test_the_room_of_a_folder_is_what_the_system_says(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=42))

    assert free_bytes(str(tmp_path)) == 42


def test_a_folder_that_is_not_there_yet_has_the_room_of_the_one_above(tmp_path):
    assert free_bytes(str(tmp_path / "not" / "yet")) > 0


def test_nobody_can_tell_of_a_bucket():
    assert free_bytes(None) is None


def test_a_system_that_does_not_answer_is_no_failure(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", refuse)

    assert free_bytes(str(tmp_path)) is None
