from __future__ import annotations

import pytest

from ckptstore.text import aligned, plain, size


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


def test_first_column_is_flush_left_and_others_flush_right():
    assert aligned(["ref", "loss"], [["digits@1", "0.5"], ["d", ""]]) == [
        "ref       loss",
        "digits@1   0.5",
        "d",
    ]
