"""Policies and histories as hypothesis makes them up."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from ckptstore.upkeep.keep import Keep
from ckptstore.upkeep.retention import Candidate
from tests.upkeep.pasts import NOW

METRICS = ("val_loss", "val_acc")
VALUES = st.sampled_from([math.nan, 0.0, 0.25, 0.5, 1.0, math.inf, -math.inf])

POLICIES: dict[str, st.SearchStrategy[Any]] = {
    "last": st.integers(1, 5),
    "best": st.integers(1, 4),
    "best_by": st.dictionaries(
        st.sampled_from(METRICS), st.sampled_from(["min", "max"]), min_size=1
    ),
    "every_epochs": st.integers(1, 4),
    "within": st.integers(1, 30).map(lambda hours: timedelta(hours=hours)),
}


@st.composite
def options(draw: st.DrawFn, least: int = 1) -> dict[str, Any]:
    """The keywords of a policy."""
    names = draw(st.sets(st.sampled_from(sorted(POLICIES)), min_size=least))
    return {name: draw(POLICIES[name]) for name in sorted(names)}


def keeps() -> st.SearchStrategy[Keep]:
    return options().map(lambda given: Keep(**given))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """The live versions of a run: some were retired before, in no order."""
    found = []
    for number in range(1, draw(st.integers(0, 14)) + 1):
        if draw(st.integers(0, 5)) == 0:
            continue
        found.append(
            Candidate(
                number,
                draw(st.sampled_from(["checkpoint"] * 3 + ["package"])),
                created_at=NOW - timedelta(hours=draw(st.integers(-2, 40))),
                epoch=draw(st.none() | st.integers(-1, 6)),
                metrics=draw(st.dictionaries(st.sampled_from(METRICS), VALUES)),
                tags=tuple(draw(st.sets(st.sampled_from(["a", "b"]), max_size=1)))
                if draw(st.integers(0, 4)) == 0
                else (),
                parent=draw(st.none() | st.integers(1, number)),
                intact=draw(st.integers(0, 5)) > 0,
                complete=draw(st.integers(0, 3)) > 0,
            )
        )
    return draw(st.permutations(found))
