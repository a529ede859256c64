"""Names that are all but another one: slips of the keyboard. Needs no torch."""

from __future__ import annotations

import difflib
from functools import lru_cache

# Options that take something with state.
PART_OPTIONS = frozenset({"model", "optimizer"})
# How alike two names must be to be taken for a slip of the keyboard; 'epochs' to 'epoch' is 0.91.
CLOSE = 0.85
# Two letters of which have changed places: shorter ones are like too much, as rng is like nrg.
SHORTEST_SWAPPED = 4


@lru_cache(maxsize=1024)  # a training loop asks the same each time
def close_to(name: str, options: frozenset[str]) -> str | None:
    """Return the one of some names that another is a slip of, None if it is none."""
    swapped = [each for each in sorted(options) if _is_swapped(name, each)]
    close = swapped or difflib.get_close_matches(name, sorted(options), n=1, cutoff=CLOSE)
    return close[0] if close else None


def _is_swapped(name: str, option: str) -> bool:
    """Say whether two neighbouring letters of an option changed places: ``modle``."""
    return len(option) >= SHORTEST_SWAPPED and name in {
        f"{option[:at]}{option[at + 1]}{option[at]}{option[at + 2 :]}"
        for at in range(len(option) - 1)
    }
