"""What a save would write of parts, to compare snapshots with the moment that they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ckptstore.saving.capture import CapturedPart, capture
from ckptstore.saving.overlap import Overlap
from ckptstore.saving.snapshot import Snapshot, snapshot
from ckptstore.saving.staging import Staging
from ckptstore.state.tensors import pieces, stride_order


def written(parts: Sequence[CapturedPart]) -> list[Any]:
    """Return everything of parts that reaches a version."""
    return [
        (
            part.name,
            part.kind,
            repr(part.tree),
            part.tensor_names,
            part.was,
            [
                (
                    tensor.dtype,
                    tensor.shape,
                    stride_order(tensor),
                    tensor.requires_grad,
                    data(tensor),
                )
                for tensor in part.tensors
            ],
        )
        for part in parts
    ]


def data(tensor: torch.Tensor) -> bytes:
    return b"".join(bytes(piece) for piece in pieces(tensor))


def overlapped(staging: Staging, parts: dict[str, Any]) -> Snapshot:
    return snapshot(capture(parts), staging, overlap=Overlap(parts))


def each_step_is_kept(
    parts: dict[str, Any], step: Callable[[], object], *, steps: int = 4, late: bool = True
) -> None:
    """Take an overlapped snapshot before each step, and see that it is of that moment.

    The worker does nothing until the step is over, so what is right is what the step waited for.
    """
    staging = Staging()
    for _ in range(steps):
        before = written(capture(parts))
        taken = overlapped(staging, parts)
        assert taken.is_copied is not late
        step()
        assert taken.is_copied
        taken.copy_rest()
        assert written(taken.parts) == before
        assert written(capture(parts)) != before
        taken.release()
    staging.close()
