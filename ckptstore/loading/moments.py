"""What of an optimizer's saved state goes onto which of its parameters, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch

from ckptstore.audit import StateLeft
from ckptstore.loading.choice import EVERYTHING, Choice
from ckptstore.loading.chosen import Chosen
from ckptstore.loading.mismatches import moment_problems, vector_problems
from ckptstore.state.matching import (
    Match,
    Parameter,
    Parameters,
    match,
    present_parameters,
    saved_parameters,
)
from ckptstore.state.optimizers import Groups, given_names

NOTHING_LEFT = StateLeft()


@dataclass(frozen=True)
class Moments:
    """How an optimizer and its saved state go together.

    Attributes:
        numbers: For each group the saved number of each parameter; None if it keeps what state it
            has, if any.
        left: What is not put back.
        problems: What keeps the state from the optimizer, a sentence each; if there are any, the
            rest is not complete.
    """

    numbers: list[list[int | None]] = field(default_factory=list)
    left: StateLeft = NOTHING_LEFT
    problems: list[str] = field(default_factory=list)

    @property
    def kept(self) -> frozenset[int]:
        """The numbers of the parameters that keep what state they have."""
        flat = [number for group in self.numbers for number in group]
        return frozenset(place for place, number in enumerate(flat) if number is None)

    def leaving(self, mismatched: Sequence[int]) -> Moments:
        """Return the same, but for parameters whose values don't fit: they keep what they have.

        Args:
            mismatched: Their numbers in the optimizer.
        """
        if not mismatched:
            return self
        counter = count()
        numbers = [
            [None if next(counter) in mismatched else number for number in group]
            for group in self.numbers
        ]
        names = (*self.left.mismatched, *(f"parameter {number}" for number in mismatched))
        return replace(self, numbers=numbers, left=replace(self.left, mismatched=names))


@dataclass(frozen=True)
class Around:
    """What is restored with an optimizer, and how.

    Attributes:
        modules: The modules by part.
        choices: Which keys of each are put back.
        chosen: Their state as it was read.
        mismatched: By part, plain names in the module whose saved values are of another shape.
        strict: Whether a parameter without saved state, or state without one, is refused.
    """

    modules: Mapping[str, torch.nn.Module]
    choices: Mapping[str, Choice]
    chosen: Mapping[str, Chosen]
    mismatched: Mapping[str, tuple[str, ...]]
    strict: bool

    def renamed(self, part: str | None, key: str) -> str:
        """Return what a key of a part is called now; without a part, a name that was given."""
        if part is not None:
            return self.choices.get(part, EVERYTHING).renamed(key)
        others = (choice.renamed(key) for choice in self.choices.values())
        return next((other for other in others if other != key), key)

    def was_chosen(self, name: str | None) -> bool:
        """Say whether the key is among those chosen that a saved parameter had."""
        part, slash, key = (name or "").partition("/")
        return not slash or self.choices.get(part, EVERYTHING).chooses(key)

    def wants(self, parameter: Parameter) -> bool:
        """Say whether a value was asked for of a parameter that is there, by any of its names."""
        return not parameter.of_modules or any(map(self._wants, parameter.of_modules))

    def _wants(self, name: str) -> bool:
        part, _, key = name.partition("/")
        leave = self.chosen[part].leave if part in self.chosen else None
        return leave is None or leave.wants(key)

    def is_mismatched(self, parameter: Parameter) -> bool:
        """Say whether its own value was of another shape, so that it stayed as it was."""
        return any(
            name.partition("/")[2] in self.mismatched.get(name.partition("/")[0], ())
            for name in parameter.of_modules
        )


def plan_moments(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    recorded: Groups | None,
    around: Around,
) -> Moments:
    """Say which saved state goes onto which parameter.

    Args:
        optimizer: The one that is to take the state; it is not changed.
        state: As it was saved, in the layout of torch's optimizers.
        recorded: The names of its parameters as they were saved.
        around: What is restored with it.
    """
    given = given_names(state["param_groups"])
    if recorded is not None and list(map(len, recorded)) != list(map(len, given)):
        return Moments(problems=["its groups are not those whose parameters' names were recorded"])
    saved = saved_parameters(recorded, given, around.renamed)
    present = present_parameters(optimizer, around.modules)
    found = match(saved, present)
    if found.problems:
        return Moments(problems=[*found.problems, *_sentences(found.lacking, found.unused)])
    names = [name for group in recorded or given for name in group]
    return _chosen(optimizer, state, names, present, found, around)


def _chosen(  # noqa: PLR0917 - both sides, and what is known of them
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    names: list[str | None],
    present: Parameters,
    found: Match,
    around: Around,
) -> Moments:
    flat = [each for group in present for each in group]
    tensors = [each for group in optimizer.param_groups for each in group["params"]]
    not_chosen = {called(each): None for each in flat if not around.wants(each)}
    not_saved = {
        number: name for number, name in found.lacking.items() if around.wants(flat[number])
    }
    unused = {}
    for number, name in found.unused.items():
        if around.was_chosen(names[number]):
            unused[number] = name
        else:
            not_chosen[str(names[number])] = None
    mismatched: dict[str, None] = {}
    problems: list[str] = []
    numbers: dict[int, int] = {}
    for each, tensor in zip(flat, tensors, strict=True):
        saved = found.saved_of.get(each.number)
        if saved is None or not around.wants(each):
            continue
        moments = state["state"].get(saved, {})
        wrong = moment_problems(optimizer, tensor, moments, _name(names, saved))
        if not around.strict and (wrong or around.is_mismatched(each)):
            mismatched[called(each)] = None
            continue
        problems += wrong
        numbers[each.number] = saved
    if around.strict:
        problems += _sentences(not_saved, unused)
    wanted = [[numbers.get(each.number) for each in group] for group in present]
    if not problems:
        problems = vector_problems(optimizer, state, wanted, len(names))
    left = StateLeft(
        tuple(not_chosen),
        tuple(called(flat[number]) for number in not_saved),
        tuple(names[number] or f"parameter {number}" for number in unused),
        tuple(mismatched),
    )
    return Moments(wanted, left, problems)


def _sentences(lacking: Mapping[int, str], unused: Mapping[int, str]) -> list[str]:
    return [
        *(f"no state was saved for {name}" for name in lacking.values()),
        *(f"state was saved for {name}, which it lacks" for name in unused.values()),
    ]


def left_by_scaler(part: object, state: Any) -> StateLeft:
    """Say what a gradient scaler takes nothing of, because it is not enabled: all, without a word.

    It is no mismatch: on a CPU a training's scaler may well not be, and it goes on without.
    """
    if isinstance(part, torch.amp.GradScaler) and not part.is_enabled():
        return StateLeft(unused=tuple(map(str, state)) if isinstance(state, Mapping) else ())
    return NOTHING_LEFT


def called(parameter: Parameter) -> str:
    """Return what a parameter is called in an audit."""
    names = [*parameter.of_modules, parameter.given]
    return names[0] or f"parameter {parameter.number}"


def _name(names: list[str | None], number: int) -> str:
    return repr(names[number]) if names[number] else f"parameter {number}"
