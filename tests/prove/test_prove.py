"""The figures of the proofs are read off what they print, and kept in the page by proof."""

from __future__ import annotations

import pytest

from tests.prove import __main__ as prove

KILL = "operation  storage\nsave       local   12  3\n1,234 points, 0 broken promises\n"
BYTES = """\
                                                   cases     found  harmless
ckptstore.json, decoded                            1,000       990        10
00000001.jsonl, loaded                               200       199         1

0 violations in 12 s
"""


def test_figures_are_read_off_a_line():
    assert prove.said(r"^([\d,]+) points", "at {} points")(KILL) == "at 1,234 points"


def test_figures_are_summed_over_a_table():
    assert prove.summed("{} and {}", 0, 2)(BYTES) == "1,200 and 11"


def test_output_without_figures_is_no_proof():
    with pytest.raises(ValueError, match="no line"):
        prove.said(r"^([\d,]+) points", "{}")("")


def test_a_proof_takes_the_place_of_its_last_run_and_leaves_the_others(tmp_path, monkeypatch):
    page = tmp_path / "reliability.md"
    page.write_text(f"before\n{prove.BEGIN}\n{prove.END}\nafter\n")
    monkeypatch.setattr(prove, "PAGE", page)

    prove.record("mutation", "3 guards", 60)
    prove.record("kill", "5 points", 60)
    prove.record("mutation", "4 guards", 2 * 3600)

    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| `kill`", "5 points"],
        ["| `mutation`", "4 guards"],
    ]
    assert "2.0 hours" in rows[1]


def test_every_proof_is_a_module_that_can_be_run():
    assert {proof.name for proof in prove.PROOFS} == {
        each.parent.name for each in (prove.ROOT / "tests" / "prove").glob("*/__main__.py")
    }
