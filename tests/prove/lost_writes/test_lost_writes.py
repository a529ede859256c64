"""The power fails after any operation: what was saved is there, and nothing is half there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptstore.format.layout import STORE_KEY
from ckptstore.storage import durable
from tests.prove.lost_writes.checking import PUBLISHING, ViolationError, check_states
from tests.prove.lost_writes.disk import Disk, Link, Make, Sync, Unlink, Write
from tests.prove.lost_writes.recording import (
    Recorded,
    record,
    saving,
    saving_in_the_background,
    tagging,
)
from tests.prove.lost_writes.scenarios import SAVES, clean_up_and_lose, fail_and_lose, lose

STEPS = {
    "link": (saving(1), saving(2, tags=["last"])),
    "rename": (saving(1),),
    "in place": (saving(1), tagging("prod", 1)),
    "in the background": (saving_in_the_background(1), saving_in_the_background(2, 3)),
}


@pytest.mark.parametrize("how", STEPS)
def test_a_power_loss_takes_nothing_that_was_saved(tmp_path, how):
    published = how if how in PUBLISHING else "link"
    figures = lose(tmp_path, published, STEPS[how], limit=3, every=2)

    assert figures.operations > 12
    assert figures.states > figures.operations
    assert figures.loads > figures.operations


@pytest.mark.parametrize(("how", "every"), [("link", 3), ("in place", 7)])
def test_a_power_loss_while_cleaning_up_takes_nothing_that_is_live(tmp_path, how, every):
    figures = clean_up_and_lose(tmp_path, how, limit=2, every=every)

    assert figures.operations > 50 / every
    assert figures.states > figures.operations


def test_the_proof_notices_data_that_go_before_the_retirement_is_sure(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "sync_folder", without("sync_folder"))

    with pytest.raises(ViolationError, match=r"(?s)after .*left:"):
        clean_up_and_lose(tmp_path, "link", limit=2)


@pytest.mark.parametrize("failing", range(1, 23, 5))
def test_a_failed_fsync_and_then_a_power_loss_take_nothing_that_was_saved(tmp_path, failing):
    recorded, figures = fail_and_lose(tmp_path, SAVES, failing, limit=3, every=1000)

    assert recorded.failed == 1 or is_trial(recorded), "an fsync failed, and nobody said so"
    assert figures.states > 0


def is_trial(recorded: Recorded) -> bool:
    """Say whether what could not be synced is the second ``ckptstore.json``, which must fail."""
    (failed,) = [each.path for each in recorded.operations if getattr(each, "failed", False)]
    linked = [each for each in recorded.operations if getattr(each, "to", "").endswith(STORE_KEY)]
    return failed.startswith("store/.tmp-") and failed not in [each.path for each in linked]


def without(name: str) -> Callable[..., None]:
    """Leave out an fsync of ckptstore's, as a careless change might."""

    def nothing(*_: Any, **__: Any) -> None:
        assert name

    return nothing


@pytest.mark.parametrize("name", ["sync_file", "sync_folder"])
def test_the_proof_notices_an_fsync_that_is_missing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(durable, name, without(name))

    with pytest.raises(ViolationError, match=r"(?s)after .*left:"):
        lose(tmp_path, "link", SAVES[:1], limit=4)


def test_the_proof_notices_a_result_that_comes_before_all_is_sure(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "sync_folder", without("sync_folder"))

    with pytest.raises(ViolationError, match=r"(?s)after .*left:"):
        lose(tmp_path, "link", [saving_in_the_background(1)], limit=4)


def test_the_proof_notices_a_name_that_comes_before_its_bytes_are_sure(tmp_path, monkeypatch):
    real, late = durable.sync_file, []

    def later(fd: int, _: Path) -> None:
        late.append(os.dup(fd))

    def link_first(source: Path, target: Path) -> bool:
        os.link(source, target)
        while late:
            real(fd := late.pop(), target)
            os.close(fd)
        return True

    monkeypatch.setattr(durable, "sync_file", later)
    monkeypatch.setattr(durable, "link", link_first)
    (tmp_path / "disk").mkdir()
    recorded = record(tmp_path / "disk", SAVES[:1])

    with pytest.raises(ViolationError):
        check_states(recorded, tmp_path / "left", limit=8)


# ------------------------------------------------------------ the model


def left(*operations: Any) -> list[dict[str, bytes | None]]:
    disk = Disk()
    for operation in operations:
        disk.do(operation)
    return list(disk.states(limit=1000))


def test_a_file_that_was_not_synced_may_be_torn_zeroed_or_empty():
    states = left(Make("f", folder=False), Sync(""), Write("f", b"abcdef"))

    assert {state["f"] for state in states} >= {b"", b"a", b"abc", b"abcde", b"abcdef", bytes(6)}


def test_a_name_in_a_folder_that_was_not_synced_may_be_there_or_not():
    made = [Make("f", folder=False), Write("f", b"x"), Sync("f"), Link("f", "g")]

    assert left(*made) == [{"f": b"x", "g": b"x"}, {"f": b"x"}, {"g": b"x"}, {}]
    assert left(*made, Sync("")) == [{"f": b"x", "g": b"x"}]
    assert left(*made, Sync(""), Unlink("f")) == [{"g": b"x"}, {"f": b"x", "g": b"x"}]


def test_a_folder_without_a_sure_name_takes_what_is_in_it_along():
    states = left(
        Make("d", folder=True),
        Make("d/f", folder=False),
        Write("d/f", b"x"),
        Sync("d/f"),
        Sync("d"),
    )

    assert states == [{"d": None, "d/f": b"x"}, {}]


def test_a_failed_fsync_loses_bytes_for_good_and_names_until_the_next():
    states = left(
        Make("f", folder=False),
        Write("f", b"xy"),
        Sync("f", failed=True),
        Sync("f"),
        Sync("", failed=True),
    )
    assert {} in states
    assert {"f": b""} in states

    assert {"f": b""} in left(
        Make("f", folder=False), Write("f", b"xy"), Sync("f", failed=True), Sync("f"), Sync("")
    )


def test_a_sample_holds_the_most_and_the_least_and_is_the_same_every_time():
    made = [each for n in range(9) for each in (Make(f"f{n}", folder=False), Sync(f"f{n}"))]
    disk = Disk()
    for operation in made:
        disk.do(operation)
    sample = list(disk.states(limit=40))

    assert len(sample) <= 40
    assert {} in sample
    assert {f"f{n}": b"" for n in range(9)} in sample
    assert sample == list(disk.states(limit=40))
