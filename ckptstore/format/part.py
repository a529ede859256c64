"""A part's line in a manifest: its tree, and where each tensor's bytes are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import digest, dump_line, parse_line
from ckptstore.format.fields import Fields
from ckptstore.format.manifest import Head, Pack, PartInfo

# torch's own limit: https://github.com/pytorch/pytorch/blob/main/c10/core/TensorImpl.h (kDimsMax)
MAX_DIMENSIONS = 64
# Along how many of them a tensor may be cut: twice as many as meshes of devices have today.
MAX_CUT_DIMENSIONS = 8


@dataclass(frozen=True)
class Chunk:
    """One stretch of a tensor's bytes in a pack."""

    offsets: tuple[int, ...]
    """Where the chunk begins in the whole tensor, one index a dimension."""
    shape: tuple[int, ...]
    pack: int
    """The pack's place in the head."""
    start: int
    """Bytes from the pack file's start."""
    length: int
    digest: str


@dataclass(frozen=True)
class Tensor:
    """A tensor as a part's line describes it."""

    dtype: str
    """torch's name, e.g. ``float32``."""
    itemsize: int
    """Bytes per element."""
    shape: tuple[int, ...]
    order: tuple[int, ...] | None
    """The dimensions from the slowest to the fastest in memory; None for row-major."""
    requires_grad: bool
    chunks: tuple[Chunk, ...]
    was: str | None = None
    """The dtype it had in the training, where it was stored in another one; torch's name."""

    @property
    def size_bytes(self) -> int:
        """The bytes of its elements."""
        return prod(self.shape) * self.itemsize


@dataclass(frozen=True)
class Form:
    """What a tensor was that nobody saved."""

    dtype: str
    """torch's name, as it was in the training."""
    shape: tuple[int, ...]
    digest: str | None = None
    """BLAKE3 of its bytes, row-major; None where nobody hashed it."""

    def __str__(self) -> str:
        return f"{self.dtype}, shape {list(self.shape)}"


@dataclass(frozen=True)
class Part:
    """A part's line: its tree and its tensors."""

    tree: Any
    tensors: tuple[Tensor, ...]
    parameters: tuple[tuple[str | None, ...], ...] | None = None
    """An optimizer's parameters by name, one list a group, e.g. ``model/fc.weight``."""
    left_out: Mapping[str, Form | None] = field(default_factory=dict)
    """Names of a module's state that nobody saved: they come from the class, or from the object
    that the rest is put into. And what they were, but for tensors that are made of others."""


def encode_part(part: Part) -> bytes:
    """Return a part's line, without the line feed."""
    value: dict[str, Any] = {"tree": part.tree, "tensors": [_tensor_json(t) for t in part.tensors]}
    if part.parameters is not None:
        value["parameters"] = [list(group) for group in part.parameters]
    if part.left_out:
        value["left_out"] = [
            name if form is None else {"name": name, **_form_json(form)}
            for name, form in part.left_out.items()
        ]
    return dump_line(value)


def decode_part(line: bytes, head: Head, info: PartInfo, where: str) -> Part:
    """Read a part's line.

    Raises:
        IntegrityError: The line is not the one the head has the digest of, or is not what format 1
            says: a chunk outside its pack or its tensor, a length that does not match a shape.
    """
    if len(line) != info.length or digest(line) != info.digest:
        raise IntegrityError(
            f"{where}: the line of part {info.name!r} is not the one that was saved", ref=head.ref
        )
    fields = Fields(parse_line(line, where), f"{where}, part {info.name!r}")
    tensors = tuple(
        _decode_tensor(Fields(item, f"{fields.where}, tensor {index}"), head.packs)
        for index, item in enumerate(fields.items("tensors"))
    )
    return Part(fields.get("tree"), tensors, _decode_parameters(fields), _decode_left_out(fields))


def _decode_parameters(fields: Fields) -> tuple[tuple[str | None, ...], ...] | None:
    if fields.get("parameters") is None:
        return None
    groups = fields.items("parameters")
    for group in groups:
        if not isinstance(group, list) or not all(n is None or isinstance(n, str) for n in group):
            raise fields.bad("parameters", "lists of names")
    return tuple(tuple(group) for group in groups)


def _decode_left_out(fields: Fields) -> dict[str, Form | None]:
    if fields.get("left_out") is None:
        return {}
    found: dict[str, Form | None] = {}
    items = fields.items("left_out")
    for index, item in enumerate(items):
        if isinstance(item, str):
            found[item] = None
            continue
        one = Fields(item, f"{fields.where}, key {index} that was left out")
        shape = one.numbers("shape")
        if len(shape) > MAX_DIMENSIONS:
            raise one.bad("shape", "the shape of a tensor that can exist")
        known = None if one.get("blake3") is None else one.digest("blake3")
        found[one.text("name")] = Form(one.text("dtype"), shape, known)
    if len(found) != len(items):
        raise fields.bad("left_out", "different names")
    return found


def _form_json(form: Form) -> dict[str, Any]:
    value: dict[str, Any] = {"dtype": form.dtype, "shape": [*form.shape]}
    return value if form.digest is None else value | {"blake3": form.digest}


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    value: dict[str, Any] = {
        "dtype": tensor.dtype,
        "itemsize": tensor.itemsize,
        "shape": list(tensor.shape),
    }
    if tensor.order is not None:
        value["order"] = list(tensor.order)
    if tensor.requires_grad:
        value["requires_grad"] = True
    if tensor.was is not None:
        value["was"] = tensor.was
    chunks = []
    for chunk in tensor.chunks:
        item: dict[str, Any] = {"pack": chunk.pack, "start": chunk.start, "length": chunk.length}
        if chunk.shape != tensor.shape:
            item |= {"offsets": list(chunk.offsets), "shape": list(chunk.shape)}
        chunks.append(item | {"blake3": chunk.digest})
    return value | {"chunks": chunks}


def _decode_tensor(fields: Fields, packs: Sequence[Pack]) -> Tensor:
    shape = fields.numbers("shape")
    itemsize = fields.number("itemsize", least=1)
    # Strides are counted as if no size were zero.
    strides = prod(max(1, size) for size in shape) * itemsize
    if len(shape) > MAX_DIMENSIONS or itemsize > 64 or strides >= 2**62:  # noqa: PLR2004 - docs/format.md
        raise fields.bad("shape", "the shape of a tensor that can exist")
    order = fields.numbers("order") if fields.get("order") is not None else None
    if order is not None and sorted(order) != list(range(len(shape))):
        raise fields.bad("order", "a permutation of the dimensions")
    chunks = tuple(
        _decode_chunk(Fields(item, f"{fields.where}, chunk {index}"), shape, itemsize, packs)
        for index, item in enumerate(fields.items("chunks"))
    )
    if not _cover(shape, chunks):
        raise fields.bad("chunks", "chunks that cover the tensor once")
    return Tensor(
        fields.text("dtype"),
        itemsize,
        shape,
        order,
        fields.flag("requires_grad"),
        chunks,
        fields.text_or_none("was"),
    )


def _decode_chunk(
    fields: Fields, whole: tuple[int, ...], itemsize: int, packs: Sequence[Pack]
) -> Chunk:
    partial = fields.get("shape") is not None
    shape = fields.numbers("shape") if partial else whole
    offsets = fields.numbers("offsets") if partial else (0,) * len(whole)
    if not len(shape) == len(offsets) == len(whole) or any(
        offset + size > limit for offset, size, limit in zip(offsets, shape, whole, strict=True)
    ):
        raise fields.bad("shape", f"a box inside {list(whole)}")
    pack = fields.number("pack")
    if pack >= len(packs):
        raise fields.bad("pack", f"below {len(packs)}, the number of packs in the head")
    start, length = fields.number("start"), fields.number("length")
    if length != prod(shape) * itemsize:
        raise fields.bad("length", f"{prod(shape) * itemsize}, the bytes of shape {list(shape)}")
    if not packs[pack].header_bytes <= start <= packs[pack].size_bytes - length:
        raise fields.bad("start", f"inside the data of a pack of {packs[pack].size_bytes} bytes")
    return Chunk(offsets, shape, pack, start, length, fields.digest("blake3"))


def _cover(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> bool:
    """Say whether chunks, each inside the tensor, hold each of its elements exactly once.

    They do exactly if the corners of all boxes, each counted with the sign of its side, cancel out
    but for the whole tensor's: a function that is zero far out is determined by its mixed
    differences, and a box's are its signed corners. So this takes time by the number of chunks, and
    not by its square, however hostile they are.
    """
    boxes = [(chunk.offsets, chunk.shape, 1) for chunk in chunks if prod(chunk.shape)]
    if prod(shape):
        boxes.append(((0,) * len(shape), shape, -1))
    cut = [dim for dim, size in enumerate(shape) if any(box[1][dim] != size for box in boxes)]
    if len(cut) > MAX_CUT_DIMENSIONS:
        return False
    corners: Counter[tuple[int, ...]] = Counter()
    for offsets, sizes, weight in boxes:
        for ends in product((0, 1), repeat=len(cut)):
            corner = tuple(
                offsets[dim] + end * sizes[dim] for dim, end in zip(cut, ends, strict=True)
            )
            corners[corner] += weight * (-1) ** sum(ends)
    return not any(corners.values())
