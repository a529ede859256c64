from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.bench import machine, page, plots
from tests.bench.questions import Question

QUESTION = Question(key="saves", title="Saves", asks="How long?", measured={"ckptstore": [0.5]})


def skeleton(*suites):
    return "intro\n" + "".join(
        f"\n{begin}\nold {suite}\n{end}\n" for suite in suites for begin, end in [page.marks(suite)]
    )


@pytest.fixture
def drawn(monkeypatch):
    """Each plot is its question's title: Matplotlib is installed for `make bench` alone."""
    monkeypatch.setattr(plots, "draw", lambda question: f"<svg>{question.title}</svg>")


@pytest.mark.usefixtures("drawn")
def test_a_question_is_put_into_its_suites_section_and_no_other(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(skeleton("bench", "bench-s3"))

    page.write("bench", [QUESTION], folder=tmp_path, page=file)

    before, after = page.around(file.read_text(), *page.marks("bench"))
    section = file.read_text().removeprefix(before).removesuffix(after)
    assert before.startswith("intro\n")
    assert "### Saves" in section
    assert "![Saves: medians, and lines from lowest to highest](benchmarks/saves.svg)" in section
    assert "old bench-s3" in after
    assert (tmp_path / "benchmarks" / "saves.svg").read_text() == "<svg>Saves</svg>"


@pytest.mark.usefixtures("drawn")
def test_a_question_that_is_asked_again_replaces_its_own_answer_alone(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(skeleton("bench"))
    other = replace(QUESTION, key="loads", title="Loads")
    page.write("bench", [QUESTION, other], folder=tmp_path, page=file)
    first = file.read_text()

    page.write("bench", [QUESTION], folder=tmp_path, page=file)
    assert file.read_text() == first
    page.write(
        "bench", [replace(QUESTION, measured={"ckptstore": [2.5]})], folder=tmp_path, page=file
    )

    assert file.read_text() == first.replace("0.5 s", "2.5 s", 1)
    assert first.count("0.5 s") == 2


@pytest.mark.usefixtures("drawn")
def test_each_answer_says_when_where_and_how_often_it_was_measured(tmp_path, capsys):
    page.write("bench", [QUESTION], packages=("pytest",), folder=tmp_path, page=None)

    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"Measured on \d{4}-\d\d-\d\d, each 1 time: Python 3\.", last)
    assert f"pytest {pytest.__version__}" in last
    assert "cores" in last


@pytest.mark.usefixtures("drawn")
def test_what_was_answered_stays_where_a_later_question_fails(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(skeleton("bench"))

    def questions():
        yield QUESTION
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        page.write("bench", questions(), folder=tmp_path, page=file)
    assert "### Saves" in file.read_text()


def test_without_a_page_it_prints_and_writes_nothing(tmp_path, capsys):
    page.write("bench", [QUESTION], folder=tmp_path, page=None)

    assert "### Saves" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", skeleton("bench-s3"), skeleton("bench", "bench")], ids=["none", "others", "twice"]
)
def test_marks_that_are_missing_are_found_before_anything_is_measured(tmp_path, text):
    file = tmp_path / "benchmarks.md"
    file.write_text(text)

    def questions():
        pytest.fail("it began to measure")
        yield QUESTION

    with pytest.raises(ValueError, match="<!-- begin: written by make bench -->"):
        page.write("bench", questions(), folder=tmp_path, page=file)
    assert file.read_text() == text


@pytest.mark.parametrize(
    "suite", ["bench", "bench --state 6GB", "bench-s3", "bench-growth", "bench-gpu"]
)
def test_the_page_has_a_section_for_each_suite(suite):
    before, after = page.around(page.PAGE.read_text(), *page.marks(suite))
    assert before
    assert after


def test_a_package_that_is_not_installed_is_not_told(tmp_path):
    assert "no-such-package" not in machine.described(["no-such-package"], tmp_path)
