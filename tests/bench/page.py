"""The benchmarks page: a section a suite, each written by its own run and no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """Print each question as it is answered, draw its plot, then write the suite's section.

    Args:
        suite: Names the section's marks, such as ``bench-s3``.
        questions: What was measured; may measure while it is asked for the next.
        packages: Whose versions the section tells, beside Python's and torch's. One that is not
            installed is left out: the questions say what is absent.
        folder: Where was written, so that the section names its filesystem.
        page: The page; its plots lie in a folder beside it that is called like it. None prints
            and writes nothing.

    Raises:
        ValueError: The page lacks the suite's marks.
    """
    before, after = ("", "") if page is None else around(page.read_text(), suite)
    lines = []
    for line in section(questions, machine.described(packages, folder), page):
        print(line, flush=True)
        lines.append(line)
    if page is not None:
        page.write_text(before + "\n".join(lines) + after)
        print(f"written to {page.name}")


def section(questions: Iterable[Question], machine: str, page: Path | None) -> Iterator[str]:
    """Yield a section's lines and draw its plots, question by question."""
    yield machine
    yield ""
    for question in questions:
        plot = None
        if page is not None:
            file = page.with_suffix("") / f"{question.key}.svg"
            file.parent.mkdir(exist_ok=True)
            file.write_text(plots.draw(question))
            plot = f"{page.stem}/{file.name}"
        yield from question.lines(plot)


def marks(suite: str) -> tuple[str, str]:
    """Return the lines between which a suite's section lies."""
    return f"<!-- begin: written by make {suite} -->", f"<!-- end: make {suite} -->"


def around(text: str, suite: str) -> tuple[str, str]:
    """Return what stands before a suite's section and after it, its marks included.

    Raises:
        ValueError: The marks aren't there once each, in order.
    """
    begin, end = marks(suite)
    before, found, rest = text.partition(begin + "\n")
    _, ended, after = rest.partition(end)
    if not found or not ended or begin in rest or end in before + after:
        raise ValueError(f"the page needs the lines {begin} and {end}, once each, in this order")
    return before + begin + "\n", "\n" + end + after
