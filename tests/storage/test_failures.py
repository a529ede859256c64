"""Errors of the system, in our words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ckptstore.errors import ArgumentError, DurabilityError, StorageError
from ckptstore.storage.failures import (
    check_key,
    check_keys,
    durability_error,
    is_full,
    not_found,
    storage_error,
    translated,
)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "EIO", "EMFILE"])
def test_a_failure_names_the_place_the_cause_and_the_way_out(name):
    code = getattr(errno, name)

    failure = storage_error("write", "/store/x", OSError(code, os.strerror(code)))

    assert failure.errno == code
    assert str(failure).startswith("cannot write /store/x: ")
    assert f"({name}); " in str(failure)


def test_no_room_is_told_from_other_failures():
    assert is_full(storage_error("write", "/x", OSError(errno.ENOSPC, "no")))
    assert is_full(durability_error("/x", OSError(errno.EDQUOT, "no")))
    assert not is_full(storage_error("write", "/x", OSError(errno.EIO, "no")))
    assert not is_full(StorageError("the connection broke"))


def test_a_failure_nobody_foresaw_keeps_what_the_system_said():
    failure = storage_error("read", "/x", OSError(errno.EL2HLT, "Level 2 halted"))

    assert "Level 2 halted (EL2HLT)" in str(failure)


def test_a_failed_fsync_is_a_storage_error_of_its_own_kind():
    failure = durability_error("/x", OSError(errno.EIO, "Input/output error"))

    assert isinstance(failure, DurabilityError)
    assert failure.errno == errno.EIO


def test_what_is_not_there_is_named():
    error = not_found("/x/y")

    assert isinstance(error, FileNotFoundError)
    assert error.errno == errno.ENOENT
    assert "/x/y" in str(error)


def test_errors_are_translated_but_for_the_one_callers_tell_apart():
    with pytest.raises(StorageError, match="cannot open"), translated("open", Path("x")):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(FileExistsError), translated("open", Path("x")):
        raise FileExistsError(errno.EEXIST, "there")
    with pytest.raises(StorageError, match="went away"), translated("open", Path("x")):
        raise FileNotFoundError(errno.ENOENT, "gone")
    with pytest.raises(FileNotFoundError), translated("open", Path("x"), FileNotFoundError):
        raise FileNotFoundError(errno.ENOENT, "gone")


@pytest.mark.parametrize("key", ["..", "a/..", "./a", "/a", "a/", "a//b", "a\\b", "a\0"])
def test_a_key_that_could_lead_elsewhere_is_refused(key):
    with pytest.raises(ArgumentError):
        check_key(key)


def test_a_key_below_the_root_is_taken():
    assert (
        check_key("runs/lr=0.1/_versions/00000001.jsonl") == "runs/lr=0.1/_versions/00000001.jsonl"
    )
    assert check_key("") == ""


def test_keys_of_objects_are_each_named_once_and_refused_together():
    assert check_keys(["b", "a", "b"]) == ["b", "a"]
    for key in ("", "../a", "a/"):
        with pytest.raises(ArgumentError):
            check_keys(["a", key])
