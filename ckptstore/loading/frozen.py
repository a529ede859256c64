"""Whether what a save left out is still what it was where the rest is put back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn.parameter import is_lazy

from ckptstore.loading.fit import Fit, Leave
from ckptstore.loading.tensors import is_plain
from ckptstore.state.modules import plain_names
from ckptstore.state.tensors import dtype_name, tensor_digest


def of_other_values(
    module: torch.nn.Module, found: Fit, leave: Leave | None, left_out: Iterable[str]
) -> tuple[str, ...]:
    """Return the keys that were left out of a save and have other values in the module now.

    Their bytes are hashed, which takes a second for some GB.

    Args:
        module: It, restored.
        found: How it and its saved state went together.
        leave: What was left out, and what it was.
        left_out: Plain names of what the module keeps because it was left out.
    """
    if leave is None:
        return ()
    plain = plain_names(module)
    own = {plain(name): value for name, value in found.own.items()}
    return tuple(key for key in left_out if _is_other(own.get(key), leave, key))


def _is_other(mine: object, leave: Leave, key: str) -> bool:
    form = leave.left_out.get(key)
    if form is None or form.digest is None or not isinstance(mine, torch.Tensor):
        return False
    if is_lazy(mine) or not is_plain(mine) or mine.is_meta or dtype_name(mine.dtype) != form.dtype:
        return False  # nobody can tell; and what of it is another dtype was asked for
    return tensor_digest(mine.detach()) != form.digest
