"""Tensors into packs: hashed and written side by side, straight from their own memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import torch
from blake3 import blake3

from ckptstore.errors import StorageError, UnsupportedValueError
from ckptstore.format.digest import MAX_LINE_BYTES, digest
from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Pack, PartInfo
from ckptstore.format.pack import MAX_HEADER_BYTES, MAX_PACK_BYTES, Plan, Slot, plan, split
from ckptstore.format.part import Chunk, Part, Tensor, encode_part
from ckptstore.saving.background import Hasher
from ckptstore.saving.basis import Basis
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.effort import Effort, Meter
from ckptstore.saving.leaving_out import settle
from ckptstore.saving.reuse import Known, look_up, share
from ckptstore.state.tensors import dtype_name, is_plain, pieces, stride_order, view_bytes
from ckptstore.storage.base import Storage, Writer
from ckptstore.storage.failures import is_full

# Small tensors are gathered before they are written: a write costs more than their copy does.
GATHER_BYTES = 1024 * 1024
# What is unchanged but can't be shared where it lies gets a pack of its own from that size on: a
# pack costs about a millisecond.
OWN_PACK_BYTES = 64 * 1024
NOTHING = digest(b"")


@dataclass(frozen=True)
class Packed:
    """A save's parts once their tensors are durable."""

    packs: list[Pack]
    """Those written, and those of other saves that hold what was not."""
    infos: list[PartInfo]
    lines: list[bytes]
    """Each part's line of the manifest."""
    parts: list[Part]
    """The same as objects."""
    samples: frozenset[object]
    """The samples of all tensors, by which the next save tells what may be the same."""
    left_out: Mapping[tuple[str, str, object], str]
    """Digests of tensors that were left out, by part, key and sample."""


def pack_parts(
    storage: Storage,
    save_id: UUID,
    parts: Sequence[CapturedPart],
    bases: Sequence[Basis] = (),
    *,
    max_pack_bytes: int = MAX_PACK_BYTES,
    effort: Effort | None = None,
) -> Packed:
    """Write those tensors of all parts that are not in the store already, and describe them all.

    Every pack is durable when this returns. Extra memory is at most a few MiB on the CPU, and 16
    MiB of staging for tensors that are not contiguous or on another device.

    Args:
        storage: Where to.
        save_id: Names the packs.
        parts: As captured. What of them nobody chose is named where it lies already, or left out.
        bases: Versions whose packs may be named instead of writing the same bytes again.
        max_pack_bytes: Where a part is split.
        effort: Is told what was hashed and written; in the background one core is enough.

    Raises:
        StorageError: A pack could not be written; no version names what was.
        UnsupportedValueError: A part's tree takes more than the 64 MiB a manifest's line may have.
    """
    effort = effort or Effort()
    settled = [settle(storage, part, bases, effort) for part in parts]
    parts = [part for part, _ in settled]
    known = [look_up(part, bases, found, effort=effort) for part, found in settled]
    same = [[bool(each.places) for each in found] for found in known]
    share(storage, [each for found in known for each in found])
    infos: list[PartInfo] = []
    lines: list[bytes] = []
    described: list[Part] = []
    new_bytes = sum(each.length for found in known for each in found if each.place is None)
    beside = not effort.is_in_background
    with _saying_if_full(new_bytes), Hasher(beside=beside, meter=effort.hashed) as hasher:
        packs = _Packs(storage, save_id, max_pack_bytes, hasher, effort.written)
        for part, found, is_same in zip(parts, known, same, strict=True):
            tensors = packs.add(part, found, is_same)
            described.append(Part(part.tree, tuple(tensors), part.parameters, part.left_out))
            lines.append(_line(part.name, described[-1]))
            infos.append(
                PartInfo(
                    part.name,
                    part.kind,
                    sum(each.length for each in found),
                    len(lines[-1]),
                    digest(lines[-1]),
                    part.class_name,
                    part.model_config,
                )
            )
    samples = frozenset(each.sample for found in known for each in found)
    left_out = {
        (part.name, key, sample): form.digest
        for part in parts
        for key, sample in part.left_out_samples.items()
        if (form := part.left_out[key]) is not None and form.digest is not None
    }
    return Packed(packs.listed, infos, lines, described, samples, left_out)


@contextmanager
def _saying_if_full(needed_bytes: int) -> Iterator[None]:
    """Say on the error how much was to be written where there is no room for it."""
    try:
        yield
    except StorageError as error:
        if is_full(error):
            error.needed_bytes = needed_bytes
        raise


class _Packs:
    """The packs of one save, and where each tensor lies in them."""

    def __init__(
        self,
        storage: Storage,
        save_id: UUID,
        max_pack_bytes: int,
        hasher: Hasher,
        written: Meter,
    ) -> None:
        self.listed: list[Pack] = []
        self._storage = storage
        self._save_id = save_id
        self._max_pack_bytes = max_pack_bytes
        self._hasher = hasher
        self._meter = written
        self._written = 0
        self._indices: dict[tuple[UUID, int], int] = {}

    def add(
        self,
        part: CapturedPart,
        known: Sequence[Known],
        is_same: Sequence[bool],
    ) -> list[Tensor]:
        """Write what of a part is not in the store already; return all its tensors described."""
        slots = [
            _slot(name, tensor)
            for name, tensor in zip(part.tensor_names, part.tensors, strict=True)
        ]
        chunks: dict[int, Chunk] = {}
        for place, each in enumerate(known):
            if each.place is not None and each.digest is not None:
                pack = self._index(each.place.pack)
                chunks[place] = _chunk(slots[place], pack, each.place.start, each.digest)
        self._put_empty(slots, chunks)
        for places in _apart(slots, [p for p in range(len(slots)) if p not in chunks], is_same):
            for some in split([slots[place] for place in places], self._max_pack_bytes):
                self._write(part, slots, known, [places[index] for index in some], chunks)
        return [
            _describe(tensor, slot, chunks[place], part.was.get(place))
            for place, (tensor, slot) in enumerate(zip(part.tensors, slots, strict=True))
        ]

    def _put_empty(self, slots: Sequence[Slot], chunks: dict[int, Chunk]) -> None:
        """Let tensors without bytes lie in a pack that is shared where all the others do."""
        rest = [place for place in range(len(slots)) if place not in chunks]
        if chunks and not any(slots[place].length for place in rest):
            pack = next(iter(chunks.values())).pack
            start = self.listed[pack].header_bytes
            for place in rest:
                chunks[place] = _chunk(slots[place], pack, start, NOTHING)

    def _write(
        self,
        part: CapturedPart,
        slots: Sequence[Slot],
        known: Sequence[Known],
        places: Sequence[int],
        chunks: dict[int, Chunk],
    ) -> None:
        layout = plan([slots[place] for place in places])
        if len(layout.header) > MAX_HEADER_BYTES:
            raise UnsupportedValueError(
                part.name,
                f"a pack whose header takes {len(layout.header)} bytes",
                f"its tensors' names may take {MAX_HEADER_BYTES} bytes: shorten them",
            )
        written = _write_pack(
            self._storage,
            self._save_id,
            self._written,
            layout=layout,
            tensors=[part.tensors[place] for place in places],
            digests=[known[place].digest for place in places],
            hasher=self._hasher,
            meter=self._meter,
        )
        self._written += 1
        index = self._index(written.pack)
        for place, start, blake3_hex in zip(places, layout.starts, written.digests, strict=True):
            chunks[place] = _chunk(slots[place], index, start, blake3_hex)

    def _index(self, pack: Pack) -> int:
        """Return a pack's place in the head."""
        index = self._indices.setdefault((pack.save_id, pack.number), len(self.listed))
        if index == len(self.listed):
            self.listed.append(pack)
        return index


def _apart(
    slots: Sequence[Slot], places: Sequence[int], is_same: Sequence[bool]
) -> list[list[int]]:
    """Keep what changes apart from what has not changed and can't be shared where it lies.

    In a pack of its own the latter can be shared from the next save on.
    """
    settled = [place for place in places if is_same[place]]
    if sum(slots[place].length for place in settled) < OWN_PACK_BYTES:
        return [list(places)] if places else []
    changing = [place for place in places if not is_same[place]]
    return [group for group in (changing, settled) if group]


def _line(name: str, part: Part) -> bytes:
    line = encode_part(part)
    if len(line) > MAX_LINE_BYTES:
        raise UnsupportedValueError(
            name,
            f"{len(line)} bytes of plain values",
            f"a part's values other than tensors may take {MAX_LINE_BYTES} bytes: keep large data "
            "in tensors or NumPy arrays",
        )
    return line


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
    digests: Sequence[str | None],
    hasher: Hasher,
    meter: Meter,
) -> _Written:
    """Write a pack; *digests* are those that are known already."""
    found = [known or "" for known in digests]
    plain = [index for index in layout.order if is_plain(tensors[index]) and not found[index]]
    ahead = hasher.digests_ahead([view_bytes(tensors[index]) for index in plain])
    begun = time.perf_counter()
    with storage.open_writer(pack_key(save_id, number)) as writer:
        opened_s = time.perf_counter() - begun
        out = _Gathered(writer, meter)
        out.write(memoryview(layout.header))
        for index in layout.order:
            if is_plain(tensors[index]):
                out.write(view_bytes(tensors[index]))
                found[index] = found[index] or next(ahead)
            else:
                found[index] = _write_staged(out, tensors[index], hasher)
        out.flush()
        ended = time.perf_counter()
    # It became durable between these two.
    meter.add(0, opened_s + time.perf_counter() - ended)
    header_digest = digest(layout.header)
    return _Written(
        Pack(save_id, number, layout.size_bytes, len(layout.header), header_digest), found
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

    def __init__(self, writer: Writer, meter: Meter) -> None:
        self._writer = writer
        self._meter = meter
        self._small = bytearray()

    def write(self, view: memoryview) -> None:
        if view.nbytes < GATHER_BYTES:
            self._small += view
            if len(self._small) >= GATHER_BYTES:
                self.flush()
        else:
            self.flush()
            self._pass_on(view)

    def flush(self) -> None:
        if self._small:
            self._pass_on(memoryview(self._small))
            self._small = bytearray()

    def _pass_on(self, view: memoryview) -> None:
        with self._meter.timing(view.nbytes):
            self._writer.write(view)


def _slot(name: str, tensor: torch.Tensor) -> Slot:
    size = tensor.dtype.itemsize
    return Slot(name, dtype_name(tensor.dtype), tuple(tensor.shape), size, tensor.numel() * size)


def _chunk(slot: Slot, pack: int, start: int, blake3_hex: str) -> Chunk:
    return Chunk((0,) * len(slot.shape), slot.shape, pack, start, slot.length, blake3_hex)


def _describe(tensor: torch.Tensor, slot: Slot, chunk: Chunk, was: str | None) -> Tensor:
    order = stride_order(tensor)
    grad = tensor.requires_grad
    return Tensor(slot.dtype, slot.itemsize, slot.shape, order, grad, (chunk,), was)
