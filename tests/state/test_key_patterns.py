"""Patterns of keys: what they fit, and what is said of those that fit nothing."""

from __future__ import annotations

import pytest

from ckptstore.errors import ArgumentError
from ckptstore.state.key_patterns import listed, matches, meant, patterns_of, per_part


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("encoder.*", "encoder.weight", True),
        ("encoder.*", "encoder.layers.0.weight", True),
        ("encoder.*", "encoder2.weight", False),
        ("encoder.*", "my.encoder.weight", False),
        ("encoder", "encoder.layers.0.weight", True),
        ("encoder", "encoder2.weight", False),
        ("encoder.layers.1", "encoder.layers.10.weight", False),
        ("*.bias", "encoder.layers.0.bias", True),
        ("*.bias", "bias", False),
        ("*.weight", "fc.parametrizations.weight.original0", True),
        ("layers.?.weight", "layers.1.weight", True),
        ("layers.?.weight", "layers.10.weight", False),
        ("layers.[12].*", "layers.2.bias", True),
        ("*", "a", True),
        ("Encoder.*", "encoder.weight", False),
    ],
)
def test_a_pattern_fits_keys_and_what_lies_below_modules(pattern, key, fits):
    assert matches(pattern, key) is fits


def test_one_pattern_is_a_list_of_one():
    assert patterns_of("only", "a.*") == ("a.*",)
    assert patterns_of("only", ["a.*", "b"]) == ("a.*", "b")
    assert patterns_of("only", iter("ab")) == ("a", "b")


@pytest.mark.parametrize("given", [7, {"a": 1}, ["a", 7], None])
def test_what_is_no_pattern_is_refused_by_its_option(given):
    with pytest.raises(ArgumentError, match="only= takes a pattern of keys"):
        patterns_of("only", given)


def test_a_dict_speaks_of_single_parts():
    assert per_part("only", "a", ["model", "ema"])("ema") == "a"
    assert per_part("only", {"ema": "b"}, ["model", "ema"])("ema") == "b"
    assert per_part("only", {"ema": "b"}, ["model", "ema"])("model") is None
    with pytest.raises(ArgumentError, match="only= names 'emma'"):
        per_part("only", {"emma": "b"}, ["model", "ema"])


def test_a_slip_is_asked_about_and_long_lists_are_cut():
    keys = [f"encoder.layers.{number}.weight" for number in range(9)]

    assert meant("encodr.*", keys) == " (did you mean 'encoder'?)"
    assert meant("something", keys) == ""
    assert listed(keys).endswith("'encoder.layers.4.weight' and 4 more")
    assert listed([]) == "none"
