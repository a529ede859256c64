"""Which tensors may be copied while training goes on, and who waits for that before it writes.

Forward and backward write to no parameter and to no state of an optimizer; only a step does. So
they may be copied until an optimizer steps, if its step says so before it begins, which torch's
step hooks do. Everything else is copied at once: buffers, which forward writes to; parameters of
optimizers that were not handed to the save, or whose step has no hooks; tensors of one number,
whose copy costs nothing.

Whoever else writes to such a tensor too early is found by its version counter, where torch counts
the write: an alarm, no guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

Key = tuple[object, ...]
# Where torch keeps an optimizer's hooks; a class that skips torch's __init__ has none.
HOOKS = "_optimizer_step_pre_hooks"
_MARK = "_ckptstore_hook"
# Modules whose forward writes to their weight where max_norm is set.
_RENORMING = (torch.nn.Embedding, torch.nn.EmbeddingBag)


class Overlap:
    """Tensors that nobody may write to before a hooked step, and the optimizers that step so.

    Args:
        parts: As handed to ``save``, by name.
    """

    def __init__(self, parts: Mapping[str, Any] | None = None) -> None:
        parts = parts or {}
        self._optimizers = [part for part in parts.values() if has_hooks(part)]
        self._tensors: dict[Key, torch.Tensor] = {
            key: tensor
            for optimizer in self._optimizers
            for tensor in _written_by(optimizer)
            if (key := memory_of(tensor)) is not None and not tensor.is_inference()
        }
        written = {
            storage_of(tensor)
            for part in parts.values()
            if isinstance(part, torch.nn.Module)
            for tensor in _written_by_forward(part)
            if memory_of(tensor) is not None
        }
        if written:
            self._tensors = {
                key: tensor
                for key, tensor in self._tensors.items()
                if storage_of(tensor) not in written
            }

    def find(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the tensor of that memory that may be copied later; None if it may not."""
        key = memory_of(tensor)
        return None if key is None else self._tensors.get(key)

    def before_steps(self, wait: Callable[[], bool]) -> None:
        """Have *wait* called before each step, until it returns True."""
        for optimizer in self._optimizers:
            _hook(optimizer).add(wait)


def memory_of(tensor: torch.Tensor) -> Key | None:
    """Return what tells a plain tensor's memory, as it is looked at; None for any other tensor."""
    if tensor.layout is not torch.strided or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return None
    if tensor.is_meta or torch.nn.parameter.is_lazy(tensor) or not tensor.numel():
        return None
    if tensor.is_conj() or tensor.is_neg():
        return None
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def storage_of(tensor: torch.Tensor) -> tuple[torch.device, int]:
    """Return what tells the memory that a tensor and all views of it lie in."""
    return tensor.device, tensor.untyped_storage().data_ptr()


def has_hooks(part: object) -> bool:
    """Say whether an optimizer's step calls what is registered with it before it writes.

    Torch wraps the step of each class whose ``__init__`` it runs. Not so a step that was put onto
    the object, or onto the class later, but for the one that counts steps for a scheduler; nor one
    that ``torch.compile`` made.
    """
    if not isinstance(part, torch.optim.Optimizer) or not hasattr(part, HOOKS):
        return False
    step = part.step
    is_compiled = hasattr(step, "_torchdynamo_orig_callable")
    # Torch marks those that it won't compile in the same way, such as that of LBFGS.
    if is_compiled and not getattr(step, "_torchdynamo_disable", False):
        return False
    if not getattr(step, "hooked", False):
        return False
    is_own = getattr(step, "__func__", None) is type(part).step
    return is_own or getattr(step, "_wrapped_by_lr_sched", False)


class _Hook:
    """What an optimizer calls before it steps, as long as a copy of its tensors isn't done."""

    def __init__(self) -> None:
        self._waits: list[Callable[[], bool]] = []
        self.handle: RemovableHandle | None = None

    def add(self, wait: Callable[[], bool]) -> None:
        self._waits.append(wait)

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        for wait in list(self._waits):
            if wait():
                self._waits.remove(wait)
        # Torch is going through its hooks just now, and no other may go away from under it.
        hooks = getattr(optimizer, HOOKS)
        if not self._waits and self.handle is not None and len(hooks) == 1:
            self.handle.remove()


def _hook(optimizer: torch.optim.Optimizer) -> _Hook:
    """Return the hook that an optimizer has, the first of all; it is given one if it has none.

    It goes with the first step that finds nothing to wait for, unless there are others: to take it
    away from another thread could break a step that is going through them.
    """
    hooks = getattr(optimizer, HOOKS)
    for known in hooks.values():
        if isinstance(hook := getattr(known, _MARK, None), _Hook):
            return hook
    hook = _Hook()

    def before_step(stepping: torch.optim.Optimizer, *_: object) -> None:
        hook.before_step(stepping)

    # A compiled function that steps calls it as it is: to trace it would be to call it never again.
    called = torch.compiler.disable(before_step)  # type: ignore[no-untyped-call] # torch left it so
    setattr(called, _MARK, hook)
    hook.handle = optimizer.register_step_pre_hook(called)
    hooks.move_to_end(hook.handle.id, last=False)  # before those that may write to weights
    return hook


def _written_by(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
    for state in optimizer.state.values():
        yield from _tensors(state)


def _tensors(state: object) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        if state.dim():
            yield state
    elif isinstance(state, Mapping):
        for item in state.values():
            yield from _tensors(item)
    elif isinstance(state, (list, tuple)):
        for item in state:
            yield from _tensors(item)


def _written_by_forward(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.buffers()
    for each in module.modules():
        if isinstance(each, _RENORMING) and each.max_norm is not None:
            yield each.weight
