"""Tensors of whatever kind compared, by memory, bits and form; one put into the other."""

from __future__ import annotations

import copy
import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptstore.format.composite import QUANTIZED, SUBCLASS, put_together, take_apart
from ckptstore.state.tensors import dtype_name

BELOW_A_BYTE = re.compile("u?int[1-7]")


def made_of(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the tensors in whose memory a tensor's elements are: itself, unless it has none."""
    apart = None if is_lazy(tensor) else take_apart(tensor)
    if apart is None or apart.node == QUANTIZED:
        return (tensor,)
    return tuple(apart.tensors.values())


def form(tensor: torch.Tensor) -> str:
    """Return what a tensor is, but for dtype and shape; equal if one's values fit into the other.

    Empty for a plain one. The number of a sparse tensor's elements is no part of it, nor is the
    scale of a quantised one.
    """
    if is_lazy(tensor):
        return ""
    apart = take_apart(tensor)
    if apart is None:
        return "" if tensor.layout is torch.strided else str(tensor.layout)
    if apart.node == QUANTIZED:
        return f"{apart.facts['dtype']}, {apart.content}"
    if apart.node == SUBCLASS:
        inner = ", ".join(
            f"{name} {dtype_name(part.dtype)} {list(part.shape)}"
            for name, part in apart.tensors.items()
        )
        return f"{apart.content} ({inner}; {apart.facts['context']})"
    indices, *_, values = apart.tensors.values()
    if apart.content == "coo":
        return f"{tensor.layout}, {tensor.sparse_dim()} sparse dimensions"
    elements = list(values.shape[indices.dim() :])
    return f"{tensor.layout}, indices of {dtype_name(indices.dtype)} and elements of {elements}"


def kind(tensor: torch.Tensor) -> str:
    """Return the same as :func:`form` in a word: a layout, a dtype, a class."""
    return re.split("[ ,]", form(tensor), maxsplit=1)[0]


def is_plain(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is made of no others: one of torch's own kind, dense."""
    return is_lazy(tensor) or take_apart(tensor) is None


def place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what two tensors share exactly when they are the same elements of the same memory.

    That is one object under two names, or a parameter made from another (``Parameter(p)``).
    """
    if is_lazy(tensor):
        return (id(tensor),)
    inner = made_of(tensor)
    if inner[0] is tensor and tensor.layout is torch.strided:
        return _elements(tensor)
    if any(part.layout is not torch.strided for part in inner):
        return (id(tensor),)
    first, *others = map(_elements, inner)
    return (*first, *others, form(tensor))


def _elements(tensor: torch.Tensor) -> tuple[object, ...]:
    return (_storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def memory(tensor: torch.Tensor) -> int:
    """Return the identity of a tensor's storage, while it lives; its own if it has none.

    Of one that is made of several it is the first one's.
    """
    return _storage(made_of(tensor)[0])


def _storage(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - as torch's own serialisation does
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def unwritable(tensor: torch.Tensor) -> str | None:
    """Say why no values can be copied into a tensor, or return None."""
    if is_lazy(tensor) or tensor.layout is not torch.strided:
        return None
    if tensor.is_meta:
        return "is on the meta device"
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "was made in inference mode"
    # As torch sees it (c10/core/TensorImpl, has_internal_overlap): an expanded dimension.
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    if tensor.numel() and any(size > 1 and not step for size, step in steps):
        return "has elements that share memory (it was expanded)"
    return None


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors have equal dtype, shape, form and bits (so NaN equals itself)."""
    if one is other:
        return True
    if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
        return False
    mine, others = take_apart(one), take_apart(other)
    if mine is None or others is None:
        return mine is others and torch.equal(_bits(one), _bits(other.to(one.device)))
    return (mine.node, mine.content, repr(mine.facts), [*mine.tensors]) == (
        others.node,
        others.content,
        repr(others.facts),
        [*others.tensors],
    ) and all(same_bits(part, others.tensors[name]) for name, part in mine.tensors.items())


def same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors have equal dtype, shape and form, and begin at the same address."""
    return (one.dtype, one.shape, form(one)) == (other.dtype, other.shape, form(other)) and all(
        mine.device == others.device
        and mine.data_ptr() == others.data_ptr()
        and (mine.dtype, mine.shape) == (others.dtype, others.shape)
        for mine, others in zip(made_of(one), made_of(other), strict=True)
    )


def writes(tensor: torch.Tensor) -> int:
    """Return a number that grows with every write to a tensor, or to what it is made of."""
    return sum(each._version for each in {id(t): t for t in (tensor, *made_of(tensor))}.values())  # noqa: SLF001 - torch has no other name for it


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with memory of its own, whatever the tensor is made of; it has no gradient."""
    apart = take_apart(tensor)
    if apart is None:
        return copyable(tensor.detach()).clone().view(tensor.dtype)
    parts = {name: copied(part) for name, part in apart.tensors.items()}
    return put_together(apart.node, apart.content, apart.facts, parts)


def copied_value(value: object, memo: dict[int, Any] | None = None) -> Any:
    """Return a deep copy of a nested value. torch has none of some tensors in it.

    Args:
        value: Any.
        memo: As ``copy.deepcopy`` has it: with one for several values, what they share their
            copies share too.
    """
    memo = {} if memo is None else memo
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, torch.Tensor) and not is_plain(item) and id(item) not in memo:
            memo[id(item)] = stand_in(item, copied(item)).requires_grad_(item.requires_grad)
        elif isinstance(item, Mapping):
            pending += item.values()
        elif isinstance(item, (list, tuple, deque)):
            pending += item
    return copy.deepcopy(value, memo)


def copies_into(mine: torch.Tensor, value: torch.Tensor) -> bool:
    """Say whether a tensor's values can be copied into another's memory."""
    ours, theirs = made_of(mine), made_of(value)
    return (
        (mine.dtype, mine.shape, form(mine)) == (value.dtype, value.shape, form(value))
        and [(part.dtype, part.shape) for part in ours]
        == [(part.dtype, part.shape) for part in theirs]
        and all(unwritable(part) is None for part in ours)
    )


def copy_into(mine: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a tensor's values into another's memory, where :func:`copies_into` allows it."""
    with torch.no_grad():
        if mine.is_quantized:
            mine.copy_(value)  # its scale, which is no memory of its, comes along
            return
        for part, new in zip(made_of(mine), made_of(value), strict=True):
            copyable(part).data.copy_(copyable(new))


def put_by_hand(own: Mapping[str, Any], names: Iterable[str], state: dict[str, Any]) -> None:
    """Put those values into a module's tensors that ``Tensor.copy_`` can't put there.

    That is what ``load_state_dict`` calls. It takes no compressed sparse tensor of another number
    of elements, and no integers of less than a byte.

    Args:
        own: The module's tensors by name.
        names: Of those that get a value.
        state: The values; where it was done the module's own tensor stands in it afterwards.
    """
    places = {name: place(own[name]) for name in names if isinstance(own[name], torch.Tensor)}
    taken: dict[tuple[object, ...], torch.Tensor] = {}
    for name, where in places.items():
        mine, value = own[name], state[name]
        if value.layout is not torch.strided:
            # Tied ones stay tied: they get the same memory.
            new = copied(value).to(mine.device, _dtype_for(mine, value))
            set_sparse(mine, taken.setdefault(where, new))
        elif BELOW_A_BYTE.fullmatch(dtype_name(value.dtype)):
            copy_into(mine, value)
        else:
            continue
        state[name] = mine


def _dtype_for(mine: torch.Tensor, value: torch.Tensor) -> torch.dtype:
    """Return the dtype that a value gets in a module's tensor: the tensor's own."""
    return value.dtype if is_lazy(mine) else mine.dtype


def set_sparse(mine: torch.Tensor, value: torch.Tensor) -> None:
    """Make a sparse tensor equal to another of its form, whatever the number of their elements.

    In coordinates it takes the other's memory. By rows or columns it can't (``Tensor.data`` can be
    set, without effect), so its own memory is resized, and its elements are copied.
    """
    if value.layout is torch.sparse_coo:
        mine.data = value
        return
    needs_gradient = mine.requires_grad
    with torch.no_grad():
        mine.requires_grad_(False)  # noqa: FBT003 - torch names no keyword; else it has a fixed size
        mine.resize_as_sparse_(value)
        for part, new in zip(made_of(mine), made_of(value), strict=True):
            copyable(part).copy_(copyable(new))
        mine.requires_grad_(needs_gradient)


def copyable(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of a tensor that torch copies without a word.

    It can't copy integers of less than a byte, and warns of complex numbers of half precision.
    """
    if BELOW_A_BYTE.fullmatch(dtype_name(tensor.dtype)):
        return tensor.view(torch.uint8)
    if tensor.dtype is torch.complex32 and not tensor.is_conj():
        return tensor.view(torch.int32)
    return tensor


def stand_in(mine: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return what takes the place of a module's tensor that can't take another's memory.

    As ``load_state_dict(assign=True)`` does it: a parameter that needs a gradient as the module's
    own did.
    """
    new: Any = value.detach()
    if not isinstance(mine, torch.nn.Parameter):
        return new  # type: ignore[no-any-return] # it is a tensor; Parameter's stub knows no other
    needs = mine.requires_grad and (new.is_floating_point() or new.is_complex())
    return torch.nn.Parameter(new, requires_grad=needs)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = copyable(tensor.detach()).resolve_conj().resolve_neg()
    rows = plain.contiguous()
    # Not reshape(-1): an only element may have any stride, and then its bytes can't be viewed.
    return rows.as_strided((rows.numel(),), (1,)).view(torch.uint8)
