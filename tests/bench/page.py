"""The benchmarks page: a section a suite, and in it a block a question, replaced one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import machine, plots
from .questions import Question

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def write(
    suite: str,
    questions: Iterable[Question],
    *,
    packages: Sequence[str] = (),
    folder: Path,
    page: Path | None = PAGE,
) -> None:
    """Print each question as it is answered, draw its plot and replace its block on the page.

    So a suite can be measured in pieces, and one that is interrupted has written what it knows.

    Args:
        suite: Names the section's marks, such as ``bench-s3``. A question that has no block on the
            page yet gets one at the section's end.
        questions: What was measured; may measure while it is asked for the next.
        packages: Whose versions a block tells, beside Python's and torch's. One that is not
            installed is left out: the questions say what is absent.
        folder: Where was written, so that a block names its filesystem.
        page: The page; its plots lie in a folder beside it that is called like it. None prints
            and writes nothing.

    Raises:
        ValueError: The page lacks the suite's marks.
    """
    if page is not None:
        around(page.read_text(), *marks(suite))
    told = machine.described(packages, folder)
    for question in questions:
        plot = None if page is None else f"{page.stem}/{question.key}.svg"
        lines = list(block(question, told, plot))
        print("\n".join(lines), flush=True)
        if page is not None:
            file = page.with_suffix("") / f"{question.key}.svg"
            file.parent.mkdir(exist_ok=True)
            file.write_text(plots.draw(question))
            page.write_text(replaced(page.read_text(), suite, question.key, lines))
            print(f"written to {page.name}", flush=True)


def block(question: Question, machine: str, plot: str | None) -> Iterator[str]:
    """Yield a question's lines, and last when, where and how often it was measured."""
    yield from question.lines(plot)
    counts = sorted({len(values) for values in question.measured.values()})
    often = " or ".join(f"{count:,}" for count in counts)
    times = "time" if often == "1" else "times"
    yield f"Measured on {datetime.now(UTC):%Y-%m-%d}, each {often} {times}: {machine}"


def replaced(text: str, suite: str, key: str, lines: Iterable[str]) -> str:
    """Return the page with a question's block replaced, or put at the end of its suite's section.

    Raises:
        ValueError: The page lacks the suite's marks, or has some of the question's twice.
    """
    begin, end = question_marks(key)
    body = "\n".join(lines)
    if begin in text:
        before, after = around(text, begin, end)
        return f"{before}\n{body}\n{after}"
    last = marks(suite)[1]
    head, _, tail = text.partition(last)
    return f"{head.rstrip()}\n\n{begin}\n{body}\n{end}\n\n{last}{tail}"


def marks(suite: str) -> tuple[str, str]:
    """Return the lines between which a suite's section lies."""
    return f"<!-- begin: written by make {suite} -->", f"<!-- end: make {suite} -->"


def question_marks(key: str) -> tuple[str, str]:
    """Return the lines between which a question's block lies."""
    return f"<!-- question: {key} -->", f"<!-- end of question: {key} -->"


def around(text: str, begin: str, end: str) -> tuple[str, str]:
    """Return what stands before what lies between two marks and after it, marks included.

    Raises:
        ValueError: The marks aren't there once each, in order.
    """
    before, found, rest = text.partition(begin + "\n")
    _, ended, after = rest.partition("\n" + end)
    if not found or not ended or begin in rest or end in before + after:
        raise ValueError(f"the page needs the lines {begin} and {end}, once each, in this order")
    return before + begin, end + after
