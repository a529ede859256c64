from __future__ import annotations

import copy
import datetime as dt
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import ArgumentError, IntegrityError, NewerFormatError
from ckptstore.format.digest import dump_line, parse_line
from ckptstore.upkeep.keep import LONGEST, Keep, duration
from tests.upkeep.strategies import keeps

FULL = Keep(
    last=3, best=2, best_by={"val_acc": "max"}, every_epochs=10, within=timedelta(days=2), tags=True
)


def test_only_what_is_given_is_recorded():
    assert Keep(last=3).to_json() == {"last": 3}
    assert FULL.to_json() == {
        "last": 3,
        "best": 2,
        "every_epochs": 10,
        "best_by": {"val_acc": "max"},
        "within_s": 172_800.0,
    }


@given(keeps())
def test_what_is_recorded_is_read_back(keep):
    line = dump_line(keep.to_json())
    assert Keep.from_json(parse_line(line, "settings"), "settings") == keep


@given(keeps())
def test_it_is_shown_as_it_is_made(keep):
    assert eval(repr(keep), {"Keep": Keep, "datetime": dt}) == keep  # noqa: S307 - our own text


@given(keeps())
def test_equal_ones_are_one_key(keep):
    assert len({keep, copy.deepcopy(keep)}) == 1


def test_the_same_metrics_in_another_order_are_the_same():
    one = Keep(best_by={"a": "min", "b": "max"})
    other = Keep(best_by={"b": "max", "a": "min"})
    assert dump_line(one.to_json()) == dump_line(other.to_json())


def test_later_changes_of_what_was_handed_over_do_not_matter():
    metrics = {"acc": "max"}
    keep = Keep(best_by=metrics)
    metrics["loss"] = "min"
    assert keep.best_by == {"acc": "max"}


def test_numbers_of_numpy_are_numbers():
    assert Keep(last=np.int64(3)) == Keep(last=3)
    assert type(Keep(last=np.int64(3)).last) is int


@pytest.mark.parametrize("options", [{}, {"tags": True}, {"last": 0}, {"best_by": {}}])
def test_what_keeps_nothing_is_refused(options):
    with pytest.raises(
        ArgumentError, match=r"but tagged versions, which always stay: give at least one of last="
    ):
        Keep(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": -1}, r"Keep\(last=-1\): takes a whole number from 0"),
        ({"last": True}, r"last=True"),
        ({"last": 2.0}, r"last=2\.0"),
        ({"last": None}, r"last=None"),
        ({"last": 2**63}, r"last=9223372036854775808"),
        ({"best": "2"}, r"best='2'"),
        ({"every_epochs": -10}, r"every_epochs=-10"),
        ({"best_by": "val_acc"}, r"best_by='val_acc'.*\{'val_acc': 'max'\}"),
        ({"best_by": {"val_acc": "most"}}, r"'val_acc': 'most'.*'min' \(lower is better\)"),
        ({"best_by": {"val_acc": None}}, r"'val_acc': None"),
        ({"best_by": {"": "max"}}, r"'' is no metric's name"),
        ({"best_by": {7: "max"}}, r"7 is no metric's name"),
        ({"within": 2}, r"within=2.*timedelta\(days=2\)"),
        ({"within": timedelta(0)}, r"above 0"),
        ({"within": timedelta(-1)}, r"above 0"),
        ({"within": LONGEST + timedelta(microseconds=1)}, r"at most 36500 days"),
        ({"last": 1, "tags": False}, r"tags=False.*never retired.*untag\(\)"),
        ({"last": 1, "tags": ["prod"]}, r"tags=\['prod'\]"),
        ({"last": 1, "tags": 1}, r"tags=1"),
    ],
)
def test_a_value_that_is_none_is_refused_by_its_keyword(options, message):
    with pytest.raises(ArgumentError, match=message):
        Keep(**options)


def test_options_are_given_by_name():
    with pytest.raises(TypeError):
        Keep(3)


@pytest.mark.parametrize(
    "value", [{"newest": 3}, {"last": 3, "tags": False}, {"last": 3, "x": None}]
)
def test_what_a_newer_ckptstore_keeps_by_is_not_guessed(value):
    with pytest.raises(
        NewerFormatError, match=r"settings of 'digits' .*newer ckptstore \(it keeps"
    ):
        Keep.from_json(value, "settings of 'digits'")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"last": 0},
        {"last": "3"},
        {"last": True},
        {"best_by": ["acc"]},
        {"best_by": {"acc": "most"}},
        {"best_by": {}},
        {"within_s": "2 days"},
        {"within_s": True},
        {"within_s": 0},
        {"within_s": -1.5},
        {"within_s": 1e300},
        {"within_s": float("nan")},
    ],
)
def test_a_damaged_record_is_damage(value):
    with pytest.raises(IntegrityError, match="settings of 'digits'"):
        Keep.from_json(value, "settings of 'digits'")


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=2), "2 days"),
        (timedelta(days=1), "1 day"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(minutes=90), "90 minutes"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=90, milliseconds=500), "90.5 seconds"),
        (timedelta(microseconds=1), "1e-06 seconds"),
    ],
)
def test_a_duration_reads_well(span, words):
    assert duration(span) == words


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=LONGEST))
def test_any_duration_is_recorded_exactly(span):
    assert Keep.from_json(Keep(within=span).to_json(), "settings").within == span
