"""How a call to the operating system can go wrong, and which call does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.prove.calls import Call

Do = Callable[..., Any]

READS = frozenset({"open", "preadv", "fstat", "stat", "lstat", "scandir", "mmap"})
NAMES = frozenset({"link", "unlink", "mkdir", "rename", "replace"})
WRITES = frozenset({"write", "fsync", "close"}) | NAMES


@dataclass(frozen=True)
class Fault:
    """One way to fail."""

    name: str
    hits: Callable[[Call], bool]
    fail: Callable[[Call, Do], Any]
    raises: type[BaseException] = OSError


def _error(number: int, *, after: bool = False) -> Callable[[Call, Do], Any]:
    def fail(call: Call, do: Do) -> Any:
        if after or call.name == "close":  # what cannot be closed properly is closed all the same
            do()
        raise OSError(number, os.strerror(number), call.path)

    return fail


def _no_memory(_: Call, __: Do) -> Any:
    raise MemoryError


def _short(call: Call, do: Do) -> Any:
    """Write, or read, less than was asked for, as a call may at any time."""
    if call.name == "write":
        data = call.arguments[1]
        return do(call.arguments[0], data[: max(1, len(data) // 2)])
    fd, (view,), offset = call.arguments
    return do(fd, [view[: max(1, len(view) // 2)]], offset)


def _ends(_: Call, __: Do) -> int:
    return 0


def _of(*names: str) -> Callable[[Call], bool]:
    return lambda call: call.name in names


FAULTS = [
    Fault("EIO", _of(*READS, *WRITES), _error(errno.EIO)),
    Fault("EIO, done all the same", _of("write", *NAMES), _error(errno.EIO, after=True)),
    Fault(
        "ENOSPC",
        lambda call: call.creates or call.name in {"write", "fsync", "link", "mkdir", "rename"},
        _error(errno.ENOSPC),
    ),
    Fault("EACCES", _of(*(READS - {"preadv", "fstat", "mmap"}), *NAMES), _error(errno.EACCES)),
    Fault("short read or write", _of("preadv", "write"), _short),
    Fault("read ends early", _of("preadv"), _ends),
    # What only lets go of something needs no memory.
    Fault("MemoryError", _of(*(READS | WRITES) - {"close", "unlink"}), _no_memory, MemoryError),
]


class Failing:
    """Lets the n-th call that a fault can hit fail, and each later one where it is to stay.

    Args:
        fault: How.
        at: Which, counted from 1.
        always: Whether all later ones fail too.
    """

    def __init__(self, fault: Fault, at: int, *, always: bool) -> None:
        self._fault = fault
        self._at = at
        self._always = always
        self.count = 0
        self.hit: list[Call] = []

    def __call__(self, call: Call, do: Do) -> Any:
        if not self._fault.hits(call):
            return do()
        self.count += 1
        if not (self.count == self._at or (self._always and self.count > self._at)):
            return do()
        self.hit.append(call)
        return self._fault.fail(call, do)

    def hit_any(self, *names: str) -> bool:
        """Say whether a call of one of these names failed."""
        return any(call.name in names for call in self.hit)
