"""What a save cost, as a manifest has it."""

from __future__ import annotations

import pytest

from ckptstore.errors import IntegrityError
from ckptstore.format.fields import Fields
from ckptstore.format.timings import Timings, decode_timings, timings_json

SPENT = Timings(0.5, 100, 0.25, 90, 0.125, 120, 2.0)


def read(value: object) -> Timings | None:
    return decode_timings(Fields({"timings": value}, "a head"))


def test_timings_come_back_as_they_were():
    assert decode_timings(Fields(timings_json(SPENT), "a head")) == SPENT


def test_a_version_without_timings_has_none():
    assert timings_json(None) == {}
    assert decode_timings(Fields({}, "a head")) is None


def test_a_whole_number_of_seconds_is_a_number_of_seconds():
    assert read({**timings_json(SPENT)["timings"], "written_s": 2}) == SPENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blocked_s", -1.0),
        ("blocked_s", float("nan")),
        ("copied_s", float("inf")),
        ("hashed_s", "1"),
        ("written_s", True),
        pytest.param("written_s", 10**400, id="written_s-huge"),
        ("copied_bytes", -1),
        ("hashed_bytes", 1.5),
        ("written_bytes", 2**63),
        ("written_bytes", None),
    ],
)
def test_what_is_no_measurement_is_refused_by_name(name, value):
    with pytest.raises(IntegrityError, match=name):
        read({**timings_json(SPENT)["timings"], name: value})


def test_a_measurement_that_is_missing_is_named():
    timings = dict(timings_json(SPENT)["timings"])
    del timings["hashed_s"]

    with pytest.raises(IntegrityError, match=r"hashed_s.*missing"):
        read(timings)


def test_timings_that_are_no_object_are_refused():
    with pytest.raises(IntegrityError, match="timings"):
        read([1])
