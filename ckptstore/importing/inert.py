"""A pickle as plain data: what it would call is written down, and nothing is ever called.

A pickle is a program for a small stack machine (``pickletools`` describes every instruction). This
one knows all of them, and where Python's would import a name or call something, it makes a
:class:`Name` or a :class:`Made` that says so. So a pickle's names can all be listed, and files that
are known to hold plain records (the index of a torch.distributed.checkpoint folder) can be read.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, NamedTuple

from ckptstore.errors import ImportRefusedError


class Name(NamedTuple):
    """Something that a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """What a pickle would make by calling something."""

    by: object
    """What it would call: a :class:`Name`, unless the pickle is up to no good."""
    args: tuple[Any, ...] = ()
    state: Any = None
    """What it would be filled with."""
    items: list[Any] = field(default_factory=list)
    """What would be appended or added to it."""
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    """What would be set in it."""


class Read(NamedTuple):
    """A pickle that was read."""

    value: Any
    names: tuple[Name, ...]
    """Every name that it would import, in order, each once."""


MAX_MADE = 5_000_000
"""Lists, tuples, calls and the like that one pickle may make; a set counts as four. Each is an
instruction of one byte and takes a hundred or two here. 300,000 tensors have fewer."""
MAX_INSTRUCTIONS = 50_000_000
MAX_KEY_DEPTH = 8
MAX_KEY_VALUES = 1000
"""Of a dict's key or a set's item. Python hashes and compares tuples in C, level by level, and what
stands in them twice twice: one that is nested a million times ends the process."""
MAX_READ = 512 * 1024 * 1024
"""Bytes of one value."""
PERSISTENT = Name("persistent", "load")
"""What a pickle asks its reader for: for torch a storage."""
CONSTANTS = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
        "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "FLOAT", "BINFLOAT",
    }
)  # fmt: skip
MAKES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
SAYS_NOTHING = frozenset({"PROTO", "FRAME", "STOP"})
TEXTS = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
"""Text or bytes of Python 2, which had one type for both."""
CHEAP = (
    CONSTANTS
    | SAYS_NOTHING
    | {
        "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "GET", "BINGET", "LONG_BINGET", "PUT",
        "BINPUT", "LONG_BINPUT", "POP", "APPEND", "SETITEM",
    }
)  # fmt: skip
"""Instructions that make nothing which is far larger than they are."""
WEIGHTS = {"EMPTY_SET": 4}


def read_pickle(stream: BinaryIO, where: str) -> Read:
    """Read the pickle that begins where *stream* stands, up to its end. Runs nothing.

    Args:
        stream: The file; left right behind the pickle.
        where: Names it in errors.

    Raises:
        ImportRefusedError: It is no pickle, is cut short, or does what no pickler writes.
    """
    return read_asking(stream, where)[0]


def read_asking(stream: BinaryIO, where: str) -> tuple[Read, list[Made]]:
    """Read a pickle as :func:`read_pickle` does, and return what it asks its reader for too."""
    machine = _Machine()
    made = count = 0
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            count += 1
            if opcode.name not in CHEAP:
                made += WEIGHTS.get(opcode.name, 1)
            if made > MAX_MADE or count > MAX_INSTRUCTIONS:
                raise ValueError("it makes more values than a checkpoint has")  # noqa: TRY301 - told as all else that is wrong with it
            machine.step(opcode.name, argument)
        return Read(machine.stack.pop(), tuple(machine.names)), machine.asked
    except (
        ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, MemoryError,
        OverflowError,
    ) as error:  # fmt: skip
        # Whatever a broken or hostile program does to a stack machine is one of these.
        said = f"{type(error).__name__}: {str(error)[:200]}"
        raise ImportRefusedError(f"{where} is no pickle that can be read: {said}") from error


def check_key(key: object) -> None:
    """Refuse a key of a dict or an item of a set that is nested too deeply to be hashed.

    Raises:
        ValueError: It is.
    """
    if not isinstance(key, tuple | frozenset):
        return
    level: list[object] = [*key]
    seen = len(level)
    for _ in range(MAX_KEY_DEPTH):
        if seen > MAX_KEY_VALUES:
            break
        inner = [each for each in level if isinstance(each, tuple | frozenset)]
        if not inner:
            return
        seen += sum(map(len, inner))
        level = [] if seen > MAX_KEY_VALUES else [item for each in inner for item in each]
    raise ValueError("a key of more values or levels than a key has")


class Within:
    """A file that is never asked for more than it has: a length in a pickle is but a claim."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Take an open file and its size in bytes."""
        self._file = file
        self._size = size

    def tell(self) -> int:
        """Return where it stands."""
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Read *count* bytes, or all that there are."""
        return self._file.read(min(count, self._size - self.tell(), MAX_READ))

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        return self._file.readline(MAX_READ)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.names: dict[Name, None] = {}
        self.asked: list[Made] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self.stack.append(_text(argument) if name in TEXTS else argument)
        elif name in MAKES:
            self.stack.append(MAKES[name]())
        elif name not in SAYS_NOTHING:
            STEPS[name](self, argument)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._marks.pop()
        return items

    def mark(self, _: object) -> None:
        self._marks.append(self.stack)
        self.stack = []

    def drop(self, _: object) -> None:
        # POP right behind a MARK takes that away.
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def double(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def get(self, place: int) -> None:
        self.stack.append(self._memo[int(place)])

    def put(self, place: int) -> None:
        self._memo[int(place)] = self.stack[-1]

    def memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError("a tuple of more than there is")
        self.stack[-count:] = [tuple(items)]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.items += items
        elif isinstance(target, list):
            target += items
        else:
            for item in items:
                check_key(item)
            target.update(items)  # a set

    def set_items(self, flat: list[Any]) -> None:
        target, pairs = self.stack[-1], _zipped(flat)
        if isinstance(target, Made):
            target.pairs += pairs
        else:
            target.update(pairs)

    def name(self, module: object, name: object) -> None:
        # A name that is worked out by the pickle itself is none that can be checked.
        found = Name(*(part if isinstance(part, str) else "<computed>" for part in (module, name)))
        self.names[found] = None
        self.stack.append(found)

    def make(self, by: object, args: object) -> None:
        made = Made(by, args if isinstance(args, tuple) else (args,))
        if by is PERSISTENT:
            self.asked.append(made)
        self.stack.append(made)

    def build(self, _: object) -> None:
        state = self.pop()
        target = self.stack[-1]
        if not isinstance(target, Made):
            made = Made(type(target).__name__, (target,))
            self.stack[-1] = target = made
        target.state = state

    def refuse(self, _: object) -> None:
        raise ValueError("an instruction that torch.save never writes")


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(_zipped(flat))


def _zipped(flat: list[Any]) -> list[tuple[Any, Any]]:
    for key in flat[::2]:
        check_key(key)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _frozen(items: list[Any]) -> frozenset[Any]:
    for item in items:
        check_key(item)
    return frozenset(items)


def _text(found: str) -> str | bytes:
    """Return text of Python 2 where it is any, else the bytes."""
    if found.isascii():
        return found
    data = found.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _global(machine: _Machine, argument: str) -> None:
    machine.name(*argument.split(" ", 1))


def _stack_global(machine: _Machine, _: object) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _inst(machine: _Machine, argument: str) -> None:
    args = machine.pop_mark()
    _global(machine, argument)
    machine.make(machine.pop(), tuple(args))


def _obj(machine: _Machine, _: object) -> None:
    by, *args = machine.pop_mark()
    machine.make(by, tuple(args))


def _reduce(machine: _Machine, _: object) -> None:
    args, by = machine.pop(), machine.pop()
    machine.make(by, args)


def _newobj_ex(machine: _Machine, _: object) -> None:
    keywords, args, by = machine.pop(), machine.pop(), machine.pop()
    machine.make(by, (*args, keywords))


def _persistent(machine: _Machine, _: object) -> None:
    machine.make(PERSISTENT, (machine.pop(),))


STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": _Machine.double,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": lambda machine, _: machine.push(_pairs(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.push(_frozen(machine.pop_mark())),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _inst,
    "OBJ": _obj,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": _Machine.build,
    "PERSID": lambda machine, argument: machine.make(PERSISTENT, (argument,)),
    "BINPERSID": _persistent,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"), _Machine.refuse),
}
