from __future__ import annotations

import json
from dataclasses import replace

from ckptstore.upkeep.keep import Keep
from tests.upkeep.pasts import PASTS, Past, pruned, version

TIES = pruned(PASTS["ties"], Keep(last=1))


def test_kept_and_retired_are_numbers_newest_first():
    assert TIES.kept == [5, 2]
    assert TIES.retired == [4, 3, 1]


def test_repr_is_a_line_and_print_a_table():
    assert repr(TIES) == "<Pruned digits: 2 kept, 3 would be retired (the policy keeps the last)>"
    lines = str(TIES).splitlines()
    assert lines[0].split() == [
        "ref",
        "epoch",
        "val_loss",
        "created",
        "(UTC)",
        "decision",
        "reasons",
    ]
    assert lines[2].split()[-1] == "retire"
    assert lines[-1] == "digits: 2 kept, 3 would be retired (the policy keeps the last)"


def test_what_was_done_is_told_from_what_would_be():
    assert "3 retired (the policy keeps the last)" in str(replace(TIES, dry_run=False))


def test_the_table_shows_names_as_text():
    evil = "\x1b[31m"
    past = Past([version(1, tags=(evil,)), version(2, metrics={evil: 1.0})])
    shown = str(pruned(past, Keep(best_by={evil: "max"})))
    assert evil not in shown
    assert shown.count(r"\x1b[31m") >= 3


def test_json_has_every_decision_with_its_reasons():
    rows = json.loads(json.dumps(TIES.to_json(), allow_nan=False))
    assert [(row["ref"], row["keep"]) for row in rows][:2] == [
        ("digits@5", True),
        ("digits@4", False),
    ]
    assert rows[0]["reasons"] == ["newest intact checkpoint", "the last"]
    assert rows[0]["created_at"].endswith("Z")
    assert rows[1]["reasons"] == []
    assert {row["dry_run"] for row in rows} == {True}


def test_of_many_children_the_first_is_named_in_the_table_and_all_in_json():
    many = tuple(f"parent of sweep/{number}@1" for number in range(400))
    done = pruned(Past([version(1)], protected={1: many}), Keep(last=1))
    assert "parent of sweep/0@1 and 399 more; newest intact checkpoint" in str(done)
    assert str(done).count("parent of") == 1
    assert done.to_json()[0]["reasons"][:400] == list(many)


def test_a_few_children_are_named():
    few = tuple(f"parent of fork@{number}" for number in (1, 2, 3))
    assert "; ".join(few) in str(pruned(Past([version(1)], protected={1: few}), Keep(last=1)))
