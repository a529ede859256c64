"""A module that is run or traced, and is afterwards as if it had not been."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ckptstore.programs.reachable import CONTAINERS, attributes, is_array, reachable


class Kept:
    """All that a module holds as it is now: what can be reached from it, however deep.

    The bytes of every tensor are copied, so this takes as much memory as the module does.

    Args:
        module: The module.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._things: list[tuple[_Way, Any, Any]] = []
        self._memories: dict[tuple[torch.device, int], _Memory] = {}
        weights = {id(each) for each in module.parameters()}
        for path, thing in reachable(module):
            for way in _ways(thing):
                self._things.append((way, thing, way.take(thing)))
            if isinstance(thing, torch.Tensor):
                self._keep_memory(thing, path, is_weight=id(thing) in weights)

    def _keep_memory(self, tensor: torch.Tensor, path: str, *, is_weight: bool) -> None:
        for plain in strided_in(tensor):
            if plain.is_meta or not plain.untyped_storage().nbytes():
                continue
            key = (plain.device, plain.untyped_storage().data_ptr())
            if key not in self._memories:
                now = _bytes_of(plain)
                self._memories[key] = _Memory(path, now, now.clone(), is_weight)

    @contextmanager
    def as_in_inference(self) -> Iterator[None]:
        """Put the modules into eval mode, and all that is kept back at the end, but weights.

        The mode is set without calling ``eval()``, which a class may have made to do more.
        """
        try:
            for each in self._module.modules():
                each.training = False
            yield
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Put back whatever is another now. The parameters' values are not looked at."""
        for way, thing, content in self._things:
            way.put(thing, content)
        self._put_bytes_back(memory for memory in self._memories.values() if not memory.is_weight)

    def put_weights_back(self) -> list[str]:
        """Put back the values of parameters; return the names of those that were others.

        Every byte is compared: a write through ``.data`` counts nowhere.
        """
        return self._put_bytes_back(each for each in self._memories.values() if each.is_weight)

    @staticmethod
    def _put_bytes_back(memories: Iterable[_Memory]) -> list[str]:
        written = []
        for memory in memories:
            storage = memory.now.untyped_storage()
            if storage.nbytes() < memory.then.numel():
                storage.resize_(memory.then.numel())
            if not torch.equal(memory.now, memory.then):
                memory.now.copy_(memory.then)
                written.append(memory.path)
        return written


@dataclass(frozen=True)
class _Memory:
    """The memory of one or several tensors."""

    path: str
    now: torch.Tensor
    """Its bytes."""
    then: torch.Tensor
    """A copy of them."""
    is_weight: bool


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def strided_in(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors with memory of their own that a tensor is made of, mostly itself."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from strided_in(getattr(tensor, name))
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor.detach()._indices(), tensor.detach()._values())  # noqa: SLF001 - the public ones want it coalesced
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.detach().values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.detach().values())
    elif tensor.layout is torch.strided and not tensor.is_nested:
        yield tensor


class _Way(NamedTuple):
    """How a kind of thing is kept and put back."""

    take: Callable[[Any], Any]
    put: Callable[[Any, Any], None]


def _ways(thing: Any) -> Iterator[_Way]:
    if isinstance(thing, torch.Tensor):
        yield _TENSOR
    elif isinstance(thing, torch.Generator):
        yield _Way(lambda each: each.get_state(), _put_generator)
    elif isinstance(thing, random.Random):
        yield _Way(lambda each: each.getstate(), lambda each, state: each.setstate(state))
    elif is_array(thing) and thing.flags.writeable:
        yield _Way(lambda each: each.copy(), _fill)
    elif isinstance(thing, bytearray):
        yield _Way(bytes, _fill)
    else:
        base = next((each for each in CONTAINERS if isinstance(thing, each)), None)
        if base is not None:
            yield _OF_CONTAINERS[base]
    if attributes(thing):
        yield _ATTRIBUTES


def _fill(thing: Any, content: Any) -> None:
    if bytes(thing) != bytes(content):
        thing[:] = content


def _put_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    if not torch.equal(generator.get_state(), state):
        generator.set_state(state)


def _take_tensor(tensor: torch.Tensor) -> Any:
    # Another view of the same memory: it stays as it is whatever .data = and resize_() do.
    view = tensor.detach() if tensor.layout is torch.strided else None
    return view, tensor.requires_grad, _grad(tensor)


def _grad(tensor: torch.Tensor) -> torch.Tensor | None:
    return tensor.grad if tensor.is_leaf else None


def _put_tensor(tensor: torch.Tensor, kept: Any) -> None:
    view, requires_grad, grad = kept
    if view is not None and type(tensor) in (torch.Tensor, torch.nn.Parameter):
        now, then = _look(tensor), _look(view)
        if now != then:
            tensor.data = view
    if tensor.is_leaf and tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)
    if tensor.is_leaf and tensor.grad is not grad:
        tensor.grad = grad


def _look(tensor: torch.Tensor) -> Any:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _is_same(one: Sequence[Any], two: Sequence[Any]) -> bool:
    return len(one) == len(two) and all(map(_is_identical, one, two))


def _is_identical(one: Any, two: Any) -> bool:
    if isinstance(one, tuple) and isinstance(two, tuple):
        return _is_same(one, two)
    return one is two


def _of(base: Any, take: Callable[[Any], Any], refill: Callable[[Any, Any], Any]) -> _Way:
    """Return the way of a container: it is refilled if what it holds is not the same objects."""

    def put(thing: Any, content: Any) -> None:
        if not _is_same(take(thing), content):
            base.clear(thing)
            refill(thing, content)

    return _Way(take, put)


def _update(thing: dict[Any, Any], content: Any) -> None:
    for key, value in content:
        dict.__setitem__(thing, key, value)


def _update_ordered(thing: OrderedDict[Any, Any], content: Any) -> None:
    for key, value in content:
        OrderedDict.__setitem__(thing, key, value)


# The base's own methods: those of a subclass may do more.
_OF_CONTAINERS: dict[Any, _Way] = {
    OrderedDict: _of(OrderedDict, lambda each: list(OrderedDict.items(each)), _update_ordered),
    dict: _of(dict, lambda each: list(dict.items(each)), _update),
    list: _of(list, lambda each: list(list.__iter__(each)), list.extend),
    set: _of(set, lambda each: list(set.__iter__(each)), set.update),
    deque: _of(deque, lambda each: list(deque.__iter__(each)), deque.extend),
}
_ATTRIBUTES = _Way(
    lambda thing: _OF_CONTAINERS[dict].take(attributes(thing)),
    lambda thing, content: _OF_CONTAINERS[dict].put(attributes(thing), content),
)
_TENSOR = _Way(_take_tensor, _put_tensor)
