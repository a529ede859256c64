"""Checked fields: a wrong type says where, what was expected and what is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.format.fields import Fields, format_time

ID = UUID("01a20cb8-5e69-7452-884a-9ec81d929f23")


@pytest.mark.parametrize("value", [None, [], "a", 1, True])
def test_fields_are_of_an_object(value):
    with pytest.raises(IntegrityError, match="manifest should be a JSON object"):
        Fields(value, "manifest")


@pytest.mark.parametrize(
    ("read", "right"),
    [
        ("text", "a"),
        ("number", 7),
        ("numbers", [0, 7]),
        ("items", [1, "a"]),
        ("mapping", {"a": 1}),
        ("digest", "a" * 64),
        ("uuid", str(ID)),
        ("time", "2026-01-31T12:00:00.000000Z"),
    ],
)
def test_a_field_is_its_type_or_an_error_that_names_it(read, right):
    getattr(Fields({"x": right}, "manifest"), read)("x")
    others = [None, True, "a", "\N{SNOWMAN}" * 500, 7, -1, 2**63, 1.5, [0, 7], [-1], [True], {}]
    others += [["a"], "A" * 64, str(ID).upper(), ID.hex, "2026-01-31", "2026-13-31T12:00:00Z"]
    others += ["2026-01-31T12:00:00+00:00", [2**62]]
    said = []
    for wrong in others:
        try:
            getattr(Fields({"x": wrong}, "manifest"), read)("x")
        except IntegrityError as error:
            said.append(str(error))
    assert len(said) > len(others) // 2
    for message in said:
        assert message.startswith("manifest: 'x' should be ")
        assert len(message) < 200
    with pytest.raises(IntegrityError, match="missing"):
        getattr(Fields({}, "manifest"), read)("x")


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, -1, 2**63])
def test_a_number_is_an_int_in_its_bounds(value):
    with pytest.raises(IntegrityError):
        Fields({"x": value}, "here").number("x")


def test_a_number_may_have_another_least():
    assert Fields({"x": -5}, "here").number("x", least=-5) == -5
    with pytest.raises(IntegrityError, match="from 1"):
        Fields({"x": 0}, "here").number("x", least=1)


def test_what_may_be_absent_is_none():
    fields = Fields({"x": None}, "here")
    for name in ("x", "y"):
        assert fields.text_or_none(name) is None
        assert fields.number_or_none(name) is None
        assert fields.get(name) is None
    assert fields.flag("y") is False
    with pytest.raises(IntegrityError, match="true or false"):
        Fields({"x": 1}, "here").flag("x")
    with pytest.raises(IntegrityError):
        Fields({"x": 1}, "here").text_or_none("x")


def test_an_inner_object_says_where_it_is():
    inner = Fields({"parent": {"run": 7}}, "manifest").fields("parent")
    with pytest.raises(IntegrityError, match="manifest, 'parent': 'run' should be a string"):
        inner.text("run")


@given(st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=9, minutes=30)))))
def test_a_time_comes_back_in_utc(time):
    if not datetime(1970, 1, 2, tzinfo=UTC) < time < datetime(9999, 1, 1, tzinfo=UTC):
        return
    text = format_time(time)
    assert text.endswith("Z")
    back = Fields({"t": text}, "here").time("t")
    assert back == time
    assert back.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00", "2026-02-30T12:00:00Z", "2026-01-31 12:00:00Z", "now", "٢٠٢٦"]
)
def test_any_other_time_is_refused(text):
    with pytest.raises(IntegrityError, match="a time such as"):
        Fields({"t": text}, "here").time("t")


def test_this_format_is_read():
    Fields({"format": 1, "requires": [], "news": 7}, "here").check_format()


@pytest.mark.parametrize(
    "value",
    [
        {"format": 2, "requires": []},
        {"format": 1, "requires": ["deltas"]},
        {"format": 1, "requires": [{}]},
    ],
)
def test_a_newer_format_says_to_upgrade(value):
    with pytest.raises(NewerFormatError, match=r"made by a newer ckptstore.*upgrade"):
        Fields(value, "here").check_format()


@pytest.mark.parametrize(
    "value",
    [
        {"format": "1", "requires": []},
        {"requires": []},
        {"format": 1},
        {"format": 0, "requires": []},
    ],
)
def test_what_has_no_format_is_damaged(value):
    with pytest.raises(IntegrityError):
        Fields(value, "here").check_format()
