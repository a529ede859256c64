"""Nested inputs and outputs: plain containers as JSON, what lies in them as a flat list.

======================= ===========================================
node                    value
======================= ===========================================
``{"leaf": 3}``         the fourth of the leaves, counted from 0
``{"list": […]}``       list
``{"tuple": […]}``      tuple; a named tuple becomes a plain one
``{"dict": [[k, …]]}``  dict, its keys strings or ints, in order
======================= ===========================================
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ckptstore.errors import IntegrityError

Path = tuple[str | int, ...]
"""Keys and places from the outermost container on."""


def flatten(value: object) -> tuple[Any, list[Any], list[Path]]:
    """Take apart lists, tuples and dicts; whatever else is there is a leaf.

    Returns:
        The structure, the leaves from left to right, and where each of them sits.
    """
    leaves: list[Any] = []
    paths: list[Path] = []
    return _taken_apart(value, (), leaves, paths), leaves, paths


def _taken_apart(value: Any, path: Path, leaves: list[Any], paths: list[Path]) -> Any:
    kind = type(value)
    if kind is list or (isinstance(value, tuple) and not _is_size(value)):
        items = [
            _taken_apart(item, (*path, place), leaves, paths) for place, item in enumerate(value)
        ]
        return {"list" if kind is list else "tuple": items}
    if isinstance(value, (dict, OrderedDict)) and all(type(key) in (str, int) for key in value):
        pairs = [
            [key, _taken_apart(item, (*path, key), leaves, paths)] for key, item in value.items()
        ]
        return {"dict": pairs}
    leaves.append(value)
    paths.append(path)
    return {"leaf": len(leaves) - 1}


def _is_size(value: object) -> bool:
    """Say whether a tuple is torch's word for a shape, which torch takes for one value."""
    return type(value).__module__ == "torch" and type(value).__name__ == "Size"


def rebuild(node: Any, leaves: Sequence[Any]) -> Any:
    """Put leaves back into the structure that :func:`check` passed."""
    ((kind, content),) = node.items()
    if kind == "leaf":
        return leaves[content]
    if kind == "dict":
        return {key: rebuild(item, leaves) for key, item in content}
    items = [rebuild(item, leaves) for item in content]
    return items if kind == "list" else tuple(items)


def leaves_in(node: Any) -> Iterator[int]:
    """Yield the leaves of a structure from left to right."""
    ((kind, content),) = node.items()
    if kind == "leaf":
        yield content
        return
    for item in content:
        yield from leaves_in(item[1] if kind == "dict" else item)


def collect(
    node: Any, value: object, take: Callable[[int, Any], None], where: str
) -> Iterator[str]:
    """Walk a value along a structure, give each leaf to *take*, and yield what does not fit.

    Args:
        node: The structure.
        value: What should have it.
        take: Called with each leaf's number and value.
        where: Names the value in messages, e.g. ``x``.
    """
    ((kind, content),) = node.items()
    if kind == "leaf":
        take(content, value)
    elif kind == "dict":
        expected = [key for key, _ in content]
        if not isinstance(value, dict) or set(value) != set(expected):
            what = f"has {list(value)}" if isinstance(value, dict) else f"is a {_kind(value)}"
            yield f"{where} should be a dict with the keys {expected}, and {what}"
            return
        for key, item in content:
            yield from collect(item, value[key], take, f"{where}[{key!r}]")
    elif not isinstance(value, (list, tuple)) or len(value) != len(content):
        what = f"has {len(value)}" if isinstance(value, (list, tuple)) else f"is a {_kind(value)}"
        yield f"{where} should be a {kind} of {len(content)}, and {what}"
    else:
        for place, (item, each) in enumerate(zip(content, value, strict=True)):
            yield from collect(item, each, take, f"{where}[{place}]")


def _kind(value: object) -> str:
    return type(value).__qualname__


def check(node: Any, count: int, where: str) -> None:
    """Refuse what is no structure of *count* leaves, each there once, in order.

    Raises:
        IntegrityError: It is none.
    """
    seen: list[int] = []
    _check(node, seen, where)
    if seen != list(range(count)):
        raise IntegrityError(f"{where}: its leaves are not the {count} there are, each once")


def _check(node: Any, seen: list[int], where: str) -> None:
    if not isinstance(node, dict) or len(node) != 1:
        raise IntegrityError(f"{where}: {node!r:.60} is no structure")
    ((kind, content),) = node.items()
    if kind == "leaf" and type(content) is int:
        seen.append(content)
    elif kind in ("list", "tuple") and isinstance(content, list):
        for item in content:
            _check(item, seen, where)
    elif kind == "dict" and isinstance(content, list) and all(map(_is_pair, content)):
        if len({key for key, _ in content}) != len(content):
            raise IntegrityError(f"{where}: a dict has a key twice")
        for _, item in content:
            _check(item, seen, where)
    else:
        raise IntegrityError(f"{where}: {kind!r:.60} is no structure")


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and type(item[0]) in (str, int)  # noqa: PLR2004 - key and value
