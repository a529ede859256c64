"""Where the bytes of a file's tensors lie, and those bytes as storages of torch.

Every storage has its own place in the file and is exactly as long as that: none is made by a size
that the file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import torch

from ckptstore.errors import ImportRefusedError
from ckptstore.importing.allowed import DTYPES, STORAGES, spelled
from ckptstore.importing.archive import Span
from ckptstore.importing.inert import Made, Name

# In the order of the names; torch's own classes say it too, with a warning each time.
CLASSES = dict(
    zip(
        (f"{name}Storage" for name in STORAGES),
        (
            torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
            torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
            torch.complex128, torch.qint8, torch.qint32, torch.quint8, torch.quint4x2,
            torch.quint2x4,
        ),
        strict=True,
    )
)  # fmt: skip
COUNT_BYTES = 8
VIEW = 3
LENGTHS = (5, 6)
KINDS = ("storage", b"storage")


class Asked(NamedTuple):
    """A storage that a pickle asks for."""

    dtype: torch.dtype
    key: str | int
    values: int
    """Of values of that dtype."""
    view: tuple[int, int] | None = None
    """Where it begins in the storage of that key, and how many values it has: old files alone."""

    @property
    def size_bytes(self) -> int:
        """How many bytes the whole storage has at least."""
        return self.values * self.dtype.itemsize

    @property
    def length(self) -> int:
        """How many values it shows."""
        return self.values if self.view is None else self.view[1]


class Stored(Protocol):
    """The storages of a file."""

    def get(self, asked: Asked) -> torch.UntypedStorage:
        """Return one.

        Raises:
            ValueError: It is not there, or not as long as the pickle says.
        """


def asked_for(made: Made) -> Asked:
    """Return what a pickle asks for.

    Raises:
        ValueError: It is no storage.
    """
    (asked,) = made.args
    if not isinstance(asked, tuple) or len(asked) not in LENGTHS or asked[0] not in KINDS:
        raise ValueError("something other than a storage is asked for")
    _, kind, key, _, values, *view = asked
    if type(key) not in (str, int) or type(values) is not int or values < 0:
        raise ValueError("a storage without a name or size")
    place = None
    if view and view[0] is not None:
        if not isinstance(view[0], tuple) or len(view[0]) != VIEW:
            raise ValueError("a view of a storage that is none")
        _, start, length = view[0]
        if not all(type(each) is int and each >= 0 for each in (start, length)) or (
            start + length > values
        ):
            raise ValueError("a view that reaches beyond its storage")
        place = start, length
    return Asked(_dtype_of(kind), key, values, place)


def dtype_named(name: object) -> torch.dtype:
    """Return a dtype of torch by its name.

    Raises:
        ValueError: There is none of that name in this torch.
    """
    if isinstance(name, Name) and name.module == "torch" and name.name in DTYPES:
        found = getattr(torch, name.name, None)
        if isinstance(found, torch.dtype):
            return found
    raise ValueError(f"no dtype of this torch: {name!s:.80}")


class ZipStorages:
    """Those of an archive, each one entry: mapped where the file has a path, else read."""

    def __init__(
        self, file: IO[bytes], path: Path | None, spans: Mapping[str, Span], *, swapped: bool
    ) -> None:
        """Take an archive that was checked.

        Args:
            file: It.
            path: Where it can be mapped, None where it can't.
            spans: Where its entries lie, by the storages' keys.
            swapped: Whether a machine of the other byte order wrote it.
        """
        self._file = file
        self._spans = spans
        self._swapped = swapped
        self._known: dict[tuple[str, torch.dtype | None], torch.UntypedStorage] = {}
        self._mapped = None
        size = file.seek(0, 2)
        if path is not None and size:
            self._mapped = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)

    def get(self, asked: Asked) -> torch.UntypedStorage:
        """Return one, as the class says."""
        key = str(asked.key)
        span = self._spans.get(key)
        if span is None:
            raise ValueError(f"the storage {key!r:.80} is not in it")
        if asked.size_bytes > span.size:
            raise ValueError(
                f"the storage {key!r:.80} has {span.size} bytes, and {asked.size_bytes} are asked "
                "for"
            )
        # Bytes are in another order by the size of their values.
        known = key, asked.dtype if self._swapped else None
        if known not in self._known:
            self._known[known] = self._made(span, asked.dtype)
        return self._known[known]

    def _made(self, span: Span, dtype: torch.dtype) -> torch.UntypedStorage:
        if not span.size:
            return _empty()
        # 16 is the most that any dtype's values must be aligned to.
        if self._mapped is not None and span.start % 16 == 0 and not self._swapped:
            view: torch.UntypedStorage = self._mapped[span.start : span.start + span.size]
            return view
        made = _read(self._file, span)
        if self._swapped:
            made.byteswap(dtype)  # type: ignore[no-untyped-call] # torch's own has no types
        return made


class LegacyStorages:
    """Those of a file of torch.save before 1.6: behind the pickles, one behind the other."""

    def __init__(self, file: IO[bytes], keys: Iterable[Any], asked: Iterable[Asked]) -> None:
        """Take a file that stands where its storages begin.

        Args:
            file: It.
            keys: The storages' names, in their order.
            asked: Every storage that its pickle asks for, by which their dtypes are known.

        Raises:
            ValueError: They are not where they are said to be.
        """
        self._file = file
        self._spans: dict[str, Span] = {}
        self._known: dict[str, torch.UntypedStorage] = {}
        dtypes: dict[str, torch.dtype] = {}
        for each in asked:
            if dtypes.setdefault(str(each.key), each.dtype) != each.dtype:
                raise ValueError(f"the storage {each.key!r:.80} is of two dtypes")
        place, end = file.tell(), file.seek(0, 2)
        for key in map(str, keys):
            if key in self._spans or key not in dtypes:
                raise ValueError(f"the storage {key!r:.80} is there twice, or belongs to nothing")
            file.seek(place)
            count = int.from_bytes(file.read(COUNT_BYTES), "little", signed=True)
            span = Span(place + COUNT_BYTES, count * dtypes[key].itemsize, 0)
            if count < 0 or span.start + span.size > end:
                raise ValueError(f"the storage {key!r:.80} reaches beyond the file's end")
            self._spans[key] = span
            place = span.start + span.size

    def get(self, asked: Asked) -> torch.UntypedStorage:
        """Return one, as the class says."""
        key = str(asked.key)
        span = self._spans.get(key)
        if span is None or span.size < asked.size_bytes:
            raise ValueError(f"the storage {key!r:.80} is not in it, or shorter than it says")
        if key not in self._known:
            self._known[key] = _read(self._file, span)
        whole = self._known[key]
        if asked.view is None:
            return whole
        start, length = (each * asked.dtype.itemsize for each in asked.view)
        view: torch.UntypedStorage = whole[start : start + length]
        return view


def _empty() -> torch.UntypedStorage:
    return torch.empty(0, dtype=torch.uint8).untyped_storage()


def _read(file: IO[bytes], span: Span) -> torch.UntypedStorage:
    if not span.size:
        return _empty()
    file.seek(span.start)
    made = torch.empty(span.size, dtype=torch.uint8)
    room = memoryview(made.numpy())  # type: ignore[arg-type] # typeshed doesn't know it as a buffer
    filled = 0
    while filled < span.size:
        piece = file.read(min(span.size - filled, 1 << 24))
        if not piece:
            raise ImportRefusedError("the file was cut short while it was read")
        room[filled : filled + len(piece)] = piece
        filled += len(piece)
    return made.untyped_storage()


def _dtype_of(kind: object) -> torch.dtype:
    """Return the dtype of a storage of a class that a pickle names."""
    if isinstance(kind, Name):
        name = spelled(kind)
        if name == "torch.storage.UntypedStorage":
            return torch.uint8
        if kind.module == "torch" and kind.name in CLASSES:
            return CLASSES[kind.name]
    raise ValueError(f"no class of storages: {kind!s:.80}")
