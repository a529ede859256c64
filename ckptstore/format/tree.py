"""Trees: nested Python state as plain JSON, its tensors taken out.

A value JSON has no word for is an object whose first member's name begins with ``$``:

======================= =======================================================================
node                    value
======================= =======================================================================
``null true 1 1.5 "a"`` None, bool, int below 2**53, finite float (always with ``.`` or ``e``), str
``[…]``                 list
``{"a": …}``            dict whose keys are strings not beginning with ``$``, in order
``$dict``               any other dict: a list of [key, value] in order
``$tuple $set …``       tuple, set, frozenset, deque (``maxlen`` beside it): a list
``$OrderedDict …``      OrderedDict (``_metadata`` beside it), Counter, defaultdict (``factory``
                        beside it): a list of [key, value]
``$int``                an int of 2**53 or more, in decimal; of 2**2000 or more, in hex (``0x…``)
``$float``              ``nan``, ``inf``, ``-inf``, or another NaN's 16 hexadecimal digits
``$complex``            [real, imaginary]
``$bytes $bytearray``   base64
``$torch.Size``         a list of ints
``$torch.dtype``        ``float32``; likewise ``$torch.device``, ``$torch.layout``,
                        ``$torch.memory_format``
``$tensor``             the tensor's place in the part's list (``parameter`` beside it)
``$array``              a NumPy array's place in that list, with ``dtype``, ``shape``, ``fortran``
``$scalar``             a NumPy scalar's bytes in base64, with ``dtype``
``$numpy.dtype``        a NumPy dtype, e.g. ``<f8``
``$sparse``             a sparse tensor: its layout (``coo``), with ``shape``, ``coalesced`` and the
                        ``$tensor`` nodes that it is made of, by name, in ``tensors``
``$quantized``          a quantised tensor of torch's own: its scheme, with ``dtype``, scale and
                        zero point, ``tensors``
``$subclass``           a tensor of a class in :mod:`ckptstore.format.subclasses`: the class, with
                        ``shape``, ``context``, ``tensors``
``$enum $record``       what a context is made of: a class listed there, with ``member``; ``fields``
======================= =======================================================================

Decoding builds these types and no others, so reading a tree runs no code but ckptstore's own.
"""

from __future__ import annotations

import base64
import math
import struct
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ckptstore.errors import UnsupportedValueError
from ckptstore.format.subclasses import take_apart_value

# A tree level takes up to three levels of JSON, of which a line may have 200.
MAX_TREE_DEPTH = 60
SAFE_INT = 2**53
# Python refuses to write and read decimals of very many digits (sys.set_int_max_str_digits, 640 at
# the least): their cost grows with the square of the length. Hexadecimals cost nothing.
DECIMAL_INT = 2**2000
CANONICAL_NAN = struct.pack(">d", math.nan)
FACTORIES: dict[str, Callable[[], Any]] = {
    "bool": bool,
    "bytes": bytes,
    "dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "set": set,
    "str": str,
    "tuple": tuple,
}
PAIRED = frozenset({dict, OrderedDict, Counter, defaultdict})
LISTED = frozenset({tuple, set, frozenset, deque})
TORCH_NAMES = ("dtype", "layout", "memory_format")


class Put(Protocol):
    """Takes a tensor or array out of the tree."""

    def __call__(self, value: Any, path: str, *, alone: bool = False) -> int:
        """Return its place in the part's list.

        Args:
            value: The tensor or array.
            path: Where it sits.
            alone: Whether it gets a place of its own though another has the same memory.
        """


def encode(value: object, path: str, put: Put | None = None) -> Any:
    """Return *value* as a tree.

    Args:
        value: The state.
        path: Names it in errors, e.g. ``optimizer``.
        put: Called for every tensor and NumPy array; where it is None there must be none.

    Raises:
        UnsupportedValueError: Something in it has no encoding; the error has its path.
    """
    return _Encoder(put).encode(value, path, 0)


class _Encoder:
    def __init__(self, put: Put | None) -> None:
        self._put = put
        self._torch = sys.modules.get("torch")
        self._numpy = sys.modules.get("numpy")
        # Nodes of tensors that are made of others, by what makes two of them one.
        self._composites: dict[object, dict[str, Any]] = {}

    def encode(self, value: object, path: str, depth: int) -> Any:
        if depth > MAX_TREE_DEPTH:
            raise UnsupportedValueError(
                path,
                f"state nested deeper than {MAX_TREE_DEPTH} levels",
                "flatten it; does it contain itself?",
            )
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return _encode_str(str(value), path)
        if kind is int:
            return _encode_int(value)  # type: ignore[arg-type] # kind says it is an int
        if kind is float:
            return _encode_float(value)  # type: ignore[arg-type] # kind says it is a float
        container = self._encode_container(value, kind, path, depth)
        if container is not None:
            return container
        node = (
            self._encode_torch(value, kind, path, depth)
            or self._encode_numpy(value, path)
            or self._encode_listed(value, path, depth)
        )
        if node is None:
            raise UnsupportedValueError(path, f"a {kind.__module__}.{kind.__qualname__}")
        return node

    def _encode_container(self, value: Any, kind: type, path: str, depth: int) -> Any:
        if kind is list:
            return self._items(value, path, depth)
        if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
            return {
                _encode_str(key, path): self.encode(item, f"{path}/{key}", depth + 1)
                for key, item in value.items()
            }
        if kind in PAIRED:
            node: dict[str, Any] = {f"${kind.__name__}": self._pairs(value, path, depth)}
            if kind is OrderedDict and hasattr(value, "_metadata"):
                node["_metadata"] = self.encode(value._metadata, f"{path}/_metadata", depth + 1)  # noqa: SLF001 - where torch keeps it
            if kind is defaultdict:
                node["factory"] = _factory_name(value.default_factory, path)
            return node
        if kind in LISTED:
            items = self._items(value, path, depth)
            if kind in (set, frozenset):
                items.sort(key=repr)  # a set has no order; its encoding has one
            more = {"maxlen": value.maxlen} if kind is deque else {}
            return {f"${kind.__name__}": items, **more}
        return _encode_scalar(value, kind)

    def _items(self, value: Iterable[object], path: str, depth: int) -> list[Any]:
        return [self.encode(item, f"{path}/{index}", depth + 1) for index, item in enumerate(value)]

    def _pairs(self, value: dict[Any, Any], path: str, depth: int) -> list[list[Any]]:
        return [
            [
                self.encode(key, below := f"{path}/{_shown(key)}", depth + 1),
                self.encode(item, below, depth + 1),
            ]
            for key, item in value.items()
        ]

    def _encode_torch(self, value: Any, kind: type, path: str, depth: int) -> dict[str, Any] | None:
        torch = self._torch
        if torch is None:
            return None
        if isinstance(value, torch.Tensor):
            is_plain = (  # as nearly every tensor is, which is seen at a glance
                kind in (torch.Tensor, torch.nn.Parameter)
                and value.layout is torch.strided
                and not value.is_quantized
            )
            node = None if is_plain else self._encode_composite(value, path, depth)
            return node or self._encode_plain(value, path)
        if kind is torch.Size:
            return {"$torch.Size": list(value)}
        if kind is torch.device:
            return {"$torch.device": str(value)}
        for name in TORCH_NAMES:
            if kind is getattr(torch, name):
                return {f"$torch.{name}": str(value).removeprefix("torch.")}
        return None

    def _encode_composite(self, value: Any, path: str, depth: int) -> dict[str, Any] | None:
        """Return the node of a tensor that is made of others, the same for the same tensor."""
        if self._put is None:
            return None
        from ckptstore.format.composite import checked_apart, tie

        apart = checked_apart(value, path)
        if apart is None:
            return None
        key = tie(value, apart)
        if key is not None and key in self._composites:
            return self._composites[key]
        node: dict[str, Any] = {apart.node: apart.content}
        for name, fact in apart.facts.items():
            node[name] = self.encode(fact, f"{path}/{name}", depth + 1)
        # Each has a place of its own: who changes a tensor of theirs must not change the indices of
        # another that torch has checked.
        node["tensors"] = {
            name: {"$tensor": self._take_out(part, f"{path}/{name}", alone=True)}
            for name, part in apart.tensors.items()
        }
        if value.requires_grad:
            node["requires_grad"] = True
        if isinstance(value, sys.modules["torch"].nn.Parameter):
            node["parameter"] = True
        if key is not None:
            self._composites[key] = node
        return node

    def _encode_plain(self, value: Any, path: str) -> dict[str, Any]:
        node: dict[str, Any] = {"$tensor": self._take_out(value, path)}
        if type(value) is sys.modules["torch"].nn.Parameter:
            node["parameter"] = True
        return node

    def _encode_listed(self, value: Any, path: str, depth: int) -> dict[str, Any] | None:
        """Return the node of what a subclass's context may hold beside plain values."""
        found = None if self._put is None else take_apart_value(value)
        if found is None:
            return None
        name, kind, beside = found
        if name == "$enum":
            return {name: kind, **beside}
        return {name: kind, "fields": self.encode(beside, path, depth + 1)}

    def _encode_numpy(self, value: Any, path: str) -> dict[str, Any] | None:
        np = self._numpy
        if np is None:
            return None
        if type(value) is np.ndarray:
            if not value.dtype.itemsize:
                raise UnsupportedValueError(path, "a NumPy array whose items have no bytes")
            name = _dtype_name(value.dtype, path)  # refused before it is taken out
            return {
                "$array": self._take_out(value, path),
                "dtype": name,
                "shape": list(value.shape),
                "fortran": bool(value.flags.f_contiguous and not value.flags.c_contiguous),
            }
        if isinstance(value, np.generic):
            name = _dtype_name(value.dtype, path)
            if isinstance(value, np.str_):
                # str(value) would drop zeros at the end.
                data = _encode_str(str.__str__(value), path).encode("utf-32-le")
            else:
                data = bytes(value) if isinstance(value, np.bytes_) else value.tobytes()
            return {"$scalar": base64.b64encode(data).decode(), "dtype": name}
        if isinstance(value, np.dtype):
            return {"$numpy.dtype": _dtype_name(value, path)}
        return None

    def _take_out(self, value: object, path: str, *, alone: bool = False) -> int:
        if self._put is None:
            raise UnsupportedValueError(
                path,
                f"a {type(value).__qualname__}",
                "tensors and arrays go into extra= or a part of their own",
            )
        return self._put(value, path, alone=True) if alone else self._put(value, path)


def _encode_scalar(value: Any, kind: type) -> dict[str, Any] | None:
    if kind in {bytes, bytearray}:
        return {f"${kind.__name__}": base64.b64encode(value).decode()}
    if kind is complex:
        return {"$complex": [_encode_float(value.real), _encode_float(value.imag)]}
    return None


def _shown(key: object) -> str:
    try:
        return str(key)
    except ValueError:  # an int of more digits than Python writes
        return f"a {type(key).__qualname__}"


def _encode_str(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnsupportedValueError(
            path, f"the string {value!a}, which has a lone surrogate"
        ) from error
    return value


def _encode_int(value: int) -> Any:
    if abs(value) < SAFE_INT:
        return value
    return {"$int": str(value) if abs(value) < DECIMAL_INT else hex(value)}


def _encode_float(value: float) -> Any:
    if math.isfinite(value):
        return value
    if math.isinf(value):
        return {"$float": "inf" if value > 0 else "-inf"}
    bits = struct.pack(">d", value)
    return {"$float": "nan" if bits == CANONICAL_NAN else bits.hex()}


def _factory_name(factory: Callable[[], Any] | None, path: str) -> str | None:
    if factory is None:
        return None
    for name, known in FACTORIES.items():
        if factory is known:
            return name
    raise UnsupportedValueError(
        path,
        f"a defaultdict whose factory is {factory!r}",
        f"use one of {', '.join(FACTORIES)}, or turn it into a dict",
    )


def _dtype_name(dtype: Any, path: str) -> str:
    numpy = sys.modules["numpy"]
    name: str = dtype.str
    if dtype.hasobject or dtype.fields is not None or numpy.dtype(name) != dtype:
        raise UnsupportedValueError(
            path, f"a NumPy value of dtype {dtype}", "turn it into numbers, strings or plain arrays"
        )
    return name
