"""Conditions on sizes: made of text that is never evaluated, computed from numbers alone."""

from __future__ import annotations

import pytest

from ckptstore.errors import IntegrityError
from ckptstore.programs.conditions import UnknownConditionError, check, holds, parse, words

SYMBOLS = {"s0": ["dim", 0, 0], "s1": ["number", 1]}
SOURCES = {("x",): 0, ("n",): 1, ("batch", "y", 0): 2}
DIMS = [(6, 3), None, (4,)]
NUMBERS = [None, 5, None]
RANKS = [2, None, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L['x'].size()[0] % 2 == 0", True),
        ("L['x'].shape[1] % 2 == 0", False),
        ("2*s0 + 1 == 13", True),
        ("-s0 < 0 and not (s0 == 5)", True),
        ("1 < s0 <= 6", True),
        ("1 < s0 <= 5", False),
        ("s0 // 4 == 1 or s0 > 100", True),
        ("s0 / 4 == 1.5", True),
        ("Max(s0, 8, L['n']) == 8", True),
        ("min(s0, s1) == 5", True),
        ("Mod(FloorDiv(s0, 2), 2) == 1", True),
        ("L['batch']['y'][0].size()[0] != s0", True),
        ("s0 % (s1 - 5) == 0", False),
    ],
)
def test_conditions_say_what_python_says(text, expected):
    condition = parse(text, SYMBOLS, SOURCES)
    check(condition, RANKS, "a program")
    assert holds(condition, DIMS, NUMBERS) is expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x')",
        "L['z'].size()[0] == 1",
        "L['x'].size()[i] == 1",
        "L['x'].size().numel() == 1",
        "s9 == 1",
        "s0 ** s0 == 1",
        "s0 == 'a'",
        "s0 in (1, 2)",
        "max(s0, key=1)",
        "[s0][0]",
        "s0 ==",
        "M['x'].size()[0] == 1",
    ],
)
def test_what_has_no_word_is_refused(text):
    with pytest.raises(UnknownConditionError):
        parse(text, SYMBOLS, SOURCES)


@pytest.mark.parametrize(
    "condition",
    [
        None,
        "x",
        [],
        {},
        ["dim", 0],
        ["dim", 0, 2],
        ["dim", 1, 0],
        ["dim", 9, 0],
        ["dim", -1, 0],
        ["dim", 0, True],
        ["number", 0],
        ["number", 3],
        ["number", 1, 1],
        ["+", 1],
        ["+", 1, 2, 3],
        ["not"],
        ["not", 1, 2],
        ["max"],
        ["**", 2, 3],
        [["+"], 1, 2],
        ["==", ["dim", 0, 5], 1],
    ],
)
def test_what_is_no_condition_is_refused(condition):
    with pytest.raises(IntegrityError, match="no condition"):
        check(condition, RANKS, "a program")


def test_a_condition_without_end_is_refused():
    condition = 1
    for _ in range(60):
        condition = ["not", condition]
    with pytest.raises(IntegrityError, match="no condition"):
        check(condition, RANKS, "a program")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s0 % 2 == 0", "(x.shape[0] % 2) == 0"),
        ("-s1 < 0", "-n < 0"),
        ("not s1", "not n"),
        ("max(s0, 2) >= s1", "max(x.shape[0], 2) >= n"),
    ],
)
def test_people_can_read_them(text, expected):
    assert words(parse(text, SYMBOLS, SOURCES), ["x", "n", "y"]) == expected
