"""Journal entries and ``ckptstore.json``: sealed, strict, and added up in order."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.format.digest import digest
from ckptstore.format.facts import Facts, Settings
from ckptstore.format.journal import SettingsEntry, TagEntry, decode_entry, encode_entry, fold
from ckptstore.format.sealed import seal, unseal
from ckptstore.format.store_facts import DEFAULT_GRACE_S, StoreFacts, decode_store, encode_store
from tests.format.heads import NOON, SAVE, times, trees
from tests.format.trees import texts

entries = st.builds(
    SettingsEntry,
    st.builds(Settings, texts, st.sampled_from(["min", "max"]), st.none() | trees),
    times,
    st.uuids(),
) | st.builds(
    TagEntry,
    st.sampled_from(["prod", "v1.0", "A"]),
    st.none() | st.integers(1, 2**40),
    times,
    st.uuids(),
)
stores = st.builds(StoreFacts, st.uuids(), st.integers(0, 2**40), st.booleans())
TAG = encode_entry(TagEntry("prod", 7, NOON, SAVE))
STORE = encode_store(StoreFacts(SAVE, DEFAULT_GRACE_S, in_place=False))


@settings(deadline=None)
@given(entries)
def test_every_entry_comes_back_equal(entry):
    data = encode_entry(entry)
    assert repr(decode_entry(data, "journal")) == repr(entry)
    assert data.endswith(b"\n")
    assert json.loads(data)["requires"] == []


@given(stores)
def test_what_a_store_is_comes_back_equal(facts):
    assert decode_store(encode_store(facts), "ckptstore.json") == facts


@pytest.mark.parametrize(("data", "read"), [(TAG, decode_entry), (STORE, decode_store)])
def test_flipped_or_cut_anywhere_it_is_refused(data, read):
    read(data, "here")
    for place in range(len(data)):
        damaged = [data[:place], data[: place + 1] + data[place:]]
        for bit in (1, 32, 128):
            flipped = bytearray(data)
            flipped[place] ^= bit
            damaged.append(bytes(flipped))
        for each in damaged:
            with pytest.raises(IntegrityError, match="here"):
                read(each, "here")


@pytest.mark.parametrize("data", [b"", b"{}", b"\n", b'{"blake3":"x"}\n', b"\xff" * 99])
def test_what_has_no_seal_is_refused(data):
    with pytest.raises(IntegrityError, match="digest"):
        unseal(data, "here")


def test_a_seal_is_the_last_member_and_covers_all_bytes_before_it():
    data = seal({"format": 1, "requires": [], "a": 'x","blake3":"' + "0" * 64})
    value = json.loads(data)
    assert list(value)[-1] == "blake3"
    body = data[: data.rindex(b',"blake3":"')]
    assert value["blake3"] == digest(body)
    assert unseal(data, "here").text("a").startswith("x")


def test_a_seal_written_twice_is_refused():
    data = seal({"format": 1, "requires": [], "blake3": "x"})
    with pytest.raises(IntegrityError, match="twice"):
        unseal(data, "here")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "rumour"},
        {"kind": None},
        {"tag": "../x"},
        {"tag": "best"},
        {"tag": "7"},
        {"tag": None},
        {"version": 0},
        {"version": -1},
        {"version": "7"},
        {"time": "later"},
        {"writer": "me"},
        {"kind": "settings", "monitor": 7, "mode": "min"},
        {"kind": "settings", "monitor": "loss", "mode": "average"},
        {"format": 0},
        {"requires": None},
    ],
    ids=repr,
)
def test_an_entry_that_the_format_has_not_is_refused(fields):
    value = json.loads(TAG) | fields
    del value["blake3"]
    with pytest.raises(IntegrityError, match="journal"):
        decode_entry(seal(value), "journal")


@pytest.mark.parametrize("fields", [{"format": 2}, {"requires": ["deltas"]}])
@pytest.mark.parametrize(("data", "read"), [(TAG, decode_entry), (STORE, decode_store)])
def test_what_a_newer_ckptstore_made_says_to_upgrade(data, read, fields):
    value = json.loads(data) | fields
    del value["blake3"]
    with pytest.raises(NewerFormatError, match="upgrade"):
        read(seal(value), "here")


def test_unknown_fields_are_ignored():
    value = json.loads(TAG) | {"mood": "good"}
    del value["blake3"]
    assert decode_entry(seal(value), "journal") == TagEntry("prod", 7, NOON, SAVE)


def tag(name, version):
    return TagEntry(name, version, NOON, uuid.uuid4())


def test_a_journal_adds_up_in_its_order():
    settings = Settings("acc", "max", {"lr": 0.1})
    facts = fold(
        Facts(),
        [
            tag("prod", 1),
            tag("old", 1),
            SettingsEntry(Settings(), NOON, SAVE),
            tag("prod", 3),
            SettingsEntry(settings, NOON, SAVE),
            tag("old", None),
            tag("none", None),
        ],
    )
    assert facts == Facts(settings, {"prod": 3})
    assert fold(facts, [tag("prod", None)]) == Facts(settings, {})
    assert facts.tags == {"prod": 3}


@given(st.lists(entries, max_size=8), st.integers(0, 8))
def test_it_adds_up_to_the_same_in_one_go_or_two(listed, cut):
    assert repr(fold(fold(Facts(), listed[:cut]), listed[cut:])) == repr(fold(Facts(), listed))
