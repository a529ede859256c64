"""Every link between pages leads to a page, and to a heading that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, named, prose

LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE
)
REACHED_FROM = ROOT / "README.md"


def targets(page: Path) -> list[tuple[Path, str]]:
    """Where the links of *page* lead, as file and anchor, leaving out the web."""
    links = [inline or reference for inline, reference in LINK.findall(prose(page))]
    local = [link.partition("#") for link in links if not re.match(r"[a-z]+:", link)]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in local]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    broken = [
        f"{target}#{anchor}"
        for target, anchor in targets(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def test_every_page_can_be_reached_from_the_readme():
    reached: set[Path] = set()
    pending = [REACHED_FROM]
    while pending:
        page = pending.pop()
        if page.is_dir():  # shown as a list of what is in it
            pending += page.glob("*.md")
        elif page in PAGES and page not in reached:
            reached.add(page)
            pending += [target for target, _ in targets(page)]
    assert [named(page) for page in PAGES if page not in reached] == []
