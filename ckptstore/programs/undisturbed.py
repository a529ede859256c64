"""A module that is run or traced, and is afterwards as if it had not been."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

CONTAINERS = (dict, OrderedDict, list, set)


@contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Put a module and those in it into eval mode, and all their attributes back at the end.

    The mode is set without calling ``eval()``, which a class may have made to do more. What an
    attribute refers to is put back, and what dicts, lists and sets that are attributes hold.
    """
    kept = [(each, dict(vars(each)), _contents(vars(each).values())) for each in module.modules()]
    try:
        for each, _, _ in kept:
            each.training = False
        yield
    finally:
        for each, attributes, contents in kept:
            vars(each).clear()
            vars(each).update(attributes)
            for container, content in contents:
                _refill(container, content)


def _contents(values: Iterable[Any]) -> list[tuple[Any, Any]]:
    return [(value, value.copy()) for value in values if type(value) in CONTAINERS]


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


class Unwritten:
    """Tensors whose values are put back whenever something wrote to them.

    Args:
        tensors: They are copied, so they had better be small.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._kept = [(each, each.detach().clone(), _writes(each)) for each in tensors]

    def put_back(self) -> None:
        """Put values back where something was written."""
        with torch.no_grad():
            for place, (tensor, value, writes) in enumerate(self._kept):
                if _writes(tensor) != writes:
                    tensor.copy_(value)
                    self._kept[place] = (tensor, value, _writes(tensor))


def writes_to(tensors: Iterable[torch.Tensor]) -> list[int]:
    """Return how often each was written to."""
    return [_writes(each) for each in tensors]


def _writes(tensor: torch.Tensor) -> int:
    """Return the number of writes to a tensor; one of inference mode counts none."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch has no other name for it
