"""Manifests: what is encoded comes back, and what is damaged anywhere is refused."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.format import manifest
from ckptstore.format.digest import digest, dump_line
from ckptstore.format.manifest import (
    CopiedFrom,
    Head,
    Pack,
    Parent,
    PartInfo,
    decode_head,
    encode_head,
    encode_manifest,
    head_line,
    parent_of,
    part_span,
)
from ckptstore.format.part import Part, decode_part, encode_part
from tests.format.heads import NOON, SAVE, versions

LINE = encode_part(Part({"a": 1}, ()))
HEAD = Head(
    SAVE,
    "digits",
    7,
    "checkpoint",
    NOON,
    NOON,
    parent=Parent("other", 3, SAVE),
    metrics={"val_loss": 0.5},
    environment={"torch": "2.13.0"},
    packs=(Pack(SAVE, 0, 5000, 4096, digest(b"x")),),
    parts=(PartInfo("model", "module", 0, len(LINE), digest(LINE), "a.B", {"width": 3}),),
)
MANIFEST = encode_manifest(HEAD, [LINE])


def read(data):
    """Read a whole manifest as a loader does: the head, then every part's line."""
    line = head_line(data, "manifest")
    if line is None:
        raise IntegrityError("cut short")
    head = decode_head(line, "manifest")
    parts = []
    for info in head.parts:
        _, start = part_span(head, len(line), info.name)
        parts.append(decode_part(data[start : start + info.length], head, info, "manifest"))
    return head, parts


@settings(deadline=None)
@given(versions())
def test_every_manifest_comes_back_equal(version):
    head, lines, parts = version
    found, found_parts = read(encode_manifest(head, lines))
    assert repr(found) == repr(head)
    assert repr(found_parts) == repr(parts)


def test_a_manifest_is_lines_of_json_and_the_second_is_the_digest_of_the_first():
    first, second, third, end = MANIFEST.split(b"\n")
    assert json.loads(second) == digest(first)
    assert third == LINE
    assert end == b""
    assert json.loads(first)["format"] == 1
    assert json.loads(first)["requires"] == []


def test_a_flipped_bit_anywhere_is_refused():
    for place in range(len(MANIFEST) - 1):  # the last line feed says nothing
        for bit in (0x01, 0x80):
            damaged = bytearray(MANIFEST)
            damaged[place] ^= bit
            try:
                found = read(bytes(damaged))
            except IntegrityError:
                continue
            # Only the line feed between lines can be another byte and nothing is lost.
            assert found == read(MANIFEST)
            assert MANIFEST[place : place + 1] == b"\n"


def test_cut_anywhere_it_is_refused():
    for length in range(len(MANIFEST) - 1):
        with pytest.raises(IntegrityError):
            read(MANIFEST[:length])


@settings(deadline=None, max_examples=50)
@given(versions(), st.data())
def test_no_damage_ever_changes_what_is_read(version, data):
    head, lines, _ = version
    whole = bytearray(encode_manifest(head, lines))
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        damaged[place] ^= data.draw(st.integers(1, 255))
    else:
        del damaged[place:]
    try:
        found = read(bytes(damaged))
    except IntegrityError:
        return
    assert repr(found) == repr(read(bytes(whole)))


def test_a_start_that_ends_before_the_digest_says_so():
    end = MANIFEST.index(b"\n") + 1 + 67
    for length in (0, 1, end - 68, end - 67, end - 1):
        assert head_line(MANIFEST[:length], "manifest") is None
    assert head_line(MANIFEST[:end], "manifest") == MANIFEST.split(b"\n")[0]


def test_a_first_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(manifest, "MAX_LINE_BYTES", 100)
    assert head_line(b"x" * 100, "manifest") is None
    for data in (b"x" * 101, b"x" * 101 + b"\n" + b"y" * 67):
        with pytest.raises(IntegrityError, match="longer than 100"):
            head_line(data, "manifest")


def changed(**fields):
    value = json.loads(encode_head(HEAD)) | fields
    return dump_line({name: item for name, item in value.items() if item != "gone"})


FILE = {"save": str(SAVE), "number": 0, "size_bytes": 3, "blake3": digest(b"x")}
FILE |= {"role": "program", "part": "model"}


def part(**fields):
    return {"parts": [json.loads(encode_head(HEAD))["parts"][0] | fields]}


def pack(**fields):
    return {"packs": [json.loads(encode_head(HEAD))["packs"][0] | fields]}


@pytest.mark.parametrize(
    "fields",
    [
        {"save": "gone"},
        {"save": "../../x"},
        {"run": "../x"},
        {"run": "a/_versions"},
        {"run": 7},
        {"version": 0},
        {"version": "7"},
        {"version": True},
        {"kind": "model"},
        {"created_at": "yesterday"},
        {"started_at": "gone"},
        {"epoch": 1.5},
        {"epoch": True},
        {"step": "1"},
        {"metrics": []},
        {"metrics": "gone"},
        {"environment": None},
        {"parent": "digits@3"},
        {"parent": {"run": "a\x1b[2J", "version": 1, "save": str(SAVE)}},
        {"parent": {"run": "a", "version": 0, "save": str(SAVE)}},
        {"packs": {}},
        {"packs": [7]},
        {"parts": None},
        {"files": [{}]},
        {"files": [FILE | {"role": 3}]},
        {"files": [FILE | {"part": ["model"]}]},
        {"files": [FILE, FILE | {"number": 1}]},  # two programs of one part
        {"package": []},
        {"left_out": "optimizer"},
        {"left_out": ["a", "a"]},
        {"left_out": [7]},
        {"left_out": ["model"]},  # and there it is
        pack(save="x"),
        pack(number=-1),
        pack(size_bytes=4095),
        pack(header_bytes=7),
        pack(header_bytes=2**40, size_bytes=2**41),
        pack(header_blake3="x"),
        part(kind="code"),
        part(name=None),
        part(length=0),
        part(length=2**26 + 1),
        part(length=2**62),
        part(blake3="0"),
        part(**{"class": 7}),
    ],
    ids=repr,
)
def test_a_head_that_the_format_has_not_is_refused(fields):
    with pytest.raises(IntegrityError, match="manifest"):
        decode_head(changed(**fields), "manifest")


def test_two_parts_of_one_name_are_refused():
    info = json.loads(encode_head(HEAD))["parts"][0]
    with pytest.raises(IntegrityError, match="different names"):
        decode_head(changed(parts=[info, info]), "manifest")


def test_unknown_fields_are_ignored():
    assert decode_head(changed(news={"a": 1}, **part(mood="good")), "manifest") == HEAD


@pytest.mark.parametrize("fields", [{"format": 2}, {"requires": ["deltas"]}])
def test_a_newer_manifest_says_to_upgrade(fields):
    with pytest.raises(NewerFormatError, match="upgrade"):
        decode_head(changed(**fields, kind="something new"), "manifest")


def test_parts_are_found_by_their_place():
    lines = [LINE, encode_part(Part({"b": [2]}, ()))]
    infos = tuple(
        PartInfo(name, "tree", 0, len(line), digest(line))
        for name, line in zip("ab", lines, strict=True)
    )
    head = replace(HEAD, parts=infos)
    data = encode_manifest(head, lines)
    for info, line in zip(infos, lines, strict=True):
        found, start = part_span(head, len(encode_head(head)), info.name)
        assert found == info
        assert data[start : start + info.length] == line
    with pytest.raises(KeyError):
        part_span(head, 1, "c")


def test_a_version_is_named_as_a_parent():
    assert HEAD.ref == "digits@7"
    assert parent_of(HEAD) == Parent("digits", 7, SAVE)


# ------------------------------------------------------------------------------ copies

COPY = replace(
    HEAD,
    copied_from=CopiedFrom(
        uuid.UUID(int=1),
        Parent("digits", 9, uuid.UUID(int=2)),
        uuid.UUID(int=3),
        NOON,
        Parent("other", 3, SAVE),
    ),
)


def test_a_copy_says_of_what_and_when():
    assert json.loads(encode_head(COPY))["copied_from"] == {
        "store": str(uuid.UUID(int=1)),
        "run": "digits",
        "version": 9,
        "save": str(uuid.UUID(int=2)),
        "origin": str(uuid.UUID(int=3)),
        "copied_at": "2026-01-31T12:00:00.000000Z",
        "parent": {"run": "other", "version": 3, "save": str(SAVE)},
    }
    assert decode_head(encode_head(COPY), "x").copied_from == COPY.copied_from


def test_what_is_no_copy_says_nothing_of_one():
    assert b"copied_from" not in encode_head(HEAD)


def test_all_copies_of_a_version_have_its_save_id_as_their_origin():
    assert HEAD.origin == SAVE
    assert COPY.origin == uuid.UUID(int=3)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("store", "x"),
        ("store", None),
        ("run", "../up"),
        ("run", None),
        ("version", 0),
        ("save", 7),
        ("origin", None),
        ("copied_at", "yesterday"),
        ("parent", []),
        ("parent", {"run": "a", "version": True, "save": str(SAVE)}),
    ],
)
def test_a_copy_that_is_badly_described_is_refused(member, value):
    said = json.loads(encode_head(COPY))
    said["copied_from"][member] = value
    with pytest.raises(IntegrityError, match="copied_from"):
        decode_head(dump_line(said), "x")


def test_what_is_copied_from_must_be_an_object():
    said = json.loads(encode_head(COPY))
    said["copied_from"] = "elsewhere"
    with pytest.raises(IntegrityError, match=r"'copied_from' should be an object"):
        decode_head(dump_line(said), "x")


def test_parts_that_were_left_out_are_named_and_none_are_by_default():
    line = encode_head(replace(HEAD, left_out=("optimizer", "ema")))

    assert decode_head(line, "manifest").left_out == ("optimizer", "ema")
    assert b"left_out" not in encode_head(HEAD)
    assert decode_head(encode_head(HEAD), "manifest").left_out == ()
