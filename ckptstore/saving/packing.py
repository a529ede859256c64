"""Tensors into packs: hashed and written side by side, straight from their own memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import torch
from blake3 import blake3

from ckptstore.errors import UnsupportedValueError
from ckptstore.format.digest import MAX_LINE_BYTES, digest
from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Pack, PartInfo
from ckptstore.format.pack import MAX_HEADER_BYTES, MAX_PACK_BYTES, Plan, Slot, plan, split
from ckptstore.format.part import Chunk, Part, Tensor, encode_part
from ckptstore.saving.background import Hasher
from ckptstore.saving.capture import CapturedPart
from ckptstore.state.tensors import dtype_name, is_plain, pieces, stride_order, view_bytes
from ckptstore.storage.base import Storage, Writer

# Small tensors are gathered before they are written: a write costs more than their copy does.
GATHER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Packed:
    """A save's parts once their tensors are durable."""

    packs: list[Pack]
    infos: list[PartInfo]
    lines: list[bytes]
    """Each part's line of the manifest."""


def pack_parts(
    storage: Storage,
    save_id: UUID,
    parts: Sequence[CapturedPart],
    *,
    max_pack_bytes: int = MAX_PACK_BYTES,
) -> Packed:
    """Write the tensors of all parts and describe them.

    Every pack is durable when this returns. Extra memory is at most a few MiB on the CPU, and 16
    MiB of staging for tensors that are not contiguous or on another device.

    Args:
        storage: Where to.
        save_id: Names the packs.
        parts: As captured.
        max_pack_bytes: Where a part is split.

    Raises:
        StorageError: A pack could not be written; no version names what was.
        UnsupportedValueError: A part's tree takes more than the 64 MiB a manifest's line may have.
    """
    packs: list[Pack] = []
    infos: list[PartInfo] = []
    lines: list[bytes] = []
    with Hasher() as hasher:
        for part in parts:
            slots = [
                _slot(name, tensor)
                for name, tensor in zip(part.tensor_names, part.tensors, strict=True)
            ]
            tensors: list[Tensor | None] = [None] * len(slots)
            for places in split(slots, max_pack_bytes):
                layout = plan([slots[place] for place in places])
                if len(layout.header) > MAX_HEADER_BYTES:
                    raise UnsupportedValueError(
                        part.name,
                        f"a pack whose header takes {len(layout.header)} bytes",
                        f"its tensors' names may take {MAX_HEADER_BYTES} bytes: shorten them",
                    )
                written = _write_pack(
                    storage,
                    save_id,
                    len(packs),
                    layout=layout,
                    tensors=[part.tensors[p] for p in places],
                    hasher=hasher,
                )
                for index, place in enumerate(places):
                    tensors[place] = _describe(
                        part.tensors[place],
                        slots[place],
                        len(packs),
                        layout.starts[index],
                        written.digests[index],
                    )
                packs.append(written.pack)
            line = encode_part(
                Part(part.tree, tuple(t for t in tensors if t is not None), part.parameters)
            )
            if len(line) > MAX_LINE_BYTES:
                raise UnsupportedValueError(
                    part.name,
                    f"{len(line)} bytes of plain values",
                    f"a part's values other than tensors may take {MAX_LINE_BYTES} bytes: keep "
                    "large data in "
                    "tensors or NumPy arrays",
                )
            lines.append(line)
            infos.append(
                PartInfo(
                    part.name,
                    part.kind,
                    sum(slot.length for slot in slots),
                    len(line),
                    digest(line),
                    part.class_name,
                    part.model_config,
                )
            )
    return Packed(packs, infos, lines)


@dataclass(frozen=True)
class _Written:
    pack: Pack
    digests: list[str]
    """Each tensor's, in the order of the tensors given."""


def _write_pack(
    storage: Storage,
    save_id: UUID,
    number: int,
    *,
    layout: Plan,
    tensors: Sequence[torch.Tensor],
    hasher: Hasher,
) -> _Written:
    digests = [""] * len(tensors)
    plain = [index for index in layout.order if is_plain(tensors[index])]
    ahead = hasher.digests_ahead([view_bytes(tensors[index]) for index in plain])
    with storage.open_writer(pack_key(save_id, number)) as writer:
        out = _Gathered(writer)
        out.write(memoryview(layout.header))
        for index in layout.order:
            if is_plain(tensors[index]):
                out.write(view_bytes(tensors[index]))
                digests[index] = next(ahead)
            else:
                digests[index] = _write_staged(out, tensors[index], hasher)
        out.flush()
    header_digest = digest(layout.header)
    return _Written(
        Pack(save_id, number, layout.size_bytes, len(layout.header), header_digest), digests
    )


def _write_staged(out: _Gathered, tensor: torch.Tensor, hasher: Hasher) -> str:
    state = blake3()
    for piece in pieces(tensor):
        hashed = hasher.beside(state, piece)
        out.write(piece)
        if hashed is not None:
            hashed.result()
    return state.hexdigest()


class _Gathered:
    """A writer that gathers small pieces and passes large ones on as they are."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._small = bytearray()

    def write(self, view: memoryview) -> None:
        if view.nbytes < GATHER_BYTES:
            self._small += view
            if len(self._small) >= GATHER_BYTES:
                self.flush()
        else:
            self.flush()
            self._writer.write(view)

    def flush(self) -> None:
        if self._small:
            self._writer.write(memoryview(self._small))
            self._small = bytearray()


def _slot(name: str, tensor: torch.Tensor) -> Slot:
    size = tensor.dtype.itemsize
    return Slot(name, dtype_name(tensor.dtype), tuple(tensor.shape), size, tensor.numel() * size)


def _describe(tensor: torch.Tensor, slot: Slot, pack: int, start: int, blake3_hex: str) -> Tensor:
    chunk = Chunk((0,) * len(slot.shape), slot.shape, pack, start, slot.length, blake3_hex)
    return Tensor(
        slot.dtype, slot.itemsize, slot.shape, stride_order(tensor), tensor.requires_grad, (chunk,)
    )
