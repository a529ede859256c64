from __future__ import annotations

import json

import pytest

from ckptstore.upkeep.findings import Finding, Report

DAMAGE = Finding("pack", "damage", "digits@2", "packs/aa/x-0.safetensors", "it is gone")
NOTE = Finding("orphan", "note", None, "packs/bb/y-0.safetensors", "nobody names it")


def report(*findings: Finding, **changes: object) -> Report:
    values = {"url": "s3://b/p", "deep": True, "runs": 1, "versions": 3}
    values |= {"journal_entries": 2, "packs": 4, "bytes_read": 5_000_000}
    return Report(**{**values, "findings": findings, **changes})


def test_only_damage_makes_it_not_ok():
    assert report().ok
    assert report(NOTE).ok
    assert not report(NOTE, DAMAGE).ok


def test_each_damaged_ref_is_listed_once():
    other = Finding("manifest", "damage", "digits@1", "k", "m")
    store = Finding("store", "damage", None, "ckptstore.json", "m")
    assert report(DAMAGE, DAMAGE, other, store, NOTE).damaged == ("digits@2", "digits@1")


def test_its_json_is_what_the_how_to_says():
    repaired = Finding("catalog", "damage", "digits", None, "differs", "indexed anew")

    assert json.loads(json.dumps(report(DAMAGE, repaired).to_json())) == {
        "format": 1,
        "store": "s3://b/p",
        "ok": False,
        "deep": True,
        "damaged": ["digits@2", "digits"],
        "counts": {
            "runs": 1,
            "versions": 3,
            "journal_entries": 2,
            "packs": 4,
            "bytes_read": 5_000_000,
        },
        "findings": [
            {
                "kind": "pack",
                "severity": "damage",
                "ref": "digits@2",
                "key": "packs/aa/x-0.safetensors",
                "message": "it is gone",
                "repaired": None,
            },
            {
                "kind": "catalog",
                "severity": "damage",
                "ref": "digits",
                "key": None,
                "message": "differs",
                "repaired": "indexed anew",
            },
        ],
    }


def test_it_reads_as_a_table():
    repaired = Finding("catalog", "damage", "digits", None, "differs", "indexed anew")

    assert repr(report(DAMAGE, repaired, NOTE)).splitlines() == [
        "severity  kind     ref                       found",
        "damage    pack     digits@2                  it is gone",
        "damage    catalog  digits                    differs; repaired: indexed anew",
        "note      orphan   packs/bb/y-0.safetensors  nobody names it",
        report(DAMAGE, repaired, NOTE).summary(),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"findings": (DAMAGE, DAMAGE, NOTE)}, "5.0 MB read: 2 findings of damage, 1 note"),
        ({}, "4 packs, 5.0 MB read: no damage found, 0 notes"),
        ({"deep": False}, "sizes and headers alone: no damage found"),
        ({"versions": 1, "journal_entries": 1, "packs": 1}, "1 version in 1 run, 1 journal entry"),
    ],
)
def test_its_summary_says_how_much_was_looked_at(changes, said):
    assert said in report(**changes).summary()
    assert repr(report(**changes)).splitlines()[-1] == report(**changes).summary()


def test_what_a_name_says_is_shown_and_not_obeyed():
    hostile = Finding("unknown", "note", None, "runs/\x1b[31m\u202eevil", "a\nb")

    assert r"runs/\x1b[31m\u202eevil" in repr(report(hostile))
    assert r"a\nb" in repr(report(hostile))
