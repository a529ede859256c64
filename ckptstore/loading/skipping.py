"""Random initialisation left out while a module is built, and what depended on it followed."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

import torch
from torch.nn import init
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

Fill = Callable[[torch.Tensor], object]
Key = tuple[str, int]


def _codes(*names: str) -> dict[CodeType, Callable[..., Any]]:
    functions = (getattr(init, name, None) for name in names)
    return {function.__code__: function for function in functions if function is not None}


# torch.nn.init draws in three ways (torch 2.13). Functions that hand themselves to a mode ...
_DISPATCHED = frozenset({init.uniform_, init.normal_, init.kaiming_uniform_})
# ... functions that only draw in place, so that the mode sees Tensor.uniform_ or normal_ ...
_FILLING = _codes(
    "_no_grad_uniform_", "_no_grad_normal_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"
)
# ... and functions that work on what they drew, but first ask whether there is memory to fill at
# all. (Where an older torch does not ask, they run.)
_ASKING = _codes("_no_grad_trunc_normal_", "orthogonal_", "sparse_")

# What these return says nothing about a tensor's values.
_ABOUT_FORM = """
    size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point
    is_complex is_signed is_pinned is_shared is_inference is_conj is_neg is_same_size
    data_ptr element_size get_device type has_names dim_order result_type promote_types
    can_cast register_hook register_post_accumulate_grad_hook __len__ __hash__ __set__
    untyped_storage is_tensor is_grad_enabled
"""
_FORM_NAMES = frozenset(_ABOUT_FORM.split())


class Skipping(TorchFunctionMode):
    """Skips what only draws random numbers into a parameter, on this thread, while entered.

    Only functions of ``torch.nn.init`` are skipped, only for parameters (or their ``.data``), and
    only without an explicit generator, which would otherwise be left at another place. Constants
    and every other draw run. It follows which tensors depend on what was skipped, by their storage,
    through every torch function: what came of it, and what was drawn after it.

    It must be the innermost mode when entered: it knows ``torch.nn.init`` by the calling frame.

    Attributes:
        escaped: The function through which values that depend on what was skipped reached Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self.escaped: str | None = None
        # Storages are held so that their addresses aren't used again while they are keys.
        self._unfilled: dict[Key, object] = {}
        self._dependent: dict[Key, object] = {}
        self._data_of: dict[Key, tuple[object, weakref.ref[torch.Tensor]]] = {}
        self._fills: list[tuple[weakref.ref[torch.Tensor], Fill]] = []
        # States of torch's global generators: at the first skipped draw, and when last looked at.
        self._first: list[torch.Tensor] | None = None
        self._last: list[torch.Tensor] | None = None

    @property
    def skipped(self) -> bool:
        """Whether anything was skipped; if not, the module is as if built plainly."""
        return bool(self._fills)

    def generators_moved(self) -> bool:
        """Say whether torch's global generators moved since the first skipped draw."""
        return self._first is not None and _differ(self._first, _generators())

    def depends(self, tensor: torch.Tensor) -> bool:
        """Say whether a tensor's values depend on what was skipped, or shares its memory."""
        key, _ = _memory(tensor)
        return key in self._unfilled or key in self._dependent

    def fill_others(self, done: Iterable[int]) -> None:
        """Initialise the skipped parameters that are still alive, but for those named by id.

        Something outside the module (a cache, a global) keeps them, and must not keep them
        uninitialised.
        """
        passed = set(done)
        with torch.no_grad():
            for reference, fill in self._fills:
                parameter = reference()
                if parameter is not None and id(parameter) not in passed:
                    fill(parameter.data)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run *func*, or skip it."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._get(func, args)
        if name in _FORM_NAMES:
            return func(*args, **kwargs)
        if name in ("uniform_", "normal_", "kaiming_uniform_") and self._skip(func, args, kwargs):
            return args[0] if args else kwargs["tensor"]
        return self._follow(func, name, args, kwargs)

    def _get(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if attribute == "is_meta" and self._skip_asking(args[0]):
            return True
        result = func(*args)
        if isinstance(result, torch.Tensor):
            key, storage = _memory(result)
            owner = self._owner(args[0])
            if owner is not None and attribute == "data":
                self._data_of[key] = (storage, weakref.ref(owner))
        return result

    def _owner(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the parameter that a tensor is or is the ``.data`` of."""
        if isinstance(tensor, torch.nn.Parameter):
            return None if tensor.is_meta or _lazy(tensor) else tensor
        _, reference = self._data_of.get(_memory(tensor)[0], (None, None))
        return None if reference is None else reference()

    def _skip(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        if kwargs.get("generator") is not None:
            return False
        if func in _DISPATCHED:
            tensor = kwargs["tensor"]
            rest = {name: value for name, value in kwargs.items() if name != "tensor"}
            fill: Fill = functools.partial(func, **rest)
        elif args and _caller().f_code in _FILLING:
            tensor = args[0]
            fill = functools.partial(_call_on, func, args[1:], dict(kwargs))
        else:
            return False
        return self._note(tensor, fill)

    def _skip_asking(self, tensor: torch.Tensor) -> bool:
        frame = _caller()
        function = _ASKING.get(frame.f_code)
        if function is None or frame.f_locals.get("generator") is not None:
            return False
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        given = {name: frame.f_locals[name] for name in names if name != "tensor"}
        return self._note(tensor, functools.partial(function, **given))

    def _note(self, tensor: torch.Tensor, fill: Fill) -> bool:
        owner = self._owner(tensor)
        if owner is None:
            return False
        if self._first is None:
            self._first = self._last = _generators()
        key, storage = _memory(tensor)
        self._unfilled[key] = storage
        self._fills.append((weakref.ref(owner), fill))
        return True

    def _follow(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        inputs = list(_tensors((args, kwargs)))
        dependent = any(map(self.depends, inputs))
        if name == "clone" and self._is_unfilled(args[0]):
            # deepcopy of a parameter: the copy's memory need not be touched either.
            result: Any = torch.empty_like(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        if self._drawn() or dependent:
            self._mark(func, inputs, result)
        return result

    def _drawn(self) -> bool:
        """Say whether the generators moved since this was last asked, once something is skipped.

        Where they moved, their numbers are others than without skipping.
        """
        if self._last is None:
            return False
        before, self._last = self._last, _generators()
        return _differ(before, self._last)

    def _is_unfilled(self, tensor: object) -> bool:
        return (
            isinstance(tensor, torch.Tensor)
            and not tensor.requires_grad
            and _memory(tensor)[0] in self._unfilled
        )

    def _mark(self, func: Callable[..., Any], inputs: list[torch.Tensor], result: object) -> None:
        outputs = list(_tensors(result))
        if result is None:  # __setitem__, the in-place foreach functions
            outputs = inputs
        for tensor in outputs:
            key, storage = _memory(tensor)
            self._dependent[key] = storage
        # torch.nn.init looks at values too, where it draws again what is out of bounds.
        if not outputs and self.escaped is None and _caller().f_globals is not vars(init):
            self.escaped = getattr(func, "__name__", repr(func))


def _generators() -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch left it untyped
        states += [torch.cuda.get_rng_state(index) for index in range(torch.cuda.device_count())]
    return states


def _differ(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) != len(other) or not all(map(torch.equal, one, other))


def _caller() -> FrameType:
    """Return the frame that called into torch, past this class and any other mode."""
    frame = sys._getframe(1)  # noqa: SLF001 - the only way to know who draws
    while frame.f_back is not None and (
        frame.f_globals is globals() or frame.f_code.co_name == "__torch_function__"
    ):
        frame = frame.f_back
    return frame


def _lazy(tensor: torch.Tensor) -> bool:
    return bool(is_lazy(tensor))


def _call_on(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tensor: torch.Tensor,
) -> object:
    return func(tensor, *args, **kwargs)


def _memory(tensor: torch.Tensor) -> tuple[Key, object]:
    """Return what tells a tensor's memory from any other's, and what keeps it from being reused."""
    if not _lazy(tensor) and tensor.layout is torch.strided:
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # subclasses without one of their own
            return ("object", id(tensor)), tensor
        return ("storage", storage._cdata), storage  # noqa: SLF001 - as torch's own serialisation
    return ("object", id(tensor)), tensor


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
