"""The longer of two clocks counts."""

from __future__ import annotations

import pytest

from ckptstore.saving import moment
from ckptstore.saving.moment import Moment, earliest


@pytest.fixture
def clocks(monkeypatch):
    at = {"wall": 1000.0, "monotonic": 50.0}
    monkeypatch.setattr(moment.time, "time", lambda: at["wall"])
    monkeypatch.setattr(moment.time, "monotonic", lambda: at["monotonic"])
    return at


@pytest.mark.parametrize(
    ("wall", "monotonic", "elapsed"),
    [(3.0, 3.0, 3.0), (3600.0, 2.0, 3600.0), (-86400.0, 2.0, 2.0), (0.0, 0.0, 0.0)],
    ids=["awake", "asleep", "the clock was set back", "at once"],
)
def test_the_longer_span_counts(clocks, wall, monotonic, elapsed):
    then = Moment.now()
    clocks["wall"] += wall
    clocks["monotonic"] += monotonic

    assert then.elapsed_s() == elapsed


def test_the_earliest_is_the_one_longest_ago(clocks):
    first = Moment.now()
    clocks["monotonic"] += 1
    second = Moment.now()

    assert earliest([second, first]) is first
    assert earliest([second]) is second
