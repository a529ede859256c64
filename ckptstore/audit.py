"""What a restore did and what it did not, for whoever looks at it at three in the morning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptstore.key_report import KeyReport
from ckptstore.text import plain

SHOWN_CHARACTERS = 200
"""How much of a value is shown."""


@dataclass(frozen=True)
class Overridden:
    """A hyperparameter of the script that the checkpoint replaced."""

    name: str
    """E.g. ``optimizer/param_groups/0/lr``."""
    script: Any
    checkpoint: Any


@dataclass(frozen=True)
class Audit:
    """What a restore did and did not do. ``print(audit)`` says it in lines."""

    restored: tuple[str, ...] = ()
    """Parts that were put back, the generators of the process (``rng``) included."""
    not_asked_for: tuple[str, ...] = ()
    """Parts that were saved and that nobody asked for."""
    not_saved: tuple[str, ...] = ()
    """Parts that were asked for and not saved: they are as they were. ``rng`` stands here too if
    the generators were not recorded. Other parts only with ``strict=False``."""
    overridden: tuple[Overridden, ...] = ()
    """Hyperparameters of optimizers, schedulers and gradient scalers that the checkpoint replaced.
    Where a scheduler goes on, a learning rate is told by what it started from (``initial_lr``)."""
    keys: Mapping[str, KeyReport] = field(default_factory=dict)
    """By module part, which keys stayed as they were: with ``strict=False``, and those that were
    left out when the version was saved. What ``only=`` and ``skip=`` left is not among them."""
    converted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By part, the dtypes in which some of its tensors were stored, ``save(dtype=…)``; they were
    converted back to those they had."""
    environment: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """What differs between then and now: name -> (then, now)."""

    def __str__(self) -> str:
        """Return a line for each thing there is to say."""
        lines = [f"restored: {_listed(self.restored) or 'nothing'}"]
        if self.not_saved:
            lines.append(f"not saved, left as they are: {_listed(self.not_saved)}")
        if self.not_asked_for:
            lines.append(f"saved, not asked for: {_listed(self.not_asked_for)}")
        lines += [
            f"{plain(part)}, left as it is: {line}"
            for part, report in self.keys.items()
            for line in str(report).splitlines()
        ]
        lines += [
            f"{plain(part)}: stored in {_listed(dtypes)}, and converted back"
            for part, dtypes in self.converted.items()
        ]
        lines += [
            f"{plain(one.name)}: the script has {_shown(one.script)}, the checkpoint had "
            f"{_shown(one.checkpoint)} and was followed"
            for one in self.overridden
        ]
        lines += [
            f"{plain(name)}: was {_shown(then)}, is {_shown(now)}"
            for name, (then, now) in self.environment.items()
        ]
        return "\n".join(lines)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(plain, names))


def _shown(value: object) -> str:
    """Return a value on one line, of a length to be read."""
    text = plain(repr(value))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
