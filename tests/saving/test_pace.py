"""How long a save will take."""

from __future__ import annotations

import pytest

from ckptstore.saving.pace import ASSUMED_BYTES_PER_S, LEAST_S, MARGIN, REMEMBERED, Pace

GB = 10**9


def test_what_nobody_measured_is_assumed_to_be_slow():
    assert Pace().estimate_s(GB) == LEAST_S + MARGIN * GB / ASSUMED_BYTES_PER_S


def test_the_slowest_of_the_last_saves_counts():
    pace = Pace([(GB, 2.0), (GB, 5.0), (GB, 3.0)])

    assert pace.estimate_s(GB) == LEAST_S + MARGIN * 5
    assert pace.estimate_s(2 * GB) == LEAST_S + MARGIN * 10


def test_what_was_long_ago_is_forgotten():
    pace = Pace([(GB, 50.0)])
    for _ in range(REMEMBERED):
        pace.add(GB, 1.0)

    assert pace.estimate_s(GB) == LEAST_S + MARGIN


def test_a_small_save_says_nothing_of_large_ones():
    assert Pace([(8, 0.05)]).estimate_s(GB) == pytest.approx(LEAST_S + MARGIN * 0.05 * 1000)
    assert Pace([(8, 0.05)]).estimate_s(0) == pytest.approx(LEAST_S + MARGIN * 0.05)
