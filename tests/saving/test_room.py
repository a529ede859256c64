"""Room for what is kept is looked for before the first save."""

from __future__ import annotations

import warnings

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import CkptStoreWarning, RoomWarning
from ckptstore.saving import room
from ckptstore.saving.room import still_needed, versions_kept

STATE = {"weight": torch.zeros(250)}  # 1000 bytes


@pytest.fixture
def disk(monkeypatch):
    def has(free):
        monkeypatch.setattr(room, "free_bytes", lambda _: free)

    return has


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(last=3), 4),  # and the best, which always stays
        (Keep(best=2), 3),  # and the newest
        (Keep(last=3, best=2), 5),
        (Keep(last=3, best=2, best_by={"acc": "max", "f1": "max"}), 9),
        (Keep(last=1, best_by={"acc": "max"}), 3),
        (Keep(last=3, every_epochs=10), None),
    ],
)
def test_how_many_versions_a_policy_keeps(keep, kept):
    assert versions_kept(keep.to_json()) == kept


def test_without_a_policy_there_is_no_end_to_it():
    assert versions_kept(None) is None


@pytest.mark.parametrize(
    ("keep", "live", "versions"),
    [
        (None, 0, 2),  # this one and the next
        (None, 50, 2),
        (Keep(last=3), 0, 5),  # four are kept, and the next is written before one goes
        (Keep(last=3), 2, 3),
        (Keep(last=3), 40, 1),
    ],
)
def test_how_much_a_run_still_needs(keep, live, versions):
    assert still_needed(1000, keep and keep.to_json(), live) == versions * 1000


def test_too_little_room_is_told_before_the_first_save_and_stops_nothing(tmp_path, disk):
    run = Store(tmp_path).run("digits", keep=Keep(last=3))
    disk(4999)

    with pytest.warns(RoomWarning) as caught:
        saved = run.save(STATE, rng=False)

    (warning,) = caught
    for part in ("5.0 kB are free", "may soon need 5.0 kB", "up to 4 versions", "Keep(last=…)"):
        assert part in str(warning.message)
    assert saved.ref == "digits@1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.save(STATE, rng=False)  # told once


def test_enough_room_is_not_worth_a_word(tmp_path, disk):
    disk(5000)

    Store(tmp_path).run("digits", keep=Keep(last=3)).save(STATE, rng=False)


def test_the_recorded_policy_and_what_is_there_count(tmp_path, disk):
    first = Store(tmp_path).run("digits", keep=Keep(last=3))
    disk(10**9)
    for epoch in range(2):
        first.save({"weight": torch.rand(250)}, rng=False, epoch=epoch)
    again = Store(tmp_path)
    disk(2999)

    with pytest.warns(CkptStoreWarning) as caught:  # and that it goes on with another's run
        again.save(STATE, run="digits", rng=False)

    (said,) = [str(each.message) for each in caught if each.category is RoomWarning]
    assert "may soon need 3.0 kB" in said
    assert "2 are there" in said


def test_without_a_policy_two_versions_must_fit(tmp_path, disk):
    disk(1999)

    with pytest.warns(RoomWarning, match="nothing bounds how many"):
        Store(tmp_path).save(STATE, rng=False)


def test_of_a_bucket_nobody_knows(memory_url):
    Store(memory_url, single_writer=True).save(STATE, rng=False)
