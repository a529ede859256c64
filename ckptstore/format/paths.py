"""What sits where in a tree: the tensors of a part's state by path, without reading one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Nodes that stand for one tensor each, whatever it is made of.
TENSORS = frozenset({"$tensor", "$sparse", "$quantized", "$subclass"})
_PAIRED = frozenset({"$dict", "$OrderedDict", "$defaultdict"})
_LISTED = frozenset({"$tuple", "$deque"})


def tensors_by_path(tree: object) -> dict[str, dict[str, Any]]:
    """Return the nodes of all tensors in a tree by their paths, in the tree's order.

    A path is made of keys and places in lists: ``state/0/exp_avg``; in a state dict it is the key.
    Of two that have one path the later one's place is added to it. NumPy arrays are no tensors.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, node in _walk(tree, ""):
        name, count = path, 0
        while name in found:
            count += 1
            name = f"{path}/{count}"
        found[name] = node
    return found


def _walk(tree: object, root: str) -> Iterator[tuple[str, dict[str, Any]]]:
    pending: list[tuple[str, object]] = [(root, tree)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict) and next(iter(node), "") in TENSORS:
            yield path, node
            continue
        pending += reversed(list(_below(path, node)))


def _below(path: str, node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, list):
        yield from _items(path, node)
    if not isinstance(node, dict):
        return
    name = next(iter(node), "")
    content = node.get(name)
    if not name.startswith("$"):
        yield from ((_joined(path, key), item) for key, item in node.items())
    elif name in _PAIRED and isinstance(content, list):
        for pair in content:
            if isinstance(pair, list) and len(pair) == 2:  # noqa: PLR2004 - key and value
                yield _joined(path, _key(pair[0])), pair[1]
    elif name in _LISTED and isinstance(content, list):
        yield from _items(path, content)


def _items(path: str, items: list[Any]) -> Iterator[tuple[str, object]]:
    return ((_joined(path, index), item) for index, item in enumerate(items))


def _joined(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)


def _key(node: object) -> object:
    """Return a key as people write it: of a node, what it says."""
    return next(iter(node.values()), node) if isinstance(node, dict) else node
