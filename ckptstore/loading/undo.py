"""A module as it was before its own loading code ran, to be put back if that code fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptstore.loading.tensors import copied, copyable, is_plain, made_of, set_sparse, unwritable

TORCHS_OWN = (torch.Tensor, torch.nn.Parameter)
_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@dataclass(frozen=True)
class _Values:
    tensor: torch.Tensor
    kind: type[torch.Tensor]
    memory: torch.Tensor | None
    """What holds its elements, of a lazy tensor nothing; None where others do."""
    parts: tuple[torch.Tensor, ...]
    """What it is made of."""
    copy: torch.Tensor | None
    """Its values, of a plain one on the CPU; None where it has none, or none that could change."""
    attributes: dict[str, Any]
    """What Python holds of it; of a subclass, what it is made of among that."""


class Before:
    """What a module held at one moment.

    Args:
        module: On any device; its parameters and buffers are copied to the CPU.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        # A scripted module's attributes live in C++; torch's loading code only writes its tensors.
        children = [
            child for child in module.modules() if not isinstance(child, torch.jit.ScriptModule)
        ]
        self._attributes = [(vars(child), _copied(vars(child))) for child in children]
        self._values = [_values(tensor) for tensor in [*module.parameters(), *module.buffers()]]

    def put_back(self) -> None:
        """Give the module back its tensors, each with its values in its memory, and attributes.

        What loading code changed inside of an attribute's object stays changed.
        """
        for attributes, before in self._attributes:
            for name in [name for name in attributes if name not in before]:
                del attributes[name]
            for name, value in before.items():
                if name in _TABLES:  # the same object, as others may hold it
                    attributes[name].clear()
                    attributes[name].update(value)
                else:
                    attributes[name] = value
        with torch.no_grad():
            for values in self._values:
                _put_back(values)


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if name in _TABLES else value for name, value in attributes.items()}


def _values(tensor: torch.Tensor) -> _Values:
    # A subclass has attributes instead: under .data it has lost them.
    memory = tensor.data if type(tensor) in TORCHS_OWN or is_plain(tensor) else None
    copy = None
    if not is_lazy(tensor) and unwritable(tensor) is None:
        plain = is_plain(tensor)
        copy = copyable(tensor.detach()).to("cpu", copy=True) if plain else copied(tensor)
    parts = made_of(tensor if memory is None else memory)
    return _Values(tensor, type(tensor), memory, parts, copy, dict(vars(tensor)))


def _put_back(values: _Values) -> None:
    tensor = values.tensor
    if values.memory is not None:
        tensor.data = values.memory
    if type(tensor) is not values.kind:  # a lazy tensor that got its shape
        tensor.__class__ = values.kind
    vars(tensor).clear()
    vars(tensor).update(values.attributes)
    if values.copy is None:
        return
    if values.copy.is_quantized:
        tensor.copy_(values.copy)  # its scale comes along
        return
    if values.copy.layout not in (torch.strided, torch.sparse_coo):
        set_sparse(tensor, values.copy)  # what loading code resized in place
        return
    for part, before in zip(values.parts, made_of(values.copy), strict=True):
        copyable(part).copy_(before)
