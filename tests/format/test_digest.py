"""Digests and strict JSON: everything a careless or hostile writer could put there is refused."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError
from ckptstore.format import digest as digests
from ckptstore.format.digest import MAX_DEPTH, digest, dump_line, parse_line

words = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


def test_a_digest_is_blake3():
    assert digest(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest(memoryview(b"abc")) == blake3(b"abc").hexdigest()


@given(plain)
def test_a_line_comes_back_equal_and_in_order(value):
    line = dump_line(value)

    assert b"\n" not in line
    back = parse_line(line, "here")
    assert repr(back) == repr(value)  # order, types, -0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "\ud800"])
def test_what_json_has_no_word_for_is_not_written(value):
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        dump_line({"a": value})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"a":1,"a":2}', "twice"),
        (b'[{"b":[{"a":1,"b":2,"a":1}]}]', "twice"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "Infinity"),
        (b"1e999", "double"),
        (b"-1e999", "double"),
        (b"1" * 21, "20 digits"),
        (b"-" + b"1" * 20, "20 digits"),
        (b"1" * 5000, "20 digits"),
        (rb'"\ud800"', "surrogates"),
        (rb'{"\udfff":1}', "surrogates"),
        (rb'"\udc00\ud800"', "surrogates"),
        (b'"\xed\xa0\x80"', "decode"),
        (b'"\xff"', "decode"),
        (b"\xef\xbb\xbf1", "BOM|Expecting"),
        (b"", "Expecting"),
        (b"{", "Expecting"),
        (b"[1,]", "Expecting|trailing"),
        (b"1 2", "Extra data"),
        (b"{'a':1}", "Expecting"),
        (b'"a\nb"', "control"),
        (b'"\0"', "control"),
    ],
)
def test_a_line_that_ckptstore_would_not_write_is_refused(line, why):
    with pytest.raises(IntegrityError, match=why) as raised:
        parse_line(line, "bucket/manifest")
    assert "bucket/manifest" in str(raised.value)


def test_escaped_pairs_of_surrogates_are_characters():
    assert parse_line(rb'"\ud83d\ude00"', "here") == "\N{GRINNING FACE}"


@pytest.mark.parametrize("nest", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_is_refused_before_it_is_parsed(nest, closed, monkeypatch):
    opening, closing = nest
    line = opening * 10_000 + (b"1" + closing * 10_000 if closed else b"")
    monkeypatch.setattr(digests.json, "loads", lambda *_a, **_k: pytest.fail("it was parsed"))

    with pytest.raises(IntegrityError, match="deeper"):
        parse_line(line, "here")


def test_the_deepest_nesting_that_is_allowed_is_read():
    line = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    value = parse_line(line, "here")
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []
    with pytest.raises(IntegrityError, match="deeper"):
        parse_line(b"[" + line + b"]", "here")


def test_brackets_in_strings_are_no_nesting():
    text = "[{" * 1000 + '"' + "\\" + "[" * 500
    assert parse_line(dump_line([text, [text]]), "here") == [text, [text]]


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_a_string_without_end_is_looked_at_once(end):
    # Looking again at each of its quotes would take minutes here, and days in 64 MiB.
    line = b"[]" * MAX_DEPTH + b'"' + b'\\"' * 500_000 + end

    with pytest.raises(IntegrityError):
        parse_line(line, "here")


def test_a_line_of_more_than_64_mib_is_refused_unread(monkeypatch):
    monkeypatch.setattr(digests.json, "loads", lambda *_a, **_k: pytest.fail("it was parsed"))
    with pytest.raises(IntegrityError, match="67108865 bytes"):
        parse_line(b" " * (64 * 2**20 + 1), "here")
