from __future__ import annotations

import warnings

import pytest

from ckptstore.cli import screen
from ckptstore.errors import CatalogWarning, warn


def test_complaint_is_text_on_stderr(capsys):
    screen.complain("Error", "first \x1b[31m\nsecond [red]")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "Error: first \\x1b[31m\nsecond [red]\n"


def test_warnings_of_the_library_are_sentences(capsys):
    with screen.warnings_shown():
        warn("the index \x07 is behind", CatalogWarning)
    assert capsys.readouterr().err == "Warning: the index \\x07 is behind\n"


def test_warnings_of_others_are_left_to_them():
    with pytest.warns(UserWarning, match="not ours"), screen.warnings_shown():
        warnings.warn("not ours", UserWarning, stacklevel=1)


def test_table_is_aligned_in_a_pipe(capsys):
    screen.print_table(["ref", "loss"], [["digits@1", "0.5"], ["d@10", "10"]])
    assert capsys.readouterr().out == "ref       loss\ndigits@1   0.5\nd@10        10\n"


def test_cells_stay_whole_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "12")
    screen.print_table(["ref", "a long name"], [["digits@123456", "0.123456"]])
    shown = capsys.readouterr().out
    assert "digits@123456" in shown
    assert "0.123456" in shown


def test_empty_dicts_and_trees_are_leaves(capsys):
    screen.print_metadata(
        {
            "epoch": 0,
            "config": {"empty": {}, "pair": {"$tuple": [1, 2]}, "deep": {"lr": 1}, "none": None},
            "tags": [],
            "parts": {},
        }
    )
    assert capsys.readouterr().out == (
        "epoch  0\n"
        "config\n"
        "  empty  {}\n"
        '  pair   {"$tuple": [1, 2]}\n'
        "  deep\n"
        "    lr  1\n"
        "  none   null\n"
        "parts  {}\n"
    )


def test_an_int_of_any_length_is_shown(capsys):
    screen.print_metadata({"metrics": {"steps": 1000000, "huge": 10**5000}, "parts": {}})
    shown = capsys.readouterr().out
    assert "steps  1000000\n" in shown
    assert "int of 16610 bits" in shown


def test_words_are_flush_left_on_a_terminal_too(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    screen.print_table(["ref", "tags", "loss"], [["d@1", "prod, x", "0.5"], ["d@2", "x", "10"]])
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row.index("prod" if place == 0 else "x") for place, row in enumerate(rows)] == [5, 5]
    assert rows[1].rstrip().endswith("  10")


def test_cells_on_a_terminal_are_text(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen.print_table(["[red]ref[/red]"], [["[bold]digits[/bold]@1"]])
    shown = capsys.readouterr().out
    assert "[red]ref[/red]" in shown
    assert "[bold]digits[/bold]@1" in shown
