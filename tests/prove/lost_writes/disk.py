"""What a disk may hold after a power loss, by what POSIX, ext4 and XFS promise and no more.

A file's bytes are sure up to its last fsync, and a name is sure once its folder was synced. What
was not synced may be there, or not, or in part; names in any combination, whatever order they were
made in. A failed fsync of a file loses its bytes for good, as Linux does: a later one that succeeds
brings nothing back (https://wiki.postgresql.org/wiki/Fsync_Errors).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod

Tree = dict[str, bytes | None]
"""Paths below the root, with a file's bytes or None for a folder; a folder before what it holds."""

ROOT = 0
SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""


@dataclass(frozen=True)
class Make:
    """A file (``data`` is grown by writes) or folder made under a name."""

    path: str
    folder: bool


@dataclass(frozen=True)
class Write:
    """Bytes added to the end of a file."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Sync:
    """An fsync of a file or folder, which may have failed."""

    path: str
    failed: bool = False


@dataclass(frozen=True)
class Link:
    """A second name for a file."""

    path: str
    to: str


@dataclass(frozen=True)
class Unlink:
    """A name taken away."""

    path: str


@dataclass(frozen=True)
class Rename:
    """A file's name replaced by another one."""

    path: str
    to: str


Operation = Make | Write | Sync | Link | Unlink | Rename


@dataclass
class _File:
    written: bytes = b""
    sure: bytes = b""
    lost: bool = False

    def contents(self) -> list[bytes]:
        """Return what may be left of the file, the most and the least first."""
        if self.written == self.sure:
            return [self.sure]
        size, kept = len(self.written), len(self.sure)
        added = size - kept
        cuts = sorted({kept + 1, kept + added // 3, kept + added // 2, size - 1})
        half = kept + added // 2
        sector = -(-half // SECTOR_BYTES) * SECTOR_BYTES
        torn = [self.written[:cut] for cut in cuts]
        zeroed = [self.sure + bytes(added), self.written[:half] + bytes(size - half)]
        if sector < size:  # later sectors may be there without earlier ones
            zeroed.append(self.sure + bytes(sector - kept) + self.written[sector:])
        return list(dict.fromkeys([self.written, self.sure, *torn, *zeroed]))


@dataclass
class _Folder:
    sure: dict[str, int] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)
    pending: dict[str, list[int | None]] = field(default_factory=dict)
    """What each name that is not sure has been since, in order; None: nothing."""

    def name(self, name: str, node: int | None) -> None:
        self.pending.setdefault(name, [self.sure.get(name)]).append(node)
        if node is None:
            self.now.pop(name, None)
        else:
            self.now[name] = node


class Disk:
    """A disk with an empty root folder, which is sure to be there."""

    def __init__(self) -> None:
        self._nodes: dict[int, _File | _Folder] = {ROOT: _Folder()}

    def do(self, operation: Operation) -> None:
        """Take note of one operation."""
        if isinstance(operation, Make):
            node = len(self._nodes)
            self._nodes[node] = _Folder() if operation.folder else _File()
            self._name(operation.path, node)
        elif isinstance(operation, Write):
            self._file(operation.path).written += operation.data
        elif isinstance(operation, Sync):
            self._sync(self._nodes[self._find(operation.path)], failed=operation.failed)
        elif isinstance(operation, Link):
            self._name(operation.to, self._find(operation.path))
        elif isinstance(operation, Unlink):
            self._name(operation.path, None)
        else:
            self._name(operation.to, self._find(operation.path))
            self._name(operation.path, None)

    def states(self, limit: int) -> Iterator[Tree]:
        """Yield what may be left, each once: all of it, or *limit* if there is more.

        A sample is the same every time; it begins with everything there is, what is sure alone, and
        each single thing that may be there or not.
        """
        choices: list[tuple[object, list[object]]] = []
        for node, each in self._nodes.items():
            if isinstance(each, _File):
                choices.append((node, list(each.contents())))
            else:
                choices += [
                    ((node, name), list(dict.fromkeys(reversed(values))))
                    for name, values in each.pending.items()
                ]
        choices = [(what, values) for what, values in choices if len(values) > 1]
        seen = set()
        for chosen in _combinations([values for _, values in choices], limit):
            picked = {what: value for (what, _), value in zip(choices, chosen, strict=True)}
            tree = self._tree(picked)
            key = tuple(sorted((path, data or b"") for path, data in tree.items()))
            if key not in seen:
                seen.add(key)
                yield tree

    def _sync(self, node: _File | _Folder, *, failed: bool) -> None:
        if isinstance(node, _Folder):
            # A folder's names go through the filesystem's journal: a later sync brings them.
            if not failed:
                node.sure, node.pending = dict(node.now), {}
        elif failed:
            node.lost = True
        elif not node.lost:
            node.sure = node.written

    def _tree(self, picked: dict[object, object]) -> Tree:
        tree: Tree = {}
        pending = [("", ROOT)]
        while pending:
            path, number = pending.pop()
            node = self._nodes[number]
            if isinstance(node, _File):
                left = picked.get(number, node.sure)
                tree[path] = left if isinstance(left, bytes) else b""
                continue
            if path:
                tree[path] = None
            for name in sorted(node.sure.keys() | node.pending.keys()):
                child = picked.get((number, name), self._settled(node, name))
                if isinstance(child, int):
                    pending.append((f"{path}/{name}".lstrip("/"), child))
        return dict(sorted(tree.items()))

    @staticmethod
    def _settled(node: _Folder, name: str) -> int | None:
        return node.pending[name][-1] if name in node.pending else node.sure.get(name)

    def _file(self, path: str) -> _File:
        node = self._nodes[self._find(path)]
        assert isinstance(node, _File), path
        return node

    def _name(self, path: str, node: int | None) -> None:
        above, _, name = path.rpartition("/")
        folder = self._nodes[self._find(above)]
        assert isinstance(folder, _Folder), above
        folder.name(name, node)

    def _find(self, path: str) -> int:
        number = ROOT
        for name in filter(None, path.split("/")):
            folder = self._nodes[number]
            assert isinstance(folder, _Folder), path
            number = folder.now[name]
        return number


def _combinations(values: list[list[object]], limit: int) -> Iterable[tuple[object, ...]]:
    if prod(map(len, values)) <= limit:
        return itertools.product(*values)
    most, least = tuple(each[0] for each in values), tuple(each[-1] for each in values)
    chosen = [most, least]
    for place, each in enumerate(values):
        for base in (most, least):
            chosen += [(*base[:place], value, *base[place + 1 :]) for value in each]
    draw = random.Random(len(values))  # noqa: S311 - the same sample every time
    while len(chosen) < limit:
        chosen.append(tuple(draw.choice(each) for each in values))
    return list(dict.fromkeys(chosen))[:limit]
