"""Values and tensors out of what a pickle says, each thing checked and made here.

A pickle was read as data (:mod:`ckptstore.importing.inert`). Nothing in it is called: for each name
on the list (:mod:`ckptstore.importing.allowed`) there is a function here that looks at what it
would be called with, and makes the value itself. So nothing takes a size from the file that the
file does not have the bytes for, and no memory is shown that was not filled.
"""

from __future__ import annotations

import argparse
import builtins
import pathlib
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

from ckptstore.format.tree import FACTORIES, MAX_TREE_DEPTH
from ckptstore.importing.allowed import DTYPES, FACTORIES_OF, REBUILDS, STORAGES, spelled
from ckptstore.importing.arrays import UnusualError, plain_array, plain_dtype
from ckptstore.importing.inert import PERSISTENT, Made, Name, check_key
from ckptstore.importing.storages import Stored, asked_for, dtype_named
from ckptstore.importing.tensors import quantized, sparse, strided

MAX_DEPTH = 3 * MAX_TREE_DEPTH
"""A value's place in a tree, and the calls that it is made by."""
ATOMS = (type(None), bool, int, float, str, bytes, bytearray)
LATIN = ("latin1", "latin-1")
METADATA = "_metadata"
CLASSES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "collections.defaultdict": defaultdict,
    **{f"builtins.{name}": getattr(builtins, name) for name in FACTORIES_OF},
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.bytearray": bytearray,
}
"""What may stand in a value without being called."""


DICTS = ("collections.OrderedDict", "collections.Counter", "collections.defaultdict")
NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
PATHS = tuple(
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
)
ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
PARAMETER = "torch.nn.parameter.Parameter"
OLD_TENSORS = ("torch.Tensor", *(f"torch.{name}Tensor" for name in STORAGES))
STATEFUL = {
    "collections.OrderedDict", *NAMESPACES, "numpy.dtype", *ARRAYS, PARAMETER, *OLD_TENSORS,
}  # fmt: skip


class Building:
    """Makes the values of one pickle."""

    def __init__(self, stored: Stored) -> None:
        """Take the storages of the file."""
        self._stored = stored
        # What stands twice in a pickle is one thing: tensors that are tied, dicts that are shared.
        self._done: dict[int, Any] = {}
        self._depth = 0

    def build(self, value: Any) -> Any:
        """Return what a value of a pickle stands for.

        Raises:
            UnusualError: Something may be made by running what the file says alone.
            ValueError: Something can't be; other errors of Python's too, where it makes no sense.
        """
        if isinstance(value, Name):
            return _named(value)
        if type(value) in ATOMS:
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        if self._depth > MAX_DEPTH:
            raise ValueError(f"values within values on more than {MAX_DEPTH} levels")
        self._depth += 1
        try:
            made = self._made(value) if isinstance(value, Made) else self._container(value)
        finally:
            self._depth -= 1
        self._done[id(value)] = made
        return made

    def _container(self, value: Any) -> Any:
        # Containers are known before they are full, as they may hold themselves.
        if type(value) is dict:
            return self._fill(self._known(value, {}), value.items())
        if type(value) is list:
            made: list[Any] = self._known(value, [])
            made.extend(map(self.build, value))
            return made
        if type(value) in (tuple, set, frozenset):
            return type(value)(map(self.build, value))
        raise ValueError(f"a {type(value).__name__}, which no pickle of torch's makes")

    def _known(self, value: Any, made: Any) -> Any:
        self._done[id(value)] = made
        return made

    def _fill(self, target: Any, pairs: Any) -> Any:
        for key, item in pairs:
            target[self.build(key)] = self.build(item)
        return target

    def _made(self, made: Made) -> Any:
        if made.by is PERSISTENT:
            asked = asked_for(made)
            # A storage that stands in no tensor is one of one dimension.
            return strided(self._stored.get(asked), asked.dtype, (0, (asked.length,), (1,)))
        if not isinstance(made.by, Name):
            raise TypeError("something is called that is no name")
        name = spelled(made.by)
        maker = self._makers.get(name)
        if maker is None:
            raise UnusualError(f"{name} is called, which is not done here")
        if (
            made.items
            or (made.pairs and name not in DICTS)
            or (made.state and name not in STATEFUL)
        ):
            raise ValueError(f"{name} is filled with what it does not take")
        return maker(self, made)

    # ------------------------------------------------------------ plain values

    def _bytes(self, made: Made) -> bytes:
        text, encoding = made.args
        if type(text) is not str or encoding not in LATIN:
            raise ValueError("text that is turned into bytes in another way than pickles do")
        return text.encode("latin-1")

    def _bytearray(self, made: Made) -> bytearray:
        if not made.args:
            return bytearray()
        content, *encoding = made.args
        if isinstance(content, str) and len(encoding) == 1 and encoding[0] in LATIN:
            return bytearray(content.encode("latin-1"))
        content = self.build(content)
        if not isinstance(content, bytes) or encoding:
            raise ValueError("a bytearray of something other than bytes")
        return bytearray(content)

    def _complex(self, made: Made) -> complex:
        real, imaginary = made.args
        if not all(type(part) in (int, float) for part in made.args):
            raise ValueError("a complex number of something other than numbers")
        return complex(real, imaginary)

    def _set(self, made: Made) -> Any:
        kind = CLASSES[spelled(made.by)]  # type: ignore[arg-type] # _made has looked
        items = made.args[0] if made.args else []
        if len(made.args) > 1 or type(items) not in (list, tuple, set, frozenset):
            raise ValueError("a set of something other than a list")
        for item in items:
            check_key(item)
        return kind(map(self.build, items))

    def _ordered(self, made: Made) -> Any:
        found = self._known(made, OrderedDict())
        for pair in made.args[0] if made.args else ():  # as Python 2 wrote them
            key, value = pair
            check_key(key)
            found[self.build(key)] = self.build(value)
        self._fill(found, made.pairs)
        if made.state:
            state = made.state[0] if isinstance(made.state, tuple) else made.state
            if not isinstance(state, dict) or state.keys() - {METADATA}:
                raise UnusualError("an OrderedDict with attributes")
            if METADATA in state:
                found._metadata = self.build(state[METADATA])  # noqa: SLF001 - where torch keeps it
        return found

    def _counter(self, made: Made) -> Any:
        found: Any = self._known(made, Counter())
        (given,) = made.args or ({},)
        if type(given) is not dict:
            raise ValueError("a Counter of something other than a dict")
        return self._fill(self._fill(found, given.items()), made.pairs)

    def _defaultdict(self, made: Made) -> Any:
        (factory,) = made.args or (None,)
        kind = CLASSES.get(spelled(factory)) if isinstance(factory, Name) else None
        if factory is not None and kind not in FACTORIES.values():
            raise UnusualError("a defaultdict with a factory of its own")
        return self._fill(self._known(made, defaultdict(kind)), made.pairs)

    def _namespace(self, made: Made) -> Any:
        found: Any = argparse.Namespace()
        if spelled(made.by) == "types.SimpleNamespace":  # type: ignore[arg-type] # _made has looked
            found = types.SimpleNamespace()
        self._known(made, found)
        state = made.state or {}
        if made.args or type(state) is not dict or not all(type(key) is str for key in state):
            raise ValueError("a namespace with something other than names in it")
        self._fill(vars(found), state.items())
        return found

    def _path(self, made: Made) -> Any:
        if not all(type(part) is str for part in made.args):
            raise ValueError("a path of something other than text")
        is_windows = "Windows" in str(made.by)
        kind = pathlib.PureWindowsPath if is_windows else pathlib.PurePosixPath
        return kind(*made.args)

    # ------------------------------------------------------------ NumPy's

    def _dtype(self, made: Made) -> np.dtype[Any]:
        return plain_dtype(made.args, made.state)

    def _array(self, made: Made) -> np.ndarray:
        if made.args[:1] != (Name("numpy", "ndarray"),) or not isinstance(made.state, tuple):
            raise UnusualError("an array of a class of its own")
        _, shape, dtype, fortran, data = made.state
        if isinstance(data, list):
            raise UnusualError("an array of Python objects")
        return plain_array(
            self._of(np.dtype, dtype), shape, self.build(data), fortran=fortran is True
        )

    def _scalar(self, made: Made) -> Any:
        dtype, data = made.args
        made_of = self._of(np.dtype, dtype)
        return plain_array(made_of, (), self.build(data), fortran=False)[()]

    # ------------------------------------------------------------ torch's

    def _size(self, made: Made) -> torch.Size:
        (sizes,) = made.args
        if not isinstance(sizes, tuple) or not all(type(size) is int for size in sizes):
            raise ValueError("a torch.Size of something other than whole numbers")
        return torch.Size(sizes)

    def _device(self, made: Made) -> torch.device:
        kind, *index = made.args
        if type(kind) is not str or not all(type(each) is int for each in index):
            raise ValueError("a device without a name")
        return torch.device(kind, *index)

    def _layout(self, made: Made) -> torch.layout:
        (name,) = made.args
        found = getattr(torch, name.removeprefix("torch."), None) if type(name) is str else None
        if not isinstance(found, torch.layout):
            raise TypeError(f"no layout of torch: {name!s:.80}")
        return found

    def _tensor(self, made: Made) -> torch.Tensor:
        """Make one as ``_rebuild_tensor``, ``_v2`` and ``_v3`` do."""
        name = made.by.name  # type: ignore[attr-defined] # _made has looked
        storage, offset, size, stride, *rest = made.args
        asked = asked_for(self._is_storage(storage))
        dtype = asked.dtype
        if name == "_rebuild_tensor_v3":
            dtype = dtype_named(rest.pop(2))
        geometry = offset, self._sizes(size), self._sizes(stride)
        grad, _, *metadata = (*rest, False, None)[: max(2, len(rest))]
        return strided(
            self._stored.get(asked), dtype, geometry, grad=grad is True,
            bits=self.build(metadata[0]) if metadata else None,
        )  # fmt: skip

    def _old_tensor(self, made: Made) -> torch.Tensor:
        """Make one of a class of its dtype, as torch wrote them at first."""
        if made.args or not isinstance(made.state, tuple) or len(made.state) != 4:  # noqa: PLR2004 - storage, offset, size, stride
            raise UnusualError("a tensor that is made by its size, or of something else")
        storage, offset, size, stride = made.state
        asked = asked_for(self._is_storage(storage))
        return strided(
            self._stored.get(asked), asked.dtype, (offset, self._sizes(size), self._sizes(stride))
        )

    def _quantized(self, made: Made) -> torch.Tensor:
        storage, offset, size, stride, how, *_ = made.args
        asked = asked_for(self._is_storage(storage))
        scheme, *numbers = how
        geometry = offset, self._sizes(size), self._sizes(stride)
        named = scheme.name if isinstance(scheme, Name) and scheme.module == "torch" else ""
        return quantized(self._stored.get(asked), asked.dtype, geometry, named, self.build(numbers))

    def _sparse(self, made: Made) -> torch.Tensor:
        layout, data = made.args
        return sparse(self._of(torch.layout, layout), self.build(data))

    def _parameter(self, made: Made) -> torch.Tensor:
        data, *rest = made.args
        grad = rest[0] if rest else True
        return torch.nn.Parameter(self._of(torch.Tensor, data).detach(), grad is True)

    def _of_a_type(self, made: Made) -> torch.Tensor:
        """Make a tensor that has attributes; those a tree has no place for."""
        function, kind, args, _ = made.args
        known = [Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter")]
        if kind not in known or function not in [Name("torch._utils", each) for each in REBUILDS]:
            raise UnusualError("a tensor of a class of its own")
        if not isinstance(args, tuple):
            raise TypeError("a tensor that is made of nothing")
        # Not by build(), which knows things again by where they are: this one is there for now.
        found: torch.Tensor = self._made(Made(function, args))
        return found

    def _of(self, kind: type, value: Any) -> Any:
        made = self.build(value)
        if not isinstance(made, kind):
            raise TypeError(f"a {type(made).__name__} in the place of a {kind.__name__}")
        return made

    def _sizes(self, value: Any) -> tuple[int, ...]:
        found = self.build(value)
        if not isinstance(found, tuple):
            raise TypeError("a tensor without a shape")
        return tuple(found)

    def _is_storage(self, value: Any) -> Made:
        if not isinstance(value, Made) or value.by is not PERSISTENT:
            raise ValueError("a tensor without a storage of the file")
        return value

    _makers: ClassVar[dict[str, Callable[[Any, Made], Any]]] = {
        "_codecs.encode": _bytes,
        "builtins.bytearray": _bytearray,
        "builtins.complex": _complex,
        "builtins.set": _set,
        "builtins.frozenset": _set,
        "collections.OrderedDict": _ordered,
        "collections.Counter": _counter,
        "collections.defaultdict": _defaultdict,
        **dict.fromkeys(NAMESPACES, _namespace),
        **dict.fromkeys(PATHS, _path),
        "numpy.dtype": _dtype,
        **dict.fromkeys(ARRAYS, _array),
        **dict.fromkeys(SCALARS, _scalar),
        "torch.Size": _size,
        "torch.device": _device,
        "torch.serialization._get_layout": _layout,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor,
        "torch._utils._rebuild_qtensor": _quantized,
        "torch._utils._rebuild_sparse_tensor": _sparse,
        "torch._utils._rebuild_sparse_csr_tensor": _sparse,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        PARAMETER: _parameter,
        "torch._tensor._rebuild_from_type_v2": _of_a_type,
        **dict.fromkeys(OLD_TENSORS, _old_tensor),
    }


def _named(name: Name) -> Any:
    """Return what may stand in a value without being called."""
    if name.module == "torch" and name.name in DTYPES:
        found = getattr(torch, name.name, None)
        if found is not None:
            return found
    if spelled(name) in CLASSES:
        return CLASSES[spelled(name)]
    raise UnusualError(f"{name} stands for a value")
