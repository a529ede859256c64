from __future__ import annotations

import math

import pytest

from tests.bench.questions import Question, Target, below, best, shown, spread

MEASURED = {
    "ours": [0.6, 0.5, 9.0],
    "theirs": [1.0, 1.2, 0.9],
    "limit": [0.4, 0.4, 0.4],
}


def question(**changed):
    facts = {
        "key": "saves",
        "title": "Saves",
        "asks": "How long?",
        "measured": MEASURED,
        "ours": ("ours",),
        "limit": "limit",
        **changed,
    }
    return Question(**facts)


def test_ratios_are_of_medians():
    assert question().ratio("ours", "theirs") == pytest.approx(0.6)


def test_table_has_a_row_a_contender_and_a_column_for_each_of_ours():
    rows = list(question().table())

    assert rows[0] == "|  | median (range) | ours takes |"
    assert rows[2:] == [
        "| ours | 0.6 s (0.5 to 9) |  |",
        "| theirs | 1 s (0.9 to 1.2) | 0.60 of it |",
        "| limit (the limit) | 0.4 s (0.4 to 0.4) | 1.50 of it |",
    ]


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (Target("ours", 0.6, of="theirs"), "ours / theirs: 0.60, asked at most 0.6: met"),
        (Target("ours", 0.5, of="theirs"), "ours / theirs: 0.60, asked at most 0.5: **missed**"),
        (Target("ours", 0.7), "ours: 0.6 s, asked at most 0.7 s: met"),
        (Target("ours", 0.01), "ours: 0.6 s, asked at most 10 ms: **missed**"),
    ],
)
def test_a_target_is_met_or_missed_in_words(target, verdict):
    assert question(targets=(target,)).verdict(target) == verdict


def test_what_is_shown_as_the_target_meets_it():
    asked = Target("ours", 0.6, of="theirs")

    assert question(measured=MEASURED | {"ours": [0.604]}).met(asked)
    assert not question(measured=MEASURED | {"ours": [0.606]}).met(asked)


def test_less_than_nothing_is_nothing_and_a_ratio_to_it_decides_nothing():
    added = question(measured={"ours": [-0.1], "theirs": [-0.2], "limit": [1.0]})

    assert added.ratio("ours", "limit") == 0
    assert math.isinf(added.ratio("ours", "theirs"))
    assert "undecided" in added.verdict(Target("ours", 1.0, of="theirs"))
    assert "inf" not in "\n".join(added.table())


@pytest.mark.parametrize(
    "changed",
    [
        {"ours": ("mine",)},
        {"limit": "none"},
        {"targets": (Target("ours", 1.0, of="nobody"),)},
        {"targets": (Target("nobody", 1.0),)},
        {"notes": {"nobody": "fast"}},
        {"absent": {"theirs": "no wheel"}},
        {"measured": MEASURED | {"theirs": []}},
    ],
    ids=["ours", "limit", "of", "target", "notes", "absent", "empty"],
)
def test_a_name_that_was_not_measured_is_refused(changed):
    with pytest.raises(ValueError, match="saves: "):
        question(**changed)


def test_absent_peers_and_settings_are_named():
    lines = "\n".join(
        question(notes={"theirs": "two threads"}, absent={"another": "no wheel"}).lines("a.svg")
    )

    assert "- *theirs*: two threads." in lines
    assert "- *another* was not measured: no wheel." in lines
    assert "](a.svg)" in lines


def test_a_target_for_each_peer_and_the_best_of_them():
    assert below(["a"], ["b", "c"]) == (Target("a", 1.0, of="b"), Target("a", 1.0, of="c"))
    assert best(MEASURED, ["theirs", "limit"]) == "limit"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1.5, "s", "1.5 s"),
        (0.0123, "s", "12.3 ms"),
        (0.00002, "s", "20 µs"),
        (-0.0123, "s", "-12.3 ms"),
        (123.4, "s", "123 s"),
        (1.49e9, "B", "1.49 GB"),
        (4096, "B", "4.1 kB"),
    ],
)
def test_values_are_shown_in_the_unit_that_suits_them(value, unit, words):
    assert shown(value, unit) == words


def test_a_single_value_has_no_range():
    assert spread([0.5]) == "0.5 s"
