"""What is saved: a large part that seldom changes and a small one that always does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

LARGE, SMALL = 6_000, 40


@dataclass(frozen=True)
class State:
    """What is saved, by two numbers; the same number gives the same bits."""

    backbone: int
    head: int

    def model(self) -> dict[str, torch.Tensor]:
        """Return the state dict of the part ``model``."""
        return {
            "backbone": torch.arange(LARGE, dtype=torch.float32) * 2 + self.backbone,
            "head": torch.arange(SMALL, dtype=torch.float64) - self.head,
            "nothing": torch.zeros(0, 3),
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self


class Box:
    """A part beside the model that goes back into a live object."""

    def __init__(self, state: State | None = None) -> None:
        self.held: dict[str, Any] = {}
        if state is not None:
            self.held = {"count": state.head, "sum": torch.tensor([state.backbone, state.head])}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.held)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = dict(state)


def same(left: Any, right: Any) -> bool:
    """Say whether two states are the same, bit for bit."""
    if left.keys() != right.keys():
        return False
    return all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype
        if isinstance(left[name], torch.Tensor)
        else left[name] == right[name]
        for name in left
    )
