"""Values of parameters that an optimizer alone had, back into those that it has now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptstore.loading.tensors import copies_into, copy_into, form, unwritable
from ckptstore.state.tensors import dtype_name


@dataclass(frozen=True)
class Values:
    """What is put into an optimizer's parameters themselves.

    Attributes:
        pairs: Each parameter that gets a value, and the value.
        mismatched: The numbers of parameters that are left, as they are of another form.
        problems: What keeps values from their parameters, a sentence each.
    """

    pairs: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    mismatched: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def put(self) -> None:
        """Copy the values into the parameters, in place."""
        for mine, value in self.pairs:
            if copies_into(mine, value):
                copy_into(mine, value)
            else:  # a floating tensor in another dtype
                with torch.no_grad():
                    mine.copy_(value)


def plan_values(
    optimizer: torch.optim.Optimizer,
    saved: Any,
    numbers: Sequence[Sequence[int | None]],
    restored: Collection[int],
    *,
    strict: bool,
    converts: bool,
) -> Values:
    """Say which values go into which parameters; nothing is changed.

    Args:
        optimizer: The one whose state is put back.
        saved: What was saved: values by the number that the parameter had.
        numbers: For each group the saved number of each parameter, None for none.
        restored: The ids of parameters that get their values as their module's.
        strict: Whether what does not fit is refused.
        converts: Whether floating values may be of another dtype.
    """
    if not isinstance(saved, Mapping) or not all(
        type(number) is int and isinstance(value, torch.Tensor) for number, value in saved.items()
    ):
        return Values(problems=["the values of its parameters are no tensors by number"])
    flat = [each for group in optimizer.param_groups for each in group["params"]]
    found = Values()
    for place, number in enumerate(number for group in numbers for number in group):
        if number not in saved or id(flat[place]) in restored:
            continue
        mine, value = flat[place], saved[number]
        problem = _problem(mine, value, converts=converts)
        if problem is None:
            found.pairs.append((mine, value))
        elif strict:
            found.problems.append(f"parameter {place}, which no module has, {problem}")
        else:
            found.mismatched.append(place)
    return found


def _problem(mine: torch.Tensor, value: torch.Tensor, *, converts: bool) -> str | None:
    """Say why a value can't be copied into a parameter."""
    reason = unwritable(mine)
    if reason is not None:
        return f"{reason}, so nothing can be copied into it"
    if is_lazy(mine):
        return f"is lazy here, and was saved as {_said(value)}: run one forward pass first"
    if copies_into(mine, value) and mine.layout is torch.strided:
        return None
    if (
        converts
        and not form(mine)
        and not form(value)
        and mine.shape == value.shape
        and mine.is_floating_point()
        and value.is_floating_point()
    ):
        return None
    return f"is {_said(mine)} here, and was saved as {_said(value)}"


def _said(tensor: torch.Tensor) -> str:
    return f"{form(tensor) or dtype_name(tensor.dtype)}, shape {list(tensor.shape)}"
