"""Trees back into Python state; the reading half of :mod:`ckptstore.format.tree`."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ckptstore.errors import IntegrityError
from ckptstore.format.subclasses import put_together_value
from ckptstore.format.tree import FACTORIES, TORCH_NAMES

MADE_UP = frozenset({"$array", "$sparse", "$quantized", "$subclass"})
Get = Callable[[int], Any]
"""Gives back the tensor at a place in the part's list."""


def decode(node: object, where: str, get: Get | None = None, *, whole: bool = True) -> Any:
    """Return the state that *node* stands for.

    Args:
        node: Parsed JSON.
        where: Names it in errors.
        get: Gives the tensor at a place: for ``$tensor`` the tensor itself, for ``$array`` a
            one-dimensional uint8 tensor of the array's bytes.
        whole: Whether what is made of several tensors is put together, and what a package defines
            is made. Otherwise their nodes are checked as far as that goes without data and without
            the package, and stand for None.

    Raises:
        IntegrityError: A node is none that the format has.
        MissingPackageError: A tensor in it is of a package that is not installed.
    """
    try:
        return _Decoder(get, whole=whole).decode(node)
    except (
        ArithmeticError,  # a subclass that divides by the size of what it is made of
        AssertionError,  # a subclass's word for what it can't be made of
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RuntimeError,  # torch's word for a device it does not know; nesting without end
        binascii.Error,
        struct.error,
    ) as error:
        raise IntegrityError(f"{where}: its tree is not what ckptstore writes: {error}") from error


def tensor_places(node: object, kinds: Sequence[str] = ("$tensor", "$array")) -> set[int]:
    """Return the places of all tensors and arrays that a tree names, or of those *kinds* alone."""
    places: set[int] = set()
    pending = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            for key in kinds:
                if isinstance(item.get(key), int):
                    places.add(item[key])
            pending.extend(item.values())
    return places


def has_made_up(node: object) -> bool:
    """Say whether values in a tree are made of the tensors' values: arrays, composites."""
    pending = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            if not MADE_UP.isdisjoint(item):
                return True
            pending.extend(item.values())
    return False


class _Decoder:
    def __init__(self, get: Get | None, *, whole: bool) -> None:
        self._get = get
        self._whole = whole
        self._composites: dict[str, Any] = {}
        self._owners: dict[int, str] = {}
        self._special = {
            "$tensor": self._tensor,
            "$array": self._tensor,
            "$sparse": self._composite,
            "$quantized": self._composite,
            "$subclass": self._composite,
            "$enum": self._listed,
            "$record": self._listed,
        }

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        name = next(iter(node), "")
        if not name.startswith("$"):
            return {key: self.decode(item) for key, item in node.items()}
        return self._typed(name, node[name], node)

    def _typed(self, name: str, content: Any, node: dict[str, Any]) -> Any:
        special = self._special.get(name)
        if special is not None:
            return special(name, content, node)
        if name in PAIRED:
            return self._paired(name, content, node)
        if name in LISTED:
            return LISTED[name]([self.decode(item) for item in content])
        if name == "$deque":
            return deque((self.decode(item) for item in content), node["maxlen"])
        return _plain_value(name, content, node)

    def _paired(self, name: str, content: Any, node: dict[str, Any]) -> Any:
        pairs = [(self.decode(key), self.decode(item)) for key, item in content]
        if name == "$dict":
            return dict(pairs)
        if name == "$Counter":
            return Counter(dict(pairs))
        if name == "$defaultdict":
            factory = node["factory"]
            return defaultdict(None if factory is None else FACTORIES[factory], pairs)
        ordered = OrderedDict(pairs)
        if "_metadata" in node:
            ordered._metadata = self.decode(node["_metadata"])  # type: ignore[attr-defined] # noqa: SLF001 - where torch keeps it
        return ordered

    def _tensor(self, name: str, place: object, node: dict[str, Any]) -> Any:
        tensor = self._taken(place, "")
        if name == "$array":
            return _array(tensor, node)
        if node.get("parameter"):
            import torch

            return torch.nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        return tensor

    def _taken(self, place: object, owner: str) -> Any:
        """Return the tensor at a place, which belongs to one composite or to none."""
        if self._get is None or not isinstance(place, int) or isinstance(place, bool) or place < 0:
            raise ValueError(f"tensor {place!r} where there can be none")
        if self._owners.setdefault(place, owner) != owner:
            # Who writes to the one would change the other, whose indices were checked.
            raise ValueError(f"tensor {place} is part of another one too")
        return self._get(place)

    def _composite(self, name: str, content: Any, node: dict[str, Any]) -> Any:
        from ckptstore.format.composite import check_form, put_together

        key = repr(node)
        if key not in self._composites:
            places = {inner: _place(item) for inner, item in node["tensors"].items()}
            facts = {
                beside: self.decode(item) for beside, item in node.items() if beside not in FLAGS
            }
            del facts[name]
            check_form(name, content, facts, places)
            if len({*places.values()}) != len(places):
                raise ValueError("a tensor is made of one tensor twice")
            tensors = {inner: self._taken(place, key) for inner, place in places.items()}
            self._composites[key] = (
                _as_given(put_together(name, content, facts, tensors), node)
                if self._whole
                else None
            )
        return self._composites[key]

    def _listed(self, name: str, content: Any, node: dict[str, Any]) -> Any:
        if self._get is None:
            raise ValueError(f"a {name} where there can be none")
        if name == "$record":
            beside = {key: self.decode(item) for key, item in node["fields"].items()}
        else:
            beside = {"member": node["member"]}
        return put_together_value(name, content, beside) if self._whole else None


def _place(item: Any) -> object:
    if not isinstance(item, dict) or list(item) != ["$tensor"]:
        raise ValueError("a tensor is made of something else than plain tensors")
    return item["$tensor"]


def _as_given(tensor: Any, node: dict[str, Any]) -> Any:
    import torch

    needs_gradient = node.get("requires_grad") is True
    if node.get("parameter"):
        return torch.nn.Parameter(tensor, requires_grad=needs_gradient)
    return tensor.requires_grad_() if needs_gradient else tensor


def _array(tensor: Any, node: dict[str, Any]) -> Any:
    import numpy as np

    dtype, shape = _numpy_dtype(node["dtype"]), [int(size) for size in node["shape"]]
    if not dtype.itemsize or prod(shape) * dtype.itemsize != tensor.numel():
        raise ValueError(f"an array of dtype {dtype} and shape {shape} in {tensor.numel()} bytes")
    if tensor.numel() == 0:
        return np.empty(shape, dtype)
    array = tensor.detach().numpy().view(dtype).reshape(shape)
    return np.asfortranarray(array) if node.get("fortran") else array


def _numpy_dtype(name: object) -> Any:
    import numpy as np

    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.hasobject or dtype.fields is not None or dtype.shape:
        raise ValueError(f"{name!r} is no NumPy dtype of numbers, text or bytes")
    return dtype


def _numpy_value(name: str, content: str, node: dict[str, Any]) -> Any:
    import numpy as np

    dtype = _numpy_dtype(content if name == "$numpy.dtype" else node["dtype"])
    if name == "$numpy.dtype":
        return dtype
    data = _bytes(content)
    # NumPy's own reading of text and raw bytes drops zeros at the end, and refuses empty ones.
    if dtype.kind == "U":
        return np.str_(data.decode("utf-32-be" if dtype.str[0] == ">" else "utf-32-le"))
    if dtype.kind in "SV":
        return (np.bytes_ if dtype.kind == "S" else np.void)(data)
    return np.frombuffer(data, dtype, count=1)[0]


def _torch_value(name: str, content: Any) -> Any:
    import torch

    if name == "Size":
        return torch.Size(content)
    # torch repeats a name that it refuses as it stands, and this one may come from anybody.
    if name == "device" and re.fullmatch(r"[a-z]+(:[0-9]+)?", content):
        return torch.device(content)
    if name in TORCH_NAMES:
        value = getattr(torch, content, None)
        if isinstance(value, getattr(torch, name)):
            return value
    raise ValueError(f"unknown value torch.{name} {content!r}")


def _plain_value(name: str, content: Any, node: dict[str, Any]) -> Any:
    if name in SIMPLE:
        return SIMPLE[name](content)
    if name.startswith("$torch."):
        return _torch_value(name.removeprefix("$torch."), content)
    if name in {"$scalar", "$numpy.dtype"}:
        return _numpy_value(name, content, node)
    raise ValueError(f"unknown node {name!r}")


def _float(content: str) -> float:
    if content in ("nan", "inf", "-inf"):
        return float(content)
    value: float = struct.unpack(">d", bytes.fromhex(content))[0]
    return value


def _bytes(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


def _complex(content: list[Any]) -> complex:
    real, imaginary = (
        _float(part["$float"]) if isinstance(part, dict) else float(part) for part in content
    )
    return complex(real, imaginary)


FLAGS = frozenset({"tensors", "requires_grad", "parameter"})
PAIRED = frozenset({"$dict", "$OrderedDict", "$Counter", "$defaultdict"})
LISTED: dict[str, Callable[[list[Any]], Any]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
}
SIMPLE: dict[str, Callable[[Any], Any]] = {
    "$int": lambda content: int(content, 16 if "x" in content else 10),
    "$float": _float,
    "$complex": _complex,
    "$bytes": _bytes,
    "$bytearray": lambda content: bytearray(_bytes(content)),
}
