"""A part's tensors one at a time: nothing is read before it is asked for, and slices in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import torch

from ckptstore.errors import ArgumentError, TensorNotFoundError
from ckptstore.format.part import Chunk, Tensor
from ckptstore.format.paths import tensors_by_path
from ckptstore.format.untree import decode, tensor_places
from ckptstore.loading.boxes import Box, box_of, overlap, shape_of, spans, within
from ckptstore.loading.dtypes import dtype_was
from ckptstore.loading.fetch import BLOCK_BYTES, GAP_BYTES, assemble, fetch
from ckptstore.loading.reader import Reader, Want
from ckptstore.manifest import OpenManifest
from ckptstore.state.tensors import fresh_bytes, from_bytes
from ckptstore.text import plain

# A page: on a local disk a gap of that size costs nothing, and a request hardly more.
LOCAL_GAP_BYTES = 4096
SHOWN = 5

Reading = Callable[[], AbstractContextManager[object]]
"""Gives a context in which bytes are read, which explains what is missing."""


class Tensors(Mapping[str, "LazyTensor"]):
    """A part's tensors by key, or by path where the part is no state dict.

    Args:
        opened: The version.
        name: The part's name.
        reading: In which bytes are read.
        verify: Whether a slice reads the chunks it touches whole and compares them with their
            digests.
    """

    def __init__(self, opened: OpenManifest, name: str, reading: Reading, *, verify: bool) -> None:
        self.part = opened.part(name)
        self.what = f"part {name!r} of {opened.head.ref}"
        self.verify = verify
        self.reading = reading
        self._opened = opened
        self._name = name
        self._reader = Reader(opened.storage, opened.head, name, self.part)
        self._nodes = tensors_by_path(self.part.tree)
        self._checked: set[int] = set()

    def __getitem__(self, key: str) -> LazyTensor:
        node = self._nodes.get(key)
        if node is None:
            listed = ", ".join(map(repr, list(self._nodes)[:SHOWN])) or "none"
            more = f" and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
            why = " (it was left out when it was saved)" if key in self.part.left_out else ""
            raise TensorNotFoundError(
                f"{self.what} has no tensor {key!r}{why}; it has {listed}{more}"
            )
        return LazyTensor(self, key, node)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"<{len(self)} tensors of {plain(self.what)}>"

    def described(self, node: dict[str, Any]) -> tuple[int, Tensor] | None:
        """Return a plain tensor's place and description; None for one made of several."""
        place = node.get("$tensor")
        if type(place) is not int or not 0 <= place < len(self.part.tensors):
            return None
        return place, self.part.tensors[place]

    def dtype(self, place: int) -> torch.dtype:
        """Return a plain tensor's dtype."""
        return self._reader.dtype(place)

    def whole(self, node: dict[str, Any]) -> torch.Tensor:
        """Read a tensor and compare it with its digest."""
        found = self.described(node)
        if found is not None:
            place, tensor = found
            dtype = self._reader.dtype(place)
            self._check_packs(tensor)
            wants = [
                Want(place, chunk, self._reader.read_chunk(place, chunk)) for chunk in tensor.chunks
            ]
            return assemble(tensor, dtype, None, wants).detach()
        part, opened = self.part, self._opened
        places = {place for place in tensor_places(node) if 0 <= place < len(part.tensors)}
        tensors = fetch(opened.storage, opened.head, self._name, part, places, map_files=False)
        value: torch.Tensor = decode(node, self.what, tensors.__getitem__)
        return value.detach()

    def box(self, place: int, tensor: Tensor, box: Box) -> torch.Tensor:
        """Read a box of a plain tensor, row-major."""
        dtype = self._reader.dtype(place)
        shape = shape_of(box)
        out = from_bytes(fresh_bytes(prod(shape) * tensor.itemsize), dtype, shape, None)
        if not prod(shape):
            return out
        self._check_packs(tensor)
        for chunk in tensor.chunks:
            common = overlap(box, chunk.offsets, chunk.shape)
            if common is None:
                continue
            for inner, values in self._values(place, chunk, common, dtype):
                if values.shape == out.shape and values.is_contiguous():
                    return values
                out[within(inner, chunk.offsets, box)] = values
        return out

    def _values(
        self, place: int, chunk: Chunk, box: Box, dtype: torch.dtype
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """Yield what of a box lies in a chunk: boxes of the chunk, and the values in them."""
        if self.verify:
            flat = self._reader.read_chunk(place, chunk)
            whole = from_bytes(flat, dtype, chunk.shape, None)
            yield box, whole[tuple(slice(each.start, each.stop, each.step) for each in box)]
            return
        local = self._opened.storage.local_folder is not None
        for span in spans(
            box,
            chunk.shape,
            dtype.itemsize,
            gap_bytes=LOCAL_GAP_BYTES if local else GAP_BYTES,
            most_bytes=BLOCK_BYTES,
        ):
            flat = self._reader.read_stretch(place, chunk, span.start, span.length)
            values = from_bytes(flat, dtype, (span.length // dtype.itemsize,), None)
            yield span.box, values.as_strided(shape_of(span.box), span.strides)

    def _check_packs(self, tensor: Tensor) -> None:
        """Look once at each pack that a tensor lies in: its size, and how it begins."""
        for index in {chunk.pack for chunk in tensor.chunks if chunk.length} - self._checked:
            self._reader.check_header(self._opened.head.packs[index])
            self._checked.add(index)


class LazyTensor:
    """A saved tensor of which nothing was read yet; ``[...]`` reads it.

    It can be handed to torch's functions as it is: they read it whole. It is
    :class:`ckptstore.reading.LazyTensor`, which says more.
    """

    def __init__(self, tensors: Tensors, name: str, node: dict[str, Any]) -> None:
        self.name = name
        self._tensors = tensors
        self._node = node

    def __repr__(self) -> str:
        found = self._tensors.described(self._node)
        form = "" if found is None else f", {found[1].dtype}, {list(found[1].shape)}"
        return f"<LazyTensor {plain(self.name)}{form}>"

    @property
    def shape(self) -> torch.Size:
        """Its shape; a tensor that is made of several is read for it."""
        found = self._tensors.described(self._node)
        return self.read().shape if found is None else torch.Size(found[1].shape)

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype, as stored; a tensor that is made of several is read for it."""
        found = self._tensors.described(self._node)
        return self.read().dtype if found is None else self._tensors.dtype(found[0])

    @property
    def was(self) -> torch.dtype | None:
        """The dtype it had, where it was stored in another one; else None."""
        found = self._tensors.described(self._node)
        if found is None or found[1].was is None:
            return None
        return dtype_was(found[1].was, self._tensors.what)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def read(self) -> torch.Tensor:
        """Read it whole, compared with its digest.

        Returns:
            A tensor on the CPU that requires no gradient.

        Raises:
            IntegrityError: Its bytes are not those that were saved.
            StorageError: The storage failed.
        """
        with self._tensors.reading():
            return self._tensors.whole(self._node)

    def __getitem__(self, index: Any) -> torch.Tensor:
        if index is Ellipsis or (isinstance(index, tuple) and not index):
            return self.read()
        found = self._tensors.described(self._node)
        what = f"tensor {self.name!r} of {self._tensors.what}"
        if found is None:
            raise ArgumentError(
                f"{what} is made of several tensors, so no slice can be read alone: read it whole "
                "with [...]"
            )
        place, tensor = found
        box, rest = box_of(index, tensor.shape, what)
        with self._tensors.reading():
            return self._tensors.box(place, tensor, box)[rest].contiguous()

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        _types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let torch's functions take it: it is read whole, and they get the tensor."""
        given = {name: _read(value) for name, value in (kwargs or {}).items()}
        return function(*map(_read, args), **given)


def _read(value: Any) -> Any:
    if isinstance(value, LazyTensor):
        return value.read()
    if type(value) in (list, tuple):
        return type(value)(map(_read, value))
    return value
