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
class StateLeft:
    """What of saved state was not put back. Empty: all of it was.

    Of an optimizer's, by parameter; of a gradient scaler's that is not enabled, by key. Parameters
    that got no saved state keep what they had: none, in an optimizer that has not made a step.
    """

    not_chosen: tuple[str, ...] = ()
    """Their keys were not chosen (``only=``, ``skip=``)."""
    not_saved: tuple[str, ...] = ()
    """In the optimizer, and no state was saved for them."""
    unused: tuple[str, ...] = ()
    """State was saved for them, and the optimizer lacks them; or it is that of a scaler that is not
    enabled here."""
    mismatched: tuple[str, ...] = ()
    """They are of another shape than what was saved."""

    def __bool__(self) -> bool:
        return bool(self.not_chosen or self.not_saved or self.unused or self.mismatched)

    def __str__(self) -> str:
        """Return a line for each kind of parameter there is."""
        said = {
            "keys that were not chosen": self.not_chosen,
            "nothing was saved for": self.not_saved,
            "saved, and of no use here": self.unused,
            "of another shape": self.mismatched,
        }
        return "\n".join(f"{kind}: {_listed(names)}" for kind, names in said.items() if names)


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
    parts_left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """With ``strict=False``, loaders that are made otherwise than what was saved, and how: they are
    as they were, at the beginning of an epoch."""
    redrawn: tuple[str, ...] = ()
    """Loaders with workers that go on in the middle of an epoch: random numbers that are drawn in
    workers begin anew there."""
    not_kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By module part, its buffers that are not persistent. No state dict has them, so they are as
    the script built them."""
    overridden: tuple[Overridden, ...] = ()
    """Hyperparameters of optimizers, schedulers and gradient scalers that the checkpoint replaced.
    Where a scheduler goes on, a learning rate is told by what it started from (``initial_lr``)."""
    keys: Mapping[str, KeyReport] = field(default_factory=dict)
    """By module part, which keys stayed as they were: with ``strict=False``, and those that were
    left out when the version was saved. What ``only=`` and ``skip=`` left is not among them."""
    state_left: Mapping[str, StateLeft] = field(default_factory=dict)
    """By optimizer, the parameters whose state was not put back: with ``only=``, ``skip=`` and
    ``strict=False``. And what a gradient scaler that is not enabled has no use for."""
    converted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By part, the dtypes that some of its tensors were converted from: in which they were stored,
    ``save(dtype=…)``, or which they had where the module has others, ``dtype="own"``."""
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
            for part, reasons in self.parts_left.items()
            for line in reasons
        ]
        lines += [
            f"{plain(part)}: random numbers drawn in workers begin anew" for part in self.redrawn
        ]
        lines += [
            f"{plain(part)}, not kept: buffers that are not persistent: {_listed(names)}"
            for part, names in self.not_kept.items()
        ]
        lines += [
            f"{plain(part)}, left as it is: {line}"
            for part, report in self.keys.items()
            for line in str(report).splitlines()
        ]
        lines += [
            f"{plain(part)}, state not put back: {line}"
            for part, left in self.state_left.items()
            for line in str(left).splitlines()
        ]
        lines += [
            f"{plain(part)}: stored in {_listed(dtypes)}, and converted"
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
