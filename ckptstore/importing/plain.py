"""Values of others turned into what a tree holds, and every change said."""

from __future__ import annotations

import argparse
import enum
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from ckptstore.errors import ImportRefusedError
from ckptstore.format.digest import MAX_LINE_BYTES
from ckptstore.format.tree import FACTORIES, MAX_TREE_DEPTH

MAX_VALUES = 5_000_000
"""A part's line has 64 MiB at most, so there is no room for more. A list that holds itself many
times over, as harmful files have it, is far longer than its file."""
MAX_SHOWN = 120
MAX_PATH = 4000
MAX_NOTES = 1000
AS_THEY_ARE = (
    bool, bytes, bytearray, complex, float, int, str, type(None), torch.Size, torch.device,
    torch.dtype, torch.layout, torch.memory_format,
)  # fmt: skip


@dataclass(frozen=True)
class Held:
    """An object that was found in a file, as its state."""

    kind: str
    """A part's kind: ``module``, ``optimizer`` or ``object``."""
    class_name: str
    model_config: Any = None
    """Constructor arguments, where they were recorded."""


@dataclass
class Plain:
    """A value that a tree can hold."""

    value: Any = None
    notes: list[str] = field(default_factory=list)
    """What was turned into something else, one sentence each."""
    held: dict[str, Held] = field(default_factory=dict)
    """Objects of which the state alone was kept, by path; ``""`` is the value itself."""


State = Callable[[Any], "tuple[Any, Held] | None"]
"""Gives an object's state and what it was; None for an object without any."""


def to_plain(value: object, where: str, state: State | None = None) -> Plain:
    """Turn a value into one that a tree can hold.

    Args:
        value: What was read. Containers of other classes become Python's own, namespaces become
            dicts, paths and enumerations become what they stand for.
        where: Names it in errors.
        state: Says what to keep of any other object. Without it there must be none.

    Raises:
        ImportRefusedError: It is nested too deeply, contains itself, or has too many values.
    """
    turning = _Turning(where, state)
    turning.plain.value = turning.turn(value, "", 0)
    return turning.plain


class _Turning:
    def __init__(self, where: str, state: State | None) -> None:
        self.plain = Plain()
        self._where = where
        self._state = state
        self._count = 0

    def turn(self, value: Any, path: str, depth: int) -> Any:
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_TREE_DEPTH:
            what = "values" if self._count > MAX_VALUES else "levels"
            most = MAX_VALUES if self._count > MAX_VALUES else MAX_TREE_DEPTH
            raise ImportRefusedError(
                f"{self._where} holds more than {most} {what} at {path or 'its top'!r}"
            )
        kind = type(value)
        if isinstance(value, str | bytes | bytearray):
            self._check_text(value, path)
        if kind in AS_THEY_ARE or kind in (torch.Tensor, torch.nn.Parameter):
            return value
        if isinstance(value, torch.Tensor):
            return value  # of a subclass: whoever saves it decides
        if isinstance(value, enum.Enum):
            return self._as(value.value, value, path, depth)
        made = self._container(value, kind, path, depth)
        if made is None:
            made = self._scalar(value, kind, path, depth)
        return self._object(value, path, depth) if made is None else made[0]

    def _check_text(self, value: str | bytes | bytearray, path: str) -> None:
        """Refuse text that no line has room for, or that is none."""
        if len(value) > MAX_LINE_BYTES:
            raise ImportRefusedError(
                f"{self._where}: {path or 'its top'!r} has {len(value)} bytes or letters; at most "
                f"{MAX_LINE_BYTES} are kept"
            )
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ImportRefusedError(
                    f"{self._where}: {path or 'its top'!a} has a lone surrogate, {value!a:.80}"
                ) from error

    def _container(self, value: Any, kind: type, path: str, depth: int) -> tuple[Any] | None:
        if isinstance(value, Mapping):
            return (self._mapping(value, kind, path, depth),)
        if isinstance(value, tuple):
            if kind is not tuple:
                self._note(path, value, "a tuple")
            return (tuple(self._items(value, path, depth)),)
        for plain in (list, set, frozenset):
            if isinstance(value, plain):
                if kind is not plain:
                    self._note(path, value, f"a {plain.__name__}")
                return (plain(self._items(value, path, depth)),)
        if isinstance(value, deque):
            return (deque(self._items(value, path, depth), value.maxlen),)
        if isinstance(value, argparse.Namespace | types.SimpleNamespace):
            return (self._mapping(vars(value), dict, path, depth),)
        return None

    def _mapping(self, value: Mapping[Any, Any], kind: type, path: str, depth: int) -> Any:
        pairs = [
            (
                self._key(key, path),
                self.turn(item, _below(path, key), depth + 1),
            )
            for key, item in value.items()
        ]
        if kind is OrderedDict:
            made: Any = OrderedDict(pairs)
            if hasattr(value, "_metadata"):
                made._metadata = self.turn(value._metadata, f"{path}/_metadata", depth + 1)  # noqa: SLF001 - where torch keeps it
            return made
        if kind is Counter:
            return Counter(dict(pairs))
        if kind is defaultdict:
            factory = value.default_factory  # type: ignore[attr-defined] # kind says so
            if factory is None or factory in FACTORIES.values():
                return defaultdict(factory, pairs)
            self._note(path, value, "a dict")
        elif kind is not dict:
            self._note(path, value, "a dict")
        return dict(pairs)

    def _items(self, items: Iterable[Any], path: str, depth: int) -> list[Any]:
        return [
            self.turn(item, _below(path, place) if path else f"/{place}", depth + 1)
            for place, item in enumerate(items)
        ]

    def _key(self, key: Any, path: str) -> Any:
        if isinstance(key, str):
            self._check_text(key, path)
        if type(key) in AS_THEY_ARE or isinstance(key, np.generic):
            return key
        if isinstance(key, tuple):
            return tuple(self._key(item, path) for item in key)
        self._note(f"{path}/{key!r:.40}", key, "its name, as a key")
        return _name(key)

    def _scalar(self, value: Any, kind: type, path: str, depth: int) -> tuple[Any] | None:
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject or value.dtype.fields is not None:
                return (self._as(value.tolist(), value, path, depth),)
            return (value if kind is np.ndarray else np.asarray(value),)
        if isinstance(value, np.generic | np.dtype):
            return (value,)
        if isinstance(value, PurePath):
            return (str(value),)
        plain: Any
        for plain in (int, float, complex, str, bytes, bytearray):
            if isinstance(value, plain):
                return (plain(value),)
        return None

    def _object(self, value: Any, path: str, depth: int) -> Any:
        found = None if self._state is None else self._state(value)
        if found is not None:
            state, held = found
            self.plain.held[path] = held
            return self.turn(state, path, depth + 1)
        if isinstance(value, type) or callable(value) or not getattr(value, "__dict__", None):
            return self._as(_name(value), value, path, depth)
        return self._as(dict(vars(value)), value, path, depth)

    def _as(self, plain: Any, value: object, path: str, depth: int) -> Any:
        self._note(path, value, f"a {type(plain).__name__}")
        return self.turn(plain, path, depth + 1)

    def _note(self, path: str, value: object, became: str) -> None:
        kind = value if isinstance(value, type) else type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        said = f"{path or 'its top'}: {name} was kept as {became}"
        if len(self.plain.notes) < MAX_NOTES:
            self.plain.notes.append(said)
        elif len(self.plain.notes) == MAX_NOTES:
            self.plain.notes.append(f"{said}, and so were more")


def _below(path: str, key: object) -> str:
    """Return the path of what a key leads to; a file with keys of megabytes has it shortened."""
    text = str(key)
    found = f"{path}/{text}" if path else text
    return found if len(found) <= MAX_PATH else f"…{found[-MAX_PATH:]}"


def _name(value: Any) -> str:
    """Return the name of a class or function, or how another object describes itself."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(value, '__module__', '')}.{name}"
    return f"{value!r:.{MAX_SHOWN}}"
