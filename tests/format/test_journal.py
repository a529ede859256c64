"""Journal entries and ``ckptstore.json``: sealed, strict, and added up in order."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError, NewerFormatError
from ckptstore.format.facts import Facts, Retired, Settings, VersionFacts
from ckptstore.format.journal import (
    ChildEntry,
    DamageEntry,
    LogEntry,
    NoteEntry,
    RetireEntry,
    SettingsEntry,
    TagEntry,
    UndeleteEntry,
    decode_entry,
    encode_entry,
    fold,
)
from ckptstore.format.sealed import seal
from ckptstore.format.store_facts import DEFAULT_GRACE_S, StoreFacts, decode_store, encode_store
from tests.format.heads import NOON, SAVE, times, trees
from tests.format.trees import texts

signed = (times, st.uuids(), st.none() | texts)
versions = st.integers(1, 2**40)
metrics = st.dictionaries(texts, trees, max_size=3)
entries = st.one_of(
    st.builds(
        SettingsEntry,
        st.builds(
            Settings,
            texts,
            st.sampled_from(["min", "max"]),
            st.none() | trees,
            st.none() | st.dictionaries(texts, st.integers(0, 9), max_size=2),
        ),
        *signed,
    ),
    st.builds(TagEntry, st.sampled_from(["prod", "v1.0", "A"]), st.none() | versions, *signed),
    st.builds(
        LogEntry, st.none() | versions, st.none() | st.integers(-9, 9), st.none(), metrics, *signed
    ),
    st.builds(NoteEntry, versions, st.none() | texts, *signed),
    st.builds(RetireEntry, st.dictionaries(versions, texts, max_size=3), *signed),
    st.builds(UndeleteEntry, st.lists(versions, max_size=3).map(tuple), *signed),
    st.builds(DamageEntry, versions, st.none() | texts, *signed),
    st.builds(ChildEntry, versions, st.sampled_from(["other", "sweep/A"]), st.uuids(), *signed),
)
TAG = encode_entry(TagEntry("prod", 7, NOON, SAVE))
STORE = encode_store(StoreFacts(SAVE, DEFAULT_GRACE_S, in_place=False))


@settings(deadline=None)
@given(entries)
def test_every_entry_comes_back_equal(entry):
    data = encode_entry(entry)
    assert repr(decode_entry(data, "journal")) == repr(entry)
    assert data.endswith(b"\n")
    assert json.loads(data)["requires"] == []


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
    settings = Settings("acc", "max", {"lr": 0.1}, {"last": 3})
    facts = added_up(
        tag("prod", 1),
        tag("old", 1),
        SettingsEntry(Settings(), NOON, SAVE),
        tag("prod", 3),
        SettingsEntry(settings, NOON, SAVE),
        tag("old", None),
        tag("none", None),
    )
    assert facts == Facts(settings, {"prod": 3})
    assert fold(facts, [(8, tag("prod", None))]) == Facts(settings, {})
    assert facts.tags == {"prod": 3}


def added_up(*listed):
    return fold(Facts(), enumerate(listed, 1))


def known(*listed):
    return added_up(*listed).versions


def test_later_metrics_go_before_earlier_ones():
    first, second = ({"acc": 1, "f1": 2}, {"acc": 3})

    found = known(*(LogEntry(2, None, None, each, NOON, SAVE) for each in (first, second)))

    assert found == {2: VersionFacts(metrics={"acc": 3, "f1": 2})}
    assert known(LogEntry(None, 7, None, first, NOON, SAVE)) == {}


def test_the_first_retirement_counts_until_the_version_is_undeleted():
    retired = [RetireEntry({1: reason, 2: reason}, NOON, SAVE) for reason in ("old", "worse")]

    assert known(*retired)[1].retired == Retired(NOON, "old", 1)
    again = known(retired[0], UndeleteEntry((1,), NOON, SAVE), retired[1])
    assert again[1].retired == Retired(NOON, "worse", 3)
    assert again[2].retired == Retired(NOON, "old", 1)


def test_notes_and_damage_are_taken_away_by_none_and_children_are_no_facts():
    child = ChildEntry(1, "other", SAVE, NOON, SAVE)
    found = known(
        NoteEntry(1, "good", NOON, SAVE),
        DamageEntry(1, "short", NOON, SAVE),
        child,
        child,
    )
    assert found == {1: VersionFacts(note="good", damage="short")}

    gone = known(
        NoteEntry(1, "good", NOON, SAVE),
        NoteEntry(1, None, NOON, SAVE),
        DamageEntry(1, "short", NOON, SAVE),
        DamageEntry(1, None, NOON, SAVE),
    )
    assert gone == {1: VersionFacts()}


@given(st.lists(entries, max_size=8), st.integers(0, 8))
def test_it_adds_up_to_the_same_in_one_go_or_two(listed, cut):
    numbered = list(enumerate(listed, 1))
    in_two = fold(fold(Facts(), numbered[:cut]), numbered[cut:])

    assert repr(in_two) == repr(fold(Facts(), numbered))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "log", "version": 0, "metrics": {}},
        {"kind": "log", "version": 1, "metrics": []},
        {"kind": "log", "epoch": 1.5, "metrics": {}},
        {"kind": "note", "version": None, "text": "x"},
        {"kind": "note", "version": 1, "text": 7},
        {"kind": "retire", "versions": [1]},
        {"kind": "retire", "versions": [[1, None]]},
        {"kind": "retire", "versions": [[True, "x"]]},
        {"kind": "retire", "versions": {"1": "x"}},
        {"kind": "undelete", "versions": [0]},
        {"kind": "undelete", "versions": 1},
        {"kind": "damage", "version": 1, "damage": 1},
        {"kind": "child", "version": 1, "run": "../x", "save": str(SAVE)},
        {"kind": "child", "version": 1, "run": "x", "save": "y"},
        {"kind": "settings", "monitor": "a", "mode": "min", "keep": 3},
    ],
    ids=repr,
)
def test_a_later_kind_of_entry_is_as_strict(fields):
    value = {"format": 1, "requires": [], "writer": str(SAVE), "time": "2026-01-31T12:00:00Z"}
    with pytest.raises(IntegrityError, match="journal"):
        decode_entry(seal(value | fields), "journal")
