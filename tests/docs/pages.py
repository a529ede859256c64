"""The pages of the documentation: README.md, the other pages at the top, and docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<language>[\w-]*)")
HIDDEN = re.compile(r"^<!-- *python *$")


@dataclass(frozen=True)
class Snippet:
    """A block of code in a page; *line* is where its first line stands, from 1."""

    language: str
    line: int
    code: str


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def snippets(page: Path) -> list[Snippet]:
    """The fenced blocks of *page*, and what it runs without showing: ``<!-- python ... -->``."""
    found: list[Snippet] = []
    language, end, start, indent = "", "", 0, 0
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if end:
            if line.strip() == end:
                code = [text[indent:] for text in lines[start : number - 1]]
                found.append(Snippet(language, start + 1, "\n".join(code)))
                end = ""
        elif fence := FENCE.match(line):
            language, end = fence["language"], fence["ticks"]
            start, indent = number, len(fence["indent"])
        elif HIDDEN.match(line):
            language, end, start, indent = "python", "-->", number, 0
    assert not end, f"{named(page)}:{start}: this block is never closed"
    return found


def prose(page: Path) -> str:
    """The text of *page* without its blocks of code and without code in a line."""
    text = re.sub(r"^( *)(```+).*?^\1\2 *$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """What a link into *page* may name after ``#``, as GitHub makes it from the headings."""
    blocks = r"^( *)(```+).*?^\1\2 *$"
    text = re.sub(blocks, "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+ +(.*?) *#*$", text, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        again = seen.get(slug, 0)
        seen[slug] = again + 1
        found.add(f"{slug}-{again}" if again else slug)
    return found
