"""The keys of a state dict in its tree: which there are, and the tree of some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def keys_of(tree: object) -> list[str] | None:
    """Return the keys of the state dict that a tree stands for; None where it is no dict."""
    pairs = _pairs_of(tree)
    if pairs is None:
        return None
    return [pair[0] for pair in pairs if _is_entry(pair)]


def narrowed(tree: Any, keys: Iterable[str]) -> Any:
    """Return a state dict's tree with those keys alone. What is no entry stays, to be refused."""
    kept = set(keys)
    name = next(iter(tree), "")
    if not name.startswith("$"):
        return {key: node for key, node in tree.items() if key in kept}
    return {**tree, name: [pair for pair in tree[name] if not _is_entry(pair) or pair[0] in kept]}


def _pairs_of(tree: object) -> list[Any] | None:
    if not isinstance(tree, dict):
        return None
    name = next(iter(tree), "")
    if not name.startswith("$"):
        return [list(item) for item in tree.items()]
    content = tree[name]
    return content if name in ("$OrderedDict", "$dict") and isinstance(content, list) else None


def _is_entry(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)  # noqa: PLR2004 - key and value
