"""Names: what the grammar takes, and nothing else ever becomes a path."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import InvalidNameError
from ckptstore.format.layout import (
    VERSION_FILE,
    Ref,
    check_run,
    check_tag,
    clock_key,
    file_key,
    glob_regex,
    is_clock_key,
    is_data_key,
    is_glob,
    is_leftover_file,
    is_leftover_upload,
    is_run_path,
    journal_key,
    numbered,
    pack_key,
    parse_ref,
    run_path,
    version_key,
)
from ckptstore.storage.failures import check_key

GOOD = [
    "digits",
    "sweep/lr=0.1",
    "A",
    "0",
    "a.b-c_d+e,f=g",
    "x" * 120,
    "a/b/c/d",
    "7/8",
    "com",
    "nulls",
]
BAD = [
    "", ".", "..", "../x", "a/..", "a/../b", "/", "/a", "a/", "a//b", "a/./b", "~", "~/x", "a/~b",
    "a\0b", "\0", "a::b", "C:", "C:/x", "c:\\x", "a\\b", "a b", " a", "a ", "a.", "a./b", ".a",
    "_a", "-a", "a/_versions", "_journal", "=a", "+a", ",a", "a@1", "a*", "a?", "[a]", "a\n",
    "a\nb", "a\r", "nul", "NUL", "con", "Con.txt", "aux", "prn", "COM1", "com9.tar.gz", "lpt0",
    "a/lpt5", "a/nul.x/b", "é", "e\N{COMBINING ACUTE ACCENT}",
    "\N{FULLWIDTH LATIN SMALL LETTER A}", "ß", "\N{KELVIN SIGN}", "\N{CYRILLIC SMALL LETTER A}",
    "a\N{FULLWIDTH SOLIDUS}b", "\N{ARABIC-INDIC DIGIT ONE}", "a\u200b",
    "a\N{RIGHT-TO-LEFT OVERRIDE}b", "\ud800", "<script>", "a'b", 'a"b', "$a", "a%2e", "a#b", "a&b",
    "x" * 121,
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_inside_the_grammar_is_taken_as_it_is(name):
    assert check_run(name) == name
    assert run_path(name) == name.lower()
    assert check_key(version_key(run_path(name), 1))


@pytest.mark.parametrize("name", [*BAD, None, 7, b"a", ["a"], True], ids=ascii)
def test_any_other_is_refused_with_the_rule(name):
    with pytest.raises(InvalidNameError, match=r"letters, digits|string"):
        check_run(name)
    with pytest.raises(InvalidNameError, match="letters, digits"):
        check_tag(name)


@pytest.mark.parametrize("name", ["\ud800" * 2, "x" * 10_000, "\x1b[31m"])
def test_a_refusal_can_be_printed(name):
    with pytest.raises(InvalidNameError) as raised:
        check_run(name)
    assert str(raised.value).isprintable()
    assert str(raised.value).encode()
    assert len(str(raised.value)) < 500


@given(st.text(st.sampled_from("aZ09._=+,-/~:\\@ \0é"), max_size=12))
def test_what_is_taken_stays_in_its_folder(name):
    try:
        check_run(name)
    except InvalidNameError:
        return
    key = check_key(version_key(run_path(name), 7))
    assert key.startswith("runs/")
    assert key.endswith("/_versions/00000007.jsonl")
    assert key.isascii()
    for part in name.split("/"):
        assert part[0].isalnum()
        assert part not in {"_versions", "_journal"}


@pytest.mark.parametrize("name", ["7", "007", "best", "BEST", "latest", "Latest", "a/b", "x" * 121])
def test_a_tag_is_no_number_nor_a_word_with_a_meaning(name):
    with pytest.raises(InvalidNameError, match="no number"):
        check_tag(name)


@pytest.mark.parametrize("name", ["prod", "v1", "1.0", "2026-01-31", "best-so-far", "Prod"])
def test_a_tag_is_one_segment(name):
    assert check_tag(name) == name


@pytest.mark.parametrize(
    ("ref", "parsed"),
    [
        ("digits", Ref("digits", "latest")),
        ("digits@7", Ref("digits", 7)),
        ("digits@007", Ref("digits", 7)),
        ("a/b@best", Ref("a/b", "best")),
        ("digits@latest", Ref("digits", "latest")),
        ("digits@prod", Ref("digits", "prod")),
        ("@7", Ref(None, 7)),
        ("@best", Ref(None, "best")),
        (7, Ref(None, 7)),
    ],
)
def test_a_ref_is_taken_apart(ref, parsed):
    assert parse_ref(ref) == parsed


@pytest.mark.parametrize(
    "ref", ["", "@", "digits@", "digits@0", "digits@-1", "@Best", "a@b@c", "../x@1", "a@../x",
    "a@b/c", "a@1.", "digits@" + "9" * 19, "digits@1\n", 0, -1, 10**18, True, None, 1.0, b"a"],
)  # fmt: skip
def test_anything_else_is_no_ref(ref):
    with pytest.raises(InvalidNameError):
        parse_ref(ref)


def test_a_number_that_is_no_versions_is_named_as_it_was_given():
    with pytest.raises(InvalidNameError, match=r"^-1 is no version's number: they count from 1"):
        parse_ref(-1)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["a", "abc"], ["a/b", "a/"]),
        ("sweep/*", ["sweep/a", "sweep/lr=0.1"], ["sweep", "sweep/a/b", "sweeps/a"]),
        ("*/b", ["a/b"], ["b", "a/c/b"]),
        ("**", ["a"], ["a/b"]),
        ("a?c", ["abc", "a.c"], ["ac", "a/c"]),
        ("lr=0.[12]", ["lr=0.1"], ["lr=0.3", "lr=0x1"]),
        ("[!a]b", ["bb"], ["ab"]),
        ("SWEEP/*", ["sweep/a"], []),
        ("a.b*", ["a.b1"], ["axb1"]),
        ("a[", ["a["], ["a"]),
        ("a+", ["a+"], ["aa"]),
        ("(a|b)*", ["(a|b)x"], ["a"]),
    ],
)
def test_a_glob_names_runs_and_does_not_cross_slashes(pattern, yes, no):
    regex = glob_regex(pattern)
    assert all(regex.fullmatch(path) for path in yes)
    assert not any(regex.fullmatch(path) for path in no)


@given(st.text(st.sampled_from("ab[]!^-\\*?(){}+|.$#&~ "), max_size=8))
def test_any_pattern_is_one_or_a_clear_error(pattern):
    try:
        regex = glob_regex(pattern)
    except InvalidNameError:
        return
    regex.fullmatch("a/b")


def test_only_patterns_are_globs():
    assert is_glob("a*")
    assert is_glob("a?")
    assert is_glob("[a]")
    assert not is_glob("sweep/lr=0.1")


def test_keys_are_made_of_ids_and_numbers():
    save = uuid.UUID("01a20cb8-5e69-7452-884a-9ec81d929f23")
    assert pack_key(save, 3) == f"packs/23/{save}-3.safetensors"
    assert journal_key("a/b", 12) == "runs/a/b/_journal/00000012.json"
    assert version_key("a", 123456789) == "runs/a/_versions/123456789.jsonl"


def test_only_files_spelled_as_written_have_a_number():
    files = (
        "00000002.jsonl", "00000001.jsonl", "123456789.jsonl", "00000000.jsonl", "1.jsonl",
        "000000003.jsonl", "00000004.json", "00000005.jsonl.bak", "x00000006.jsonl",
        "00000007.JSONL", "٠٠٠٠٠٠٠٨.jsonl", ".tmp-1", "00000009.jsonl\n",
    )  # fmt: skip
    assert numbered(files, VERSION_FILE) == [1, 2, 123456789]


def test_a_runs_path_has_one_spelling():
    assert is_run_path("sweep/lr=0.1")
    for other in ("Sweep", "nul", ".trash", "", "a//b", "no one"):
        assert not is_run_path(other)


SAVES = st.uuids(version=4)
RUNS = st.sampled_from([name.lower() for name in GOOD])
NUMBERS = st.integers(1, 10**8)
OBJECTS = st.one_of(
    st.builds(pack_key, SAVES, NUMBERS),
    st.builds(file_key, SAVES, NUMBERS),
    st.builds(clock_key, SAVES),
    st.builds(version_key, RUNS, NUMBERS),
    st.builds(journal_key, RUNS, NUMBERS),
    st.just("ckptstore.json"),
)


@given(OBJECTS, st.binary(min_size=8, max_size=8))
def test_what_a_write_of_ours_leaves_beside_an_object_is_a_leftover(key, token):
    folder = key.rpartition("/")[0]
    left = f"{folder}/.tmp-{token.hex()}".lstrip("/")
    assert is_leftover_file(left)
    assert not is_leftover_file(key)


@given(OBJECTS)
def test_packs_and_files_alone_are_uploaded_in_parts(key):
    assert is_leftover_upload(key) == is_data_key(key)
    assert is_data_key(key) == key.startswith(("packs/", "files/"))
    assert is_clock_key(key) == key.startswith("clock/")


@given(OBJECTS, st.sampled_from(["team2", "a/b", "packs", "files", "_versions"]))
def test_what_lies_in_another_store_below_this_one_is_not_ours(key, other):
    folder = f"{other}/{key}".rpartition("/")[0]
    assert not is_leftover_upload(f"{other}/{key}")
    assert not is_leftover_file(f"{folder}/.tmp-0123456789abcdef")


@pytest.mark.parametrize(
    "key",
    [
        "data/.tmp-precious.csv", "data/.tmp-0123456789abcdef", "packs/.tmp-mine",
        "packs/aa/.tmp-mine", "packs/.tmp-0123456789abcdef", "packs/abc/.tmp-0123456789abcdef",
        ".tmp-0123456789ABCDEF", ".tmp-0123456789abcdef0", ".tmp-0123456789abcdef\n", ".tmp-",
        "runs/.tmp-0123456789abcdef", "runs/_versions/.tmp-0123456789abcdef",
        "runs/a/.tmp-0123456789abcdef", "runs/No Run/_versions/.tmp-0123456789abcdef",
        "packs/mine.bin", "videos/someone-elses.mp4", "catalog.sqlite3", "clock/mine",
    ],
)  # fmt: skip
def test_what_others_put_there_is_no_leftover(key):
    assert not is_leftover_file(key)
    assert not is_leftover_upload(key)
    assert not is_clock_key(key)
