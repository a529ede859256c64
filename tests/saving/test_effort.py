"""What a save costs is measured while it goes on."""

from __future__ import annotations

import pytest

from ckptstore.saving.effort import Effort, Meter


def test_a_meter_adds_up_what_it_is_told():
    meter = Meter()
    meter.add(10, 0.5)
    meter.add(20, 0.25)

    assert (meter.size_bytes, meter.seconds) == (30, 0.75)


def test_work_that_failed_is_not_measured():
    meter = Meter()

    with pytest.raises(OSError, match="no"), meter.timing(10):
        raise OSError("no")

    assert meter.size_bytes == 0


def test_an_attempt_begins_from_nothing():
    effort = Effort()
    effort.hashed.add(10, 1.0)

    effort.begin()

    assert effort.timings().hashed_bytes == 0


def test_a_save_is_in_the_background_once_its_caller_goes_on():
    effort = Effort()
    assert not effort.is_in_background
    while_blocked = effort.timings().blocked_s

    effort.let_go()

    assert effort.is_in_background
    assert while_blocked <= effort.timings().blocked_s == effort.timings().blocked_s


def test_a_caller_that_was_held_up_again_was_held_up_for_longer():
    effort = Effort()
    effort.let_go()
    before_s = effort.timings().blocked_s

    effort.waited_s = lambda: 3.0

    assert effort.timings().blocked_s == pytest.approx(before_s + 3.0, abs=1e-5)


def test_timings_say_all_of_it():
    effort = Effort()
    effort.copied_bytes, effort.copied_s = 3, 0.5
    effort.hashed.add(4, 0.25)
    effort.written.add(5, 0.125)

    told = effort.timings()

    assert (told.copied_bytes, told.copied_s) == (3, 0.5)
    assert (told.hashed_bytes, told.hashed_s) == (4, 0.25)
    assert (told.written_bytes, told.written_s) == (5, 0.125)
