"""Whether a module fits saved state: every mismatch at once, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptstore.errors import MismatchError

ADVICE = (
    "Were other constructor arguments used in training? Pass them: model_config={...}, by "
    "parameter name. Nothing was loaded."
)
_LOADING = ("_load_from_state_dict", "_save_to_state_dict", "load_state_dict", "state_dict")
_HOOKS = (
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
)


@dataclass(frozen=True)
class Fit:
    """How a module's own state dict and a saved one go together.

    Attributes:
        own: The module's own objects by state-dict name, in its order.
        adopted: Names whose saved tensors the module can take as they are.
        unsettled: Names that only the module's own loading code can bring together: missing,
            unexpected or of another shape, in the reach of such code.
        custom: Prefixes of the modules that load in their own way (``""`` is the whole).
    """

    own: Mapping[str, object]
    adopted: tuple[str, ...]
    unsettled: tuple[str, ...]
    custom: tuple[str, ...]

    def is_custom(self, name: str) -> bool:
        """Say whether a module's own loading code decides about that name."""
        return any(name.startswith(prefix) for prefix in self.custom)


def fit(module: torch.nn.Module, state: Mapping[str, object], what: str) -> Fit:
    """Compare a module with saved state, by names and shapes.

    Args:
        module: On the CPU.
        state: As saved, by state-dict name.
        what: Names the saved state in errors.

    Raises:
        MismatchError: They don't fit; it lists every mismatch.
    """
    custom = tuple(
        prefix
        for prefix, child in _modules(module)
        if _loads_its_own_way(child) and not _is_settled_norm(child, prefix, state)
    )
    # By the base class: an overridden state_dict() may leave out what it does not want saved.
    own: dict[str, object] = torch.nn.Module.state_dict(module, keep_vars=True)
    result = Fit(own, (), (), custom)
    problems: list[str] = []
    unsettled: list[str] = []
    adopted: list[str] = []
    for name in [*own, *(name for name in state if name not in own)]:
        problem = _problem(name, own, state)
        if problem is None:
            if isinstance(own[name], torch.Tensor) and not result.is_custom(name):
                adopted.append(name)
        elif result.is_custom(name):
            unsettled.append(name)
        else:
            problems.append(problem)
    problems += _broken_ties(own, state, adopted)
    if problems:
        raise mismatch(module, what, problems)
    return Fit(own, tuple(adopted), tuple(unsettled), custom)


def mismatch(module: torch.nn.Module, what: str, problems: list[str]) -> MismatchError:
    """Return the error that lists what keeps a module from taking saved state."""
    return MismatchError(f"{type(module).__qualname__} does not fit {what}", problems, ADVICE)


def place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what two tensors share exactly when they are the same elements of the same memory.

    That is one object under two names, or a parameter made from another (``Parameter(p)``).
    """
    if is_lazy(tensor) or tensor.layout is not torch.strided:
        return (id(tensor),)
    return (memory(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def memory(tensor: torch.Tensor) -> int:
    """Return the identity of a strided tensor's storage, while it lives; its own if it has none."""
    try:
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - as torch's own serialisation does
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors have equal dtype, shape and bits (so NaN equals itself)."""
    if one is other:
        return True
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.layout == other.layout
        and torch.equal(_bits(one), _bits(other.to(one.device)))
    )


def overrides(module: torch.nn.Module, *names: str) -> bool:
    """Say whether a module has its own version of any of these methods of ``torch.nn.Module``."""
    return any(
        getattr(getattr(module, name, None), "__func__", None) is not getattr(torch.nn.Module, name)
        for name in names
    )


def prefixes(module: torch.nn.Module, test: Callable[[torch.nn.Module], bool]) -> tuple[str, ...]:
    """Return the prefixes of the submodules, itself included, that pass a test."""
    return tuple(prefix for prefix, child in _modules(module) if test(child))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.contiguous().reshape(-1).view(torch.uint8)


def _modules(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, child in module.named_modules(remove_duplicate=False):
        yield (f"{name}." if name else ""), child


def _loads_its_own_way(module: torch.nn.Module) -> bool:
    return overrides(module, *_LOADING) or any(vars(module).get(hooks) for hooks in _HOOKS)


def _is_settled_norm(module: torch.nn.Module, prefix: str, state: Mapping[str, object]) -> bool:
    """Say whether a batch norm's own loading code has nothing to do.

    All it does is to add the count that versions before torch 0.4.1 did not save
    (torch/nn/modules/batchnorm.py), so with it there, names and shapes must fit as anyone's.
    """
    return (
        getattr(module._load_from_state_dict, "__func__", None)  # noqa: SLF001 - as torch calls it
        is torch.nn.modules.batchnorm._NormBase._load_from_state_dict  # noqa: SLF001 - its own
        and not overrides(module, *(name for name in _LOADING if name != "_load_from_state_dict"))
        and not any(vars(module).get(hooks) for hooks in _HOOKS)
        and (
            getattr(module, "num_batches_tracked", None) is None
            or f"{prefix}num_batches_tracked" in state
        )
    )


def _problem(name: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    if name not in state:
        return f"{name!r} ({_form(own[name])}) is in the module, and was not saved"
    if name not in own:
        return f"{name!r} ({_form(state[name])}) was saved, and is not in the module"
    expected, found = own[name], state[name]
    if isinstance(expected, torch.Tensor) != isinstance(found, torch.Tensor) or (
        isinstance(expected, torch.Tensor)
        and not is_lazy(expected)
        and (expected.shape != found.shape or expected.layout != found.layout)
    ):
        return f"{name!r} is {_form(expected)} in the module, and was saved as {_form(found)}"
    return None


def _broken_ties(
    own: Mapping[str, Any], state: Mapping[str, Any], names: list[str]
) -> Iterator[str]:
    first: dict[tuple[object, ...], str] = {}
    for name in names:
        if own[name].numel() == 0:
            continue
        other = first.setdefault(place(own[name]), name)
        if not same_bits(state[other], state[name]):
            yield (
                f"{other!r} and {name!r} are one tensor in the module, "
                "and were saved as two that differ"
            )


def _form(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a value of type {type(value).__qualname__}"
    if is_lazy(value):
        return "lazy"
    layout = "" if value.layout is torch.strided else f", {value.layout}"
    return f"shape {list(value.shape)}{layout}"
