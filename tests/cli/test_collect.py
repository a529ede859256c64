from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from ckptstore import Store
from ckptstore.format.journal import RetireEntry
from ckptstore.format.layout import STORE_KEY
from ckptstore.format.store_facts import decode_store, encode_store
from tests.loading.forging import packs_of


def filled(folder):
    """A store with a live version and one that was just retired."""
    with Store(folder) as store:
        for value in range(2):
            store.save(extra=[value], model={"w": value_of(value)}, run="digits", rng=False)
        store._writer("digits").append(
            lambda _facts, now, writer: RetireEntry({1: "old"}, now, writer)
        )
    return folder


def without_grace(folder):
    """Take a store's grace period away, so that nobody has to wait for a week."""
    file = folder / STORE_KEY
    facts = decode_store(file.read_bytes(), STORE_KEY)
    file.chmod(0o600)
    file.write_bytes(encode_store(replace(facts, grace_s=0)))
    time.sleep(0.05)  # until the disk's clock, which ticks every few milliseconds, has moved on


def value_of(value):
    import torch

    return torch.full((1000,), float(value))


@pytest.fixture
def folder(tmp_path):
    """A retired version that has waited for its grace period, and a live one."""
    filled(tmp_path / "store")
    without_grace(tmp_path / "store")
    return tmp_path / "store"


def test_what_is_not_needed_is_deleted_and_bytes_are_told(typed, folder):
    (gone,), (kept,) = packs_of(folder, "digits", 1), packs_of(folder, "digits", 2)

    would = typed("collect", folder, "--dry-run")

    assert (would.exit_code, would.stderr) == (0, "")
    assert would.stdout.splitlines()[0] == "would delete 8.1 kB: 1 pack or file and 0 leftovers"
    assert gone.exists()
    done = typed("collect", folder)
    assert done.stdout.splitlines() == [
        "deleted 8.1 kB: 1 pack or file and 0 leftovers",
        "kept 8.1 kB: 1 pack or file needed by versions",
    ]
    assert (gone.exists(), kept.exists()) == (False, True)


def test_json_is_one_object_in_one_line(typed, folder):
    done = typed("collect", folder, "--json")
    (line,) = done.stdout.splitlines()
    value = json.loads(line)
    assert value["deleted_bytes"] == 8096
    assert (value["dry_run"], value["failed"]) == (False, {})


def test_what_waits_is_kept(typed, tmp_path):
    done = typed("collect", filled(tmp_path))
    assert "deleted 0 B" in done.stdout
    assert "retired less than 7 days ago" in done.stdout


def test_what_can_not_be_told_ends_with_1_and_says_why(typed, folder):
    (folder / "runs" / "digits" / "_journal" / "00000001.json").unlink()
    done = typed("collect", folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Nothing was deleted" in done.stderr
    assert packs_of(folder, "digits", 1)[0].exists()


def test_what_could_not_be_deleted_ends_with_1(typed, folder, tmp_path):
    (pack,) = packs_of(folder, "digits", 1)
    elsewhere = tmp_path / "elsewhere"
    pack.parent.rename(elsewhere)
    pack.parent.symlink_to(elsewhere)

    done = typed("collect", folder)

    assert done.exit_code == 1
    assert "could not delete 1; collecting again tries again:" in done.stdout
    assert "symbolic link" in done.stdout


def test_no_store_is_said(typed, tmp_path):
    done = typed("collect", tmp_path)
    assert done.exit_code == 1
    assert "holds no store" in done.stderr
    assert list(tmp_path.iterdir()) == []
