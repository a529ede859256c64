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

    by_name = {proof.called: proof for proof in prove.PROOFS}
    prove.record(by_name["mutation"], (), "3 guards", 0, 60)
    prove.record(by_name["kill"], ("--every", "10"), "5 points", 0, 60)
    prove.record(by_name["parsers, journal"], ("--atheris",), "6 inputs", 0, 60)
    prove.record(by_name["mutation"], (), "4 guards", 2, 2 * 3600)

    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| `kill`", "`--every 10`", "5 points", "0"],
        ["| `parsers, journal`", "`--atheris`", "6 inputs", "0"],
        ["| `mutation`", "", "4 guards", "2"],
    ]
    assert "2.0 hours" in rows[2]


@pytest.mark.parametrize(
    ("name", "status", "output", "broken"),
    [
        ("kill", 0, KILL, 0),
        ("kill", 1, KILL.replace("0 broken", "1,003 broken"), 1003),
        ("bytes", 0, BYTES, 0),
        ("bytes", 1, BYTES, None),  # it says that all is well, and ended as if it were not
        ("bytes", 0, BYTES.replace("0 violations", "2 violations"), None),
        ("bytes", 1, "Traceback (most recent call last):", None),
        ("parsers, store", 0, "Done 53728 runs in 16 second(s)", 0),
        ("parsers, store", 77, "SUMMARY: libFuzzer: fuzz target exited", None),
        ("parsers, store", 0, "", None),
    ],
)
def test_how_many_promises_were_broken_is_what_the_proof_says(name, status, output, broken):
    (proof,) = [each for each in prove.PROOFS if each.called == name]
    assert proof.count(status, output) == broken


def pretend(monkeypatch, tmp_path, status, output):
    """Let every proof end like that; return the page."""
    page = tmp_path / "reliability.md"
    page.write_text(f"{prove.BEGIN}\n{prove.END}\n")
    monkeypatch.setattr(prove, "PAGE", page)
    monkeypatch.setattr(prove, "run", lambda *_: (status, output))
    monkeypatch.setattr("sys.argv", ["prove", "--only", "kill"])
    return page


def test_a_broken_promise_fails_and_stands_in_the_page(tmp_path, monkeypatch):
    page = pretend(monkeypatch, tmp_path, 1, KILL.replace("0 broken", "2 broken"))
    assert prove.main() == 1
    assert "killed at 1,234 points | 2 |" in page.read_text()


def test_a_proof_that_breaks_off_fails_and_writes_nothing(tmp_path, monkeypatch):
    page = pretend(monkeypatch, tmp_path, 1, "Traceback")
    assert prove.main() == 1
    assert "kill" not in page.read_text()


def test_what_needs_a_package_that_is_not_there_is_left_out_and_said(tmp_path, monkeypatch, capsys):
    page = pretend(monkeypatch, tmp_path, 0, "journal 3 {}\n0 violations")
    monkeypatch.setattr("sys.argv", ["prove", "--only", "parsers"])
    monkeypatch.setattr(prove.importlib.util, "find_spec", lambda _: None)
    assert prove.main() == 0
    assert "pip install atheris" in capsys.readouterr().out
    assert "parsers, " not in page.read_text()


def test_every_proof_is_a_module_that_can_be_run():
    assert {proof.name for proof in prove.PROOFS} == {
        each.parent.name for each in (prove.ROOT / "tests" / "prove").glob("*/__main__.py")
    }
