"""What is said of keys that did not come together."""

from __future__ import annotations

import copy
import warnings

from ckptstore.errors import KeysWarning, warn
from ckptstore.key_report import KeyReport


def test_a_report_of_nothing_is_false():
    assert not KeyReport()
    for kind in ("missing", "unexpected", "mismatched", "left_out", "changed"):
        assert KeyReport(**{kind: ("head.weight",)})


def test_a_report_reads_as_lines():
    report = KeyReport(("a", "b"), ("c",), ("d",), ("e", "f"), ("f",))

    assert str(report).splitlines() == [
        "left out when it was saved: e, f",
        "left out, and of other values here than when it was saved: f",
        "not saved: a, b",
        "not in the module: c",
        "of another shape: d",
    ]


def test_a_warning_carries_its_report_to_another_process():
    warning = KeysWarning("some keys", KeyReport(missing=("a",)))
    other = copy.copy(warning)  # by the same protocol

    assert (str(other), other.report) == ("some keys", warning.report)


def test_a_warning_is_given_as_it_is():
    given = KeysWarning("some keys", KeyReport(missing=("a",)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(given)

    assert caught[0].message is given
    assert caught[0].filename == __file__
