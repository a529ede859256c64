"""Parameters that an optimizer trains and nobody handed over: their values are kept with it.

A learned weight of a loss, a second module that was forgotten, the fp32 copies that a training in
half precision steps: no state dict has them, and a training that goes on with their moments and
without their values is another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

import torch
from torch.nn.parameter import is_lazy

from ckptstore.format.composite import take_apart
from ckptstore.state.tensors import as_integers, is_sharded

# What is smaller costs less to keep than to compare.
SMALL_BYTES = 64 * 1024


def ownerless(
    optimizer: torch.optim.Optimizer,
    owned: Collection[int],
    held: Iterable[torch.Tensor],
    given: Iterable[torch.Tensor],
) -> dict[int, torch.Tensor]:
    """Return an optimizer's parameters whose values nothing else that is saved has, by number.

    None of one that is a share of a whole, if a state dict is saved: that is where the whole is.

    Args:
        optimizer: Any.
        owned: The ids of the parameters of modules that are saved.
        held: All tensors that are saved.
        given: Those of them that are of state dicts, which may be copies of the parameters.
    """
    flat = [each for group in optimizer.param_groups for each in group["params"]]
    free = {number: each for number, each in enumerate(flat) if id(each) not in owned}
    if not free:
        return {}
    known = {place for tensor in held for place in memories(tensor)}
    copies: dict[object, list[torch.Tensor]] = defaultdict(list)
    for tensor in given:
        copies[tensor.dtype, tensor.shape].append(tensor)
    return {
        number: each
        for number, each in free.items()
        if not (
            is_lazy(each)
            or known.issuperset(memories(each) or [each])
            or (copies and is_share(each))
            or _is_copied(each, copies[each.dtype, each.shape])
        )
    }


def memories(tensor: torch.Tensor) -> list[object]:
    """Return what tells the memory of a tensor, or of what it is made of, from all others."""
    if is_lazy(tensor):
        return []
    apart = take_apart(tensor)
    parts = [tensor] if apart is None else apart.tensors.values()
    return [
        (part.device, part.data_ptr(), part.dtype, tuple(part.shape))
        for part in parts
        if part.layout is torch.strided and part.numel() and not part.is_meta
    ]


def is_share(parameter: torch.Tensor) -> bool:
    """Say whether a parameter is one rank's share of a whole (FSDP, 1 and 2)."""
    return is_sharded(parameter) or bool(getattr(parameter, "_is_flat_param", False))


def _is_copied(parameter: torch.Tensor, copies: Iterable[torch.Tensor]) -> bool:
    """Say whether a state dict has a copy of a parameter, as if it were on another device.

    One number all over is no proof: two parameters may well begin with it.
    """
    if parameter.nbytes <= SMALL_BYTES or take_apart(parameter) is not None:
        return False
    mine = as_integers(parameter.detach())
    return any(
        torch.equal(mine, as_integers(copy.detach()).to(mine.device)) for copy in copies
    ) and not bool((mine == mine.flatten()[0]).all())
