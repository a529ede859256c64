"""What a case of fidelity is: one thing with state, and the check that it goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One row of ``docs/reference/fidelity.md``, and one test."""

    kind: str
    """The table it stands in: ``optimizer``, ``scheduler``, ``wrapper``, ``data``, …"""
    name: str
    """What is saved, e.g. ``AdamW``."""
    option: str
    """What of it is chosen, e.g. ``amsgrad=True``; empty for the defaults."""
    run: Callable[[Path], list[str]]
    """Does the check in an empty folder, and returns what was checked, in a few words each
    (``weights``, ``losses``); an AssertionError says what came back otherwise."""

    @property
    def title(self) -> str:
        """How tests and messages name it."""
        return " ".join(filter(None, (self.kind, self.name, self.option)))
