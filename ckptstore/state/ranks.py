"""What the processes of a group agree on, as numbers: nothing is pickled on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from ckptstore.errors import StorageError
from ckptstore.state.environment import world_size

Checked = TypeVar("Checked")


class Work(Protocol):
    """Something on its way between the ranks."""

    def wait(self) -> object:
        """Wait until it is done."""


class Largest:
    """The largest of a number over all ranks, asked for now and known later.

    Every rank must ask. The asking itself waits for nobody.
    """

    def __init__(self, value: int) -> None:
        self._wire = _wire(value)
        self._work: Work = torch.distributed.all_reduce(
            self._wire, op=torch.distributed.ReduceOp.MAX, async_op=True
        )

    def result(self) -> int:
        """Return it, once every rank has asked."""
        self._work.wait()
        return int(self._wire.item())


def are_several() -> bool:
    """Say whether this process is one of several that train together."""
    return world_size() > 1


def from_rank_zero(value: int) -> int:
    """Return rank 0's number; every rank must call this."""
    wire = _wire(value)
    torch.distributed.broadcast(wire, src=0)
    return int(wire.item())


def all_ranks(fine: bool) -> bool:  # noqa: FBT001 - a fact, not an option
    """Say whether all is fine on every rank; every rank must call this."""
    wire = _wire(int(fine))
    torch.distributed.all_reduce(wire, op=torch.distributed.ReduceOp.MIN)
    return bool(wire.item())


def on_all_ranks(what: str, check: Callable[[], Checked]) -> Checked:
    """Return what a check returns, once it is known to hold on every rank.

    Every rank must call this. Outside of a process group nobody is asked.

    Args:
        what: What is to be done, for the message.
        check: Raises if something is wrong on this rank.

    Raises:
        StorageError: It raised on another rank; here what it raised itself.
    """
    if not are_several():
        return check()
    checked: list[Checked] = []
    fine = False
    # Whatever is raised here, the others must hear of it: they wait for this rank.
    try:
        checked.append(check())
    finally:
        fine = all_ranks(bool(checked))
    if not fine:
        raise StorageError(
            f"{what}: what another rank asked for is wrong, so no rank did anything; see its error"
        )
    return checked[0]


def _wire(value: int) -> torch.Tensor:
    """Return a number as a tensor on the device that the process group talks through.

    A tensor, because ``broadcast_object_list`` would pickle.
    """
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor([value], dtype=torch.int64, device=device)
