from __future__ import annotations

import json
import os

import pytest

from ckptstore import Cache
from ckptstore.storage.cache import LAYOUT
from ckptstore.storage.copies import Copies
from tests.cli.conftest import EVIL


@pytest.fixture
def folder(tmp_path):
    for url, key, length in (("s3://b/one", "packs/1", 3000), ("s3://b/" + EVIL, "packs/2", 5)):
        copies = Copies(Cache(tmp_path), url)
        with copies.add(key, length) as new:
            new.write(memoryview(bytes(length)))
            new.commit()
        os.utime(copies.path(key), (1_700_000_000, 1_700_000_000))
    return tmp_path


def test_what_a_cache_has_is_shown_by_store(typed, folder):
    done = typed("cache", folder)

    header, evil, one = done.stdout.splitlines()
    assert header.split() == ["store", "files", "size", "last", "used", "(UTC)"]
    assert one.split() == ["s3://b/one", "1", "3.0", "kB", "2023-11-14", "22:13"]
    assert evil.startswith(r"s3://b/\x1b[31m[red]<script>\u202e ")
    assert "\x1b" not in done.stdout


def test_what_a_cache_has_is_printed_as_json(typed, folder):
    lines = [json.loads(line) for line in typed("cache", folder, "--json").stdout.splitlines()]

    assert lines[1] == {
        "url": "s3://b/one",
        "files": 1,
        "size_bytes": 3000,
        "used_at": "2023-11-14T22:13:20+00:00",
    }


def test_a_cache_is_cleared(typed, folder):
    assert typed("cache", folder, "--clear").stdout == "3.0 kB cleared.\n"
    assert typed("cache", folder).stdout == f"No copies in {folder}.\n"
    assert json.loads(typed("cache", folder, "--clear", "--json").stdout) == {"cleared_bytes": 0}


@pytest.mark.parametrize("name", ["none", "file"])
def test_of_a_folder_that_is_not_there_it_is_said(typed, tmp_path, name):
    (tmp_path / "file").touch()

    assert "there is no such folder" in typed("cache", tmp_path / name).stdout
    assert typed("cache", tmp_path / "none", "--json").stdout == ""


def test_the_folder_of_another_user_is_left_alone(typed, folder):
    (folder / LAYOUT).chmod(0o777)

    done = typed("cache", folder, "--clear")

    assert done.exit_code == 1
    assert "others can write to it" in done.stderr


def test_an_address_is_no_cache(typed):
    done = typed("cache", "s3://bucket/prefix")

    assert done.exit_code == 2
    assert "a cache is a folder of this machine" in done.stderr
