from __future__ import annotations

import pytest

from tests.bench import page, plots
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
def test_a_suite_writes_its_own_section_and_no_other(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(skeleton("bench", "bench-s3"))

    page.write("bench", [QUESTION], folder=tmp_path, page=file)

    text = file.read_text()
    assert text.startswith("intro\n")
    assert "### Saves" in text
    assert "![Saves: medians, and lines from lowest to highest](benchmarks/saves.svg)" in text
    assert "old bench\n" not in text
    assert "old bench-s3" in text
    assert (tmp_path / "benchmarks" / "saves.svg").read_text() == "<svg>Saves</svg>"


@pytest.mark.usefixtures("drawn")
def test_a_section_can_be_written_again(tmp_path):
    file = tmp_path / "benchmarks.md"
    file.write_text(skeleton("bench"))
    page.write("bench", [QUESTION], folder=tmp_path, page=file)
    once = file.read_text()

    page.write("bench", [QUESTION], folder=tmp_path, page=file)

    assert file.read_text() == once


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
    before, after = page.around(page.PAGE.read_text(), suite)
    assert before
    assert after


def test_the_machine_and_the_versions_are_told(tmp_path, capsys):
    page.write("bench", [], packages=("pytest", "no-such-package"), folder=tmp_path, page=None)

    told = capsys.readouterr().out
    assert f"pytest {pytest.__version__}" in told
    assert "no-such-package" not in told
    assert "cores" in told
