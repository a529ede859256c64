"""Every file, object and database operation of a process, counted; and its death at one of them.

Installed in a forked child and never taken out again. Seen are all calls of :mod:`os` that touch
files (``pathlib`` goes through them), every request to S3 at botocore's own seam, and every
statement at SQLite's driver. What SQLite itself does inside one statement is not seen: its own
journal answers for that, and the catalog is an index that can be rebuilt.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn

BEFORE, TORN, AFTER = "before", "torn", "after"

CHANGING = frozenset(
    {
        *("open", "write", "pwrite", "writev", "truncate", "ftruncate", "utime", "chmod"),
        *("link", "unlink", "remove", "rename", "replace", "symlink", "mkdir", "rmdir"),
    }
)
"""Calls that may change what lies on the disk; ``open`` only where it makes or empties a file."""
LOOKING = frozenset(
    {"read", "pread", "preadv", "stat", "lstat", "fstat", "scandir", "listdir", "access", "close"}
)
SYNCING = frozenset({"fsync", "fdatasync"})
WRITING_REQUESTS = ("Put", "Create", "Upload", "Complete", "Abort", "Delete", "Copy")
READING_STATEMENTS = ("SELECT", "PRAGMA")

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_UNSEEN_EVENTS = frozenset(
    {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}
)
_write = os.write


@dataclass(frozen=True)
class Operation:
    """One operation a process made."""

    name: str
    changes: bool
    """Whether it may change what is stored; between two that do, all moments are alike."""
    tears: bool = False
    """Whether it can be done by half."""


@dataclass
class Points:
    """Counts operations from 0, and ends the process before, in the middle of or after one."""

    at: int | None = None
    when: str = AFTER
    seen: list[Operation] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """Changes of files that went past the calls counted here: none, or they prove little."""
    _root: str = ""
    _files: dict[int, str] = field(default_factory=dict)
    _numbers: Any = field(default_factory=count)
    _inside: threading.local = field(default_factory=threading.local)

    def begin(self, operation: Operation) -> int:
        """Take note that an operation is about to be made."""
        number = next(self._numbers)
        self.seen.append(operation)
        self._inside.depth = self._depth() + 1
        if number == self.at and self.when == BEFORE:
            die()
        return number

    def end(self, number: int) -> None:
        """Take note that it was made, or failed."""
        self._inside.depth = self._depth() - 1
        if number == self.at and self.when == AFTER:
            die()

    def tears(self, number: int) -> bool:
        """Say whether the process is to die in the middle of this one."""
        return number == self.at and self.when == TORN

    def _depth(self) -> int:
        return getattr(self._inside, "depth", 0)

    # ------------------------------------------------------------------------------------ seams

    def install(self, root: str) -> None:
        """Count from here on.

        Args:
            root: A folder. Files elsewhere, such as the libraries' own, don't count.
        """
        self._root = root
        for name in sorted(CHANGING | LOOKING | SYNCING):
            setattr(os, name, self._counted(name, getattr(os, name)))
        self._count_renaming_by_libc()
        self._count_statements()
        self._count_requests()
        self._watch()

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_ours(args[0] if args else None):
                return function(*args, **kwargs)
            changes = bool(args[1] & _WRITE_FLAGS) if name == "open" else name in CHANGING
            label = _label(name, [self._files.get(args[0], args[0]), *args[1:]])
            number = self.begin(Operation(label, changes, tears=name == "write"))
            try:
                if name == "write" and self.tears(number):
                    _write(args[0], bytes(args[1])[: max(len(args[1]) // 2, 1)])
                    die()
                if name in SYNCING:
                    return None  # the kernel outlives a killed process: only time is saved
                result = function(*args, **kwargs)
                if name == "open":
                    self._files[result] = os.fspath(args[0])
                elif name == "close":
                    self._files.pop(args[0], None)
                return result
            finally:
                self.end(number)

        return call

    def _is_ours(self, file: object) -> bool:
        if isinstance(file, int):
            return file in self._files
        return isinstance(file, str | os.PathLike) and self._is_below(os.fspath(file))

    def _is_below(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")

    def _count_renaming_by_libc(self) -> None:
        from ckptstore.storage import durable

        rename = durable.rename_without_replacing

        def call(source: Any, target: Any) -> bool:
            number = self.begin(Operation(_label("renameat2", [source, target]), changes=True))
            try:
                return rename(source, target)
            finally:
                self.end(number)

        durable.rename_without_replacing = call

    def _count_statements(self) -> None:
        class Cursor(CountingCursor):
            points = self

        class Connection(CountingConnection):
            points = self
            cursors = Cursor

        connect = sqlite3.dbapi2.connect

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.statement(
                "connect", lambda: connect(*args, **{**kwargs, "factory": Connection})
            )

        sqlite3.dbapi2.connect = sqlite3.connect = call

    def statement(self, sql: str, work: Callable[[], Any]) -> Any:
        """Have the database do something."""
        words = " ".join(sql.split()[:3])
        changes = not sql.lstrip().upper().startswith(READING_STATEMENTS)
        number = self.begin(Operation(f"sql {words}", changes))
        try:
            return work()
        finally:
            self.end(number)

    def _count_requests(self) -> None:
        from aiobotocore.client import AioBaseClient

        make, points = AioBaseClient._make_api_call, self

        async def call(client: Any, method: str, arguments: dict[str, Any]) -> Any:
            changes = method.startswith(WRITING_REQUESTS)
            number = points.begin(Operation(f"{method} {arguments.get('Key', '')}", changes))
            try:
                return await make(client, method, arguments)
            finally:
                points.end(number)

        AioBaseClient._make_api_call = call

    def _watch(self) -> None:
        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event not in _UNSEEN_EVENTS and event != "open":
                return
            path = str(args[0])
            changes = event != "open" or bool((args[2] or 0) & _WRITE_FLAGS)
            if changes and not self._depth() and self._is_below(path):
                self.unseen.append(f"{event} {path}")

        sys.addaudithook(hook)


class CountingCursor(sqlite3.Cursor):
    """Counts statements."""

    points: Points

    def execute(self, sql: str, *args: Any) -> Any:
        """Run a statement."""
        if sql.startswith("PRAGMA synchronous"):
            sql = "PRAGMA synchronous = OFF"  # as for fsync
        execute = super().execute
        return self.points.statement(sql, lambda: execute(sql, *args))

    def executemany(self, sql: str, *args: Any) -> Any:
        """Run a statement several times."""
        execute = super().executemany
        return self.points.statement(sql, lambda: execute(sql, *args))


class CountingConnection(sqlite3.Connection):
    """Counts what is done past a cursor too."""

    points: Points
    cursors: type[CountingCursor]

    def cursor(self, factory: Any = None) -> Any:
        """Return a cursor that counts."""
        return super().cursor(factory or self.cursors)

    def execute(self, sql: str, *args: Any) -> Any:
        """Run a statement."""
        return self.cursor().execute(sql, *args)

    def commit(self) -> None:
        """Commit what is open; without anything open this is no operation."""
        if self.in_transaction:
            self.points.statement("COMMIT", super().commit)

    def rollback(self) -> None:
        """Roll back what is open."""
        if self.in_transaction:
            self.points.statement("ROLLBACK", super().rollback)


def die() -> NoReturn:
    """End this process as ``kill -9`` does: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


def _label(name: str, args: Sequence[Any]) -> str:
    paths = [os.fspath(arg) for arg in args[:2] if isinstance(arg, str | os.PathLike)]
    ends = [path.rsplit("/", 1)[-1] for path in paths]
    return " ".join([name, *ends])
