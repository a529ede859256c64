"""Folders of torch.distributed.checkpoint, put together from all ranks' pieces.

Their index, ``.metadata``, is a pickle of records (torch/distributed/checkpoint/metadata.py), which
torch reads with plain ``pickle``. Here it is read as data (:mod:`ckptstore.importing.inert`):
whatever it says, nothing is imported or called. The pieces are what torch.save wrote.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from ckptstore.errors import ImportRefusedError
from ckptstore.format.tree import MAX_TREE_DEPTH
from ckptstore.importing.inert import Made, Name, Within, read_pickle

INDEX = ".metadata"
FLAT = "FLAT"
MAX_COMPARED = 2000
"""Chunks of one tensor that are compared pair by pair."""

Load = Callable[[IO[bytes], str], Any]
"""Reads what torch.save wrote, given the open file and its name in errors."""


@dataclass(frozen=True)
class Piece:
    """Where something lies: a tensor's chunk, or a value."""

    file: str
    start: int
    length: int


def is_dcps(folder: Path) -> bool:
    """Say whether a folder is one of torch.distributed.checkpoint."""
    return (folder / INDEX).is_file()


def read_dcp(folder: Path, where: str, load: Load) -> Any:
    """Return what was saved: nested as it was, every tensor whole, on the CPU.

    Args:
        folder: The folder.
        where: Names it in errors.
        load: Reads the pieces.

    Raises:
        ImportRefusedError: The index is not what torch writes, or a piece is missing, lies outside
            its file, or does not fit its tensor.
    """
    try:
        return _Reading(folder, where, load).read()
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, ImportRefusedError):
            raise
        # Records are read as torch writes them; anything else fails somewhere on the way.
        raise ImportRefusedError(
            f"{where}/{INDEX} is not what torch writes: {error!r:.200}"
        ) from error


class _Reading:
    def __init__(self, folder: Path, where: str, load: Load) -> None:
        self._folder = folder
        self._where = where
        self._load = load
        with (folder / INDEX).open("rb") as file:
            within: Any = Within(file, (folder / INDEX).stat().st_size)
            self._index = _fields(read_pickle(within, f"{where}/{INDEX}").value, "Metadata")
        self._room = sum(item.stat().st_size for item in folder.iterdir() if item.is_file())
        self._pieces = {
            _key(index): self._piece(info) for index, info in self._index["storage_data"].items()
        }
        self._check_pieces()

    def _check_pieces(self) -> None:
        """Refuse pieces that share bytes: one that is read a thousand times is a thousand pieces.

        Raises:
            ImportRefusedError: They do.
        """
        pieces = sorted((each.file, each.start, each.length) for each in self._pieces.values())
        for (file, start, length), (other, begin, _) in pairwise(pieces):
            if file == other and begin < start + length:
                raise ImportRefusedError(
                    f"{self._where}: two pieces lie at one place of {file!r:.80}"
                )

    def read(self) -> Any:
        values = {
            name: self._value(name, record)
            for name, record in self._index["state_dict_metadata"].items()
        }
        paths = self._index.get("planner_data")
        return _nested(values, paths if isinstance(paths, Mapping) else {}, self._where)

    def _value(self, name: str, record: Made) -> Any:
        if _class(record) != "TensorStorageMetadata":
            return self._read(self._pieces[name, None], name)
        fields = _fields(record, "TensorStorageMetadata")
        size, chunks = _size(fields["size"]), fields["chunks"]
        dtype = _dtype(fields["properties"])
        boxes = [
            (_size(chunk["offsets"]), _size(chunk["sizes"]))
            for chunk in (_fields(each, "ChunkStorageMetadata") for each in chunks)
        ]
        self._check_boxes(name, size, boxes)
        self._room -= prod(size) * dtype.itemsize
        if self._room < 0:
            raise ImportRefusedError(f"{self._where} claims more bytes of tensors than it has")
        if boxes == [((0,) * len(size), size)]:
            return self._chunk(name, boxes[0], dtype)
        whole = torch.empty(size, dtype=dtype, device="cpu")
        for box in boxes:
            offsets, sizes = box
            place = tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))
            whole[place].copy_(self._chunk(name, box, dtype))
        return whole

    def _chunk(
        self, name: str, box: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype
    ) -> torch.Tensor:
        offsets, sizes = box
        # An older index names a tensor that is whole without its offsets.
        piece = self._pieces.get((name, offsets)) or self._pieces[name, None]
        read = self._read(piece, name)
        if not isinstance(read, torch.Tensor) or tuple(read.shape) != sizes or read.dtype != dtype:
            raise ImportRefusedError(
                f"{self._where}: a piece of {name!r:.80} is not the {dtype} of shape {list(sizes)} "
                "that the index says"
            )
        return read.detach()

    def _check_boxes(
        self, name: str, size: tuple[int, ...], boxes: Sequence[tuple[Any, Any]]
    ) -> None:
        """Refuse chunks that don't cover the tensor, each of its elements once."""
        inside = all(
            len(offsets) == len(sizes) == len(size)
            and all(o + s <= limit for o, s, limit in zip(offsets, sizes, size, strict=True))
            for offsets, sizes in boxes
        )
        filled = [box for box in boxes if prod(box[1])]
        if (
            not inside
            or len(filled) > MAX_COMPARED
            or sum(prod(sizes) for _, sizes in filled) != prod(size)
            or any(_overlap(one, other) for one, other in combinations(filled, 2))
        ):
            raise ImportRefusedError(
                f"{self._where}: the pieces of {name!r:.80} don't cover its shape {list(size)} once"
            )

    def _piece(self, info: Made) -> Piece:
        fields = _fields(info, "_StorageInfo")
        file, start, length = (fields[name] for name in ("relative_path", "offset", "length"))
        if fields.get("transform_descriptors"):
            raise ImportRefusedError(
                f"{self._where} was written with transforms ({fields['transform_descriptors']}), "
                "such as compression, which can't be read here"
            )
        path = self._folder / file
        if Path(file).name != file or not path.is_file():
            raise ImportRefusedError(f"{self._where}/{INDEX} names {file!r:.80}, no file there")
        if not (type(start) is type(length) is int and 0 <= start <= start + length):
            raise ImportRefusedError(f"{self._where}/{INDEX} has a piece at {start!r:.20}")
        if start + length > path.stat().st_size:
            raise ImportRefusedError(f"{self._where}/{file} is cut short")
        return Piece(file, start, length)

    def _read(self, piece: Piece, name: str) -> Any:
        with (self._folder / piece.file).open("rb") as file:
            file.seek(piece.start)
            data = file.read(piece.length)
        return self._load(io.BytesIO(data), f"{self._where}/{piece.file}, {name!r:.80}")


def _class(record: object) -> str:
    """Return the class that a record would be of."""
    if not isinstance(record, Made):
        raise TypeError(f"a {type(record).__name__} in the place of a record")
    # copyreg._reconstructor(class, object, None) is how older protocols spell it.
    by = (
        record.args[0]
        if isinstance(record.by, Name) and record.by.name == "_reconstructor"
        else record.by
    )
    if not isinstance(by, Name) or not by.module.startswith("torch."):
        raise TypeError(f"{by} in the place of a record of torch's")
    return by.name


def _fields(record: object, kind: str) -> Mapping[str, Any]:
    """Return what a record would be filled with."""
    if _class(record) != kind:
        raise TypeError(f"{_class(record)} in the place of {kind}")
    state: Any = record.state  # type: ignore[attr-defined] # _class has looked
    if not isinstance(state, Mapping):
        raise TypeError(f"a {kind} of {type(state).__name__}")
    return state


def _key(index: object) -> tuple[str, tuple[int, ...] | None]:
    fields = _fields(index, "MetadataIndex")
    offset = fields.get("offset")
    if type(fields["fqn"]) is not str:
        raise TypeError("a tensor without a name")
    return fields["fqn"], None if offset is None else _size(offset)


def _size(made: object) -> tuple[int, ...]:
    """Return a torch.Size that is written down as ``torch.Size((2, 3))``, or a plain tuple."""
    found: Any = made
    if isinstance(made, Made):
        if made.by != Name("torch", "Size"):
            raise TypeError(f"{made.by} in the place of a size")
        (found,) = made.args
    sizes = tuple(found)
    if not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise ValueError("a size that can't be")
    return sizes


def _dtype(properties: object) -> torch.dtype:
    if _class(properties) != "TensorProperties":
        raise TypeError("no properties of a tensor")
    name = properties.state[0]  # type: ignore[attr-defined] # _class has looked
    dtype = getattr(torch, name.name, None) if isinstance(name, Name) else None
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is no dtype of this torch")
    return dtype


def _overlap(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return all(
        first < second + length and second < first + size
        for first, size, second, length in zip(*one, *other, strict=True)
    )


def _nested(values: Mapping[str, Any], paths: Mapping[Any, Any], where: str) -> Any:
    """Put values where they were before the planner flattened them."""
    root: dict[Any, Any] = {}
    for name, value in values.items():
        path = paths.get(name, (name,))
        if (
            not isinstance(path, tuple)
            or not 0 < len(path) <= MAX_TREE_DEPTH
            or not all(type(step) in (str, int) for step in path)
        ):
            raise ImportRefusedError(f"{where}/{INDEX}: {name!r:.80} lies nowhere")
        node = root
        for step in path[:-1]:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise ImportRefusedError(f"{where}/{INDEX}: {name!r:.80} lies within a value")
        node[path[-1]] = value
    return _with_lists(root)


def _with_lists(node: Any) -> Any:
    """Turn dicts whose keys count from 0 back into lists: keys of dicts are spelled as text."""
    if not isinstance(node, dict):
        return node
    made = {key: _with_lists(value) for key, value in node.items()}
    return list(made.values()) if made and list(made) == list(range(len(made))) else made
