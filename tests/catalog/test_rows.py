from __future__ import annotations

import math

import pytest

from ckptstore.catalog.rows import (
    LARGEST,
    JournalEntry,
    Version,
    damaged,
    from_head,
    metric_values,
    read_head,
)
from ckptstore.format.manifest import Parent, PartInfo, encode_head
from tests.catalog.places import INF, MINUS_INF, NAN, make_head, settings_entry, tag_entry

WHERE = "bucket://place/runs/digits/_versions/00000007.jsonl"


def row(head):
    return from_head(head, encode_head(head), WHERE)


def parts(*sizes):
    return tuple(
        PartInfo(f"p{at}", "module", size, 2, "0" * 64) for at, size in enumerate(sizes, 1)
    )


# ------------------------------------------------------------ metrics


def test_metrics_that_are_no_numbers_have_no_row():
    encoded = {"a": NAN, "b": True, "c": "1", "d": {"$float": "7"}, "e": {"$int": "-12"}, "f": 0}

    assert metric_values(encoded) == {"a": None, "e": -12.0, "f": 0.0}


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (1, 1.0),
        (-0.25, -0.25),
        (2**63, 2.0**63),
        (INF, math.inf),
        (MINUS_INF, -math.inf),
        (NAN, None),
        ({"$int": "-" + "9" * 30}, -1e30),
        ({"$int": "9" * 5000}, math.inf),
        ({"$int": "-" + "9" * 5000}, -math.inf),
    ],
)
def test_a_number_is_a_double_and_nan_is_null(encoded, value):
    assert metric_values({"m": encoded}) == {"m": value}


@pytest.mark.parametrize(
    "encoded",
    [
        {"$float": "infinity"},
        {"$float": 1},
        {"$int": 7},
        {"$int": "0x10"},
        {"$int": "1_000"},
        {"$int": "7\n"},
        {"$int": ""},
        {"$int": "7", "$float": "nan"},
        {},
        [1],
        None,
    ],
)
def test_what_only_resembles_a_special_number_is_none(encoded):
    assert metric_values({"m": encoded}) == {}


# ------------------------------------------------------------ heads


def test_a_row_says_what_the_head_says():
    head = make_head(
        "Digits",
        7,
        step=90,
        parent=Parent("Base/A", 3, make_head("base", 3).save_id),
        config={"lr": 0.1},
        metrics={"loss": NAN, "acc": 1},
        parts=parts(1000, 24),
    )
    line = encode_head(head)

    assert from_head(head, line, WHERE) == Version(
        7,
        "checkpoint",
        name="Digits",
        columns={
            "save_id": "00000000-0000-0000-0000-000000000007",
            "created_at": "2026-01-31T12:07:00.000000Z",
            "epoch": 7,
            "step": 90,
            "size_bytes": 1024,
            "torch_version": "2.13.0",
            "parent_path": "base/a",
            "parent_version": 3,
            "config": {"lr": 0.1},
            "head": line.decode(),
        },
        metrics={"loss": None, "acc": 1.0},
    )


def test_a_row_without_parent_epoch_step_and_torch_has_nulls_there():
    found = row(make_head("digits", 1, epoch=None, environment={"torch": 2}, kind="package"))

    assert found.kind == "package"
    for column in ("epoch", "step", "torch_version", "parent_path", "parent_version", "config"):
        assert found.columns[column] is None, column


def test_a_size_that_no_column_holds_is_damage():
    assert row(make_head("digits", 1, parts=parts(2**62, 2**62 - 1))).columns["size_bytes"] == (
        LARGEST
    )

    found = row(make_head("digits", 1, parts=parts(2**62, 2**62)))

    assert (found.kind, found.name) == ("damaged", None)
    assert found.columns["damage"] == f"{WHERE}: its parts and files have {2**63} bytes in all"


# ------------------------------------------------------------ first lines


def test_a_first_line_that_is_read_is_its_heads_row():
    head = make_head("Digits", 7)

    assert read_head(encode_head(head), "digits", 7, WHERE) == row(head)


@pytest.mark.parametrize(("path", "number"), [("other", 7), ("digits", 8)])
def test_a_head_in_anothers_place_is_damage(path, number):
    found = read_head(encode_head(make_head("Digits", 7)), path, number, WHERE)

    assert found == damaged(
        number, f"{WHERE}: it is the manifest of Digits@7, put in another's place"
    )


def test_a_first_line_that_is_no_head_is_damage_that_says_where():
    found = read_head(b'{"format":1,"requires":[]}', "digits", 7, WHERE)

    assert (found.number, found.kind) == (7, "damaged")
    assert WHERE in found.columns["damage"]


def test_a_newer_head_is_kept_for_who_can_read_it():
    line = encode_head(make_head("digits", 7)).replace(b'"requires":[]', b'"requires":["warp"]')

    assert read_head(line, "digits", 7, WHERE) == Version(
        7, "newer", columns={"head": line.decode()}
    )


# ------------------------------------------------------------ journal entries


def test_a_journal_entry_is_of_the_kind_it_says_or_void():
    kinds = [
        JournalEntry(1, settings_entry("acc", "max")).kind,
        JournalEntry(2, tag_entry("prod", 1)).kind,
        JournalEntry(3, tag_entry("prod", None)).kind,
        JournalEntry(4).kind,
    ]

    assert kinds == ["settings", "tag", "tag", "void"]
