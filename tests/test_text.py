from __future__ import annotations

import pytest

from ckptstore.text import aligned, number, plain, size


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("größe 数 [red]", "größe 数 [red]"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eevil", r"\u202eevil"),
        ("\ud800", r"\ud800"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
    ],
)
def test_what_can_not_be_seen_is_spelled_out(name, shown):
    assert plain(name) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456789, "0.123457"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (1_000_000, "1000000"),
        (-(10**300), "-1" + "0" * 300),
        (10**400, "int of 1329 bits"),
        pytest.param(-(10**5000), "negative int of 16610 bits", id="of 5000 digits"),
    ],
)
def test_any_number_can_be_shown(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_490_000_000, "1.5 GB"),
        (2 * 10**15, "2000.0 TB"),
    ],
)
def test_size_is_in_powers_of_1000(size_bytes, shown):
    assert size(size_bytes) == shown


def test_columns_line_up_on_a_terminal_whatever_the_script():
    lines = aligned(["ref", "損失", "e\u0301"], [["d@1", "0.25", "1"], ["d@10", "1", "200"]])
    assert lines == ["ref   損失    e\u0301", "d@1   0.25    1", "d@10     1  200"]


def test_words_are_flush_left_and_numbers_flush_right():
    rows = [["digits@1", "0.5", "prod, x", "1.5 kB"], ["d", "", "x", "10 B"]]
    assert aligned(["ref", "loss", "tags", "size"], rows) == [
        "ref       loss  tags       size",
        "digits@1   0.5  prod, x  1.5 kB",
        "d               x          10 B",
    ]
