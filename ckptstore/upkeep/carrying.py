"""A version's bytes out of one store into another, a few MiB at a time, each checked on its way.

What the other store has already is found by digest, from manifests alone, and named there by the
rule of any save. What is written keeps the names it has in the packs it comes from, and lies with
what it lay with: so later versions can share it as they do in the store that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

from blake3 import blake3

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import MAX_LINE_BYTES, digest
from ckptstore.format.layout import file_key, pack_key
from ckptstore.format.manifest import File, Head, Pack, PartInfo
from ckptstore.format.pack import MAX_HEADER_BYTES, MAX_PACK_BYTES, Slot, plan, split
from ckptstore.format.part import Chunk, Part, Tensor, encode_part
from ckptstore.manifest import OpenManifest, path_of
from ckptstore.saving.background import Hasher
from ckptstore.saving.basis import Basis
from ckptstore.saving.files import shared_file
from ckptstore.saving.reuse import Known, share
from ckptstore.storage.base import Storage, Writer
from ckptstore.upkeep.version_bytes import VersionBytes

PIECE_BYTES = 4 * 1024 * 1024
"""How much is in memory at once. Small tensors that lie close together are read as one piece."""
GAP_BYTES = 64 * 1024
"""A gap between two wanted tensors that is cheaper to read than to ask around."""
NOTHING = digest(b"")


class Stretch(NamedTuple):
    """Bytes of a pack of the version that is copied."""

    pack: int
    """The pack's place in the head."""
    start: int
    length: int
    digest: str

    @property
    def stop(self) -> int:
        """Where the bytes after it begin."""
        return self.start + self.length


@dataclass
class Want:
    """A stretch that is to be in the other store, and whose it is."""

    stretch: Stretch
    pack: Pack
    """The pack that it lies in."""
    part: str
    tensor: str
    """Where in the version the tensor is, for messages."""
    slot: Slot
    known: Known
    """What the other store has of it."""


@dataclass(frozen=True)
class Carried:
    """A version's data, once durable in the other store."""

    packs: list[Pack]
    files: list[File]
    infos: list[PartInfo]
    lines: list[bytes]
    """Each part's line of the manifest."""
    parts: list[Part]
    written_bytes: int
    """Of packs and files, as they lie in the storage."""
    shared_bytes: int
    """Of tensors and files that were there already."""


@dataclass
class _Places:
    """Where each stretch lies in the other store."""

    packs: list[Pack] = field(default_factory=list)
    found: dict[Stretch, tuple[int, int]] = field(default_factory=dict)
    """The pack's place among these, and the start in it."""

    def put(self, stretch: Stretch, pack: Pack, start: int) -> None:
        if pack not in self.packs:
            self.packs.append(pack)
        self.found[stretch] = (self.packs.index(pack), start)


def carry(
    opened: OpenManifest,
    target: Storage,
    save_id: UUID,
    bases: Sequence[Basis] = (),
    *,
    told: Callable[[int], object] = lambda _: None,
    max_pack_bytes: int = MAX_PACK_BYTES,
) -> Carried:
    """Write the data of a version into another store, but for what is there already.

    Memory is that of the version's plain values and a few MiB.

    Args:
        opened: The version.
        target: The other store's storage.
        save_id: Names the packs and files there.
        bases: Versions there whose packs may be named instead of writing the same bytes again.
        told: Told of every so many bytes that are settled.
        max_pack_bytes: Where a pack is split.

    Raises:
        IntegrityError: Some bytes are not those that were saved, or are gone; no version names what
            was written.
        StorageError: One of the storages failed.
    """
    head = opened.head
    parts = [opened.part(info.name) for info in head.parts]
    source = VersionBytes(opened)
    wants = _wants(source, head, parts)
    look_up(wants.values(), bases)
    share(target, [want.known for want in wants.values()])
    places = _Places()
    shared = 0
    for want in wants.values():
        if want.known.place is not None:
            places.put(want.stretch, want.known.place.pack, want.known.place.start)
            shared += want.stretch.length
            told(want.stretch.length)
    written = 0
    with Hasher() as hasher:
        through = _Through(source, target, hasher, told)
        for number, some in enumerate(_packs(wants, places, max_pack_bytes)):
            pack = through.write_pack(some, save_id, number, places)
            written += pack.size_bytes
        files = []
        for number, file in enumerate(head.files):
            known = shared_file(target, bases, file.digest, file.size_bytes)
            if known is None:
                files.append(through.write_file(file, save_id, number))
                written += file.size_bytes
            else:
                files.append(replace(known, role=file.role, part=file.part))
                shared += file.size_bytes
                told(file.size_bytes)
    moved = [_moved(part, places) for part in parts]
    lines = [_line(opened, info, part) for info, part in zip(head.parts, moved, strict=True)]
    infos = [
        replace(info, length=len(line), digest=digest(line))
        for info, line in zip(head.parts, lines, strict=True)
    ]
    return Carried(places.packs, files, infos, lines, moved, written, shared)


def _wants(source: VersionBytes, head: Head, parts: Sequence[Part]) -> dict[Stretch, Want]:
    wants: dict[Stretch, Want] = {}
    for info, part in zip(head.parts, parts, strict=True):
        for place, tensor in enumerate(part.tensors):
            for chunk in tensor.chunks:
                stretch = _stretch(chunk)
                if stretch in wants:
                    continue
                where = path_of(part.tree, place, info.name) if chunk.length else info.name
                if not chunk.length and chunk.digest != NOTHING:
                    raise source.damaged(head.packs[chunk.pack], where, "has another digest")
                name = source.name(*stretch[:3]) or str(place)
                slot = Slot(name, tensor.dtype, chunk.shape, tensor.itemsize, chunk.length)
                known = Known(chunk.length, chunk.digest)
                pack = head.packs[chunk.pack]
                wants[stretch] = Want(stretch, pack, info.name, where, slot, known)
    return wants


def look_up(wants: Iterable[Want], bases: Sequence[Basis]) -> None:
    """Take note of where the other store has the bytes of each stretch."""
    for want in wants:
        found = (basis.places.get(want.stretch.digest) for basis in bases)
        want.known.places = [each for each in found if each and each.length == want.stretch.length]


def _packs(
    wants: dict[Stretch, Want], places: _Places, max_pack_bytes: int
) -> Iterator[list[Want]]:
    """Yield what is to be written, a pack at a time: one part's, and out of one pack."""
    groups: dict[tuple[str, int], list[Want]] = {}
    for want in wants.values():
        if want.stretch not in places.found:
            groups.setdefault((want.part, want.stretch.pack), []).append(want)
    # What has no bytes can lie anywhere: it gets no pack of its own where there is another.
    with_bytes = [group for group in groups.values() if any(want.stretch.length for want in group)]
    for group in with_bytes:
        for some in split([want.slot for want in group], max_pack_bytes):
            yield [group[index] for index in some]
    for group in groups.values():
        if any(want.stretch.length for want in group):
            continue
        if not places.packs:
            yield group
            continue
        for want in group:
            places.put(want.stretch, places.packs[0], places.packs[0].header_bytes)


class _Through:
    """Passes bytes on from one store to the other, each checked before its object is finished."""

    def __init__(
        self,
        source: VersionBytes,
        target: Storage,
        hasher: Hasher,
        told: Callable[[int], object],
    ) -> None:
        self._source = source
        self._target = target
        self._hasher = hasher
        self._told = told

    def write_pack(
        self, wants: Sequence[Want], save_id: UUID, number: int, places: _Places
    ) -> Pack:
        """Write a pack that holds these, and take note of where they lie in it."""
        layout = plan(_named_apart([want.slot for want in wants]))
        if len(layout.header) > MAX_HEADER_BYTES:
            raise IntegrityError(
                f"{wants[0].part!r} would need a pack whose header takes {len(layout.header)} "
                f"bytes; at most {MAX_HEADER_BYTES} can be read"
            )
        with self._target.open_writer(pack_key(save_id, number)) as writer:
            writer.write(memoryview(layout.header))
            for some in _pieces([wants[index] for index in layout.order]):
                self._pass_on(some, writer)
        size, header = layout.size_bytes, layout.header
        pack = Pack(save_id, number, size, len(header), digest(header))
        for want, start in zip(wants, layout.starts, strict=True):
            places.put(want.stretch, pack, start)
        return pack

    def write_file(self, file: File, save_id: UUID, number: int) -> File:
        """Write an opaque file."""
        key, what = file_key(file.save_id, file.number), "a file"
        with self._target.open_writer(file_key(save_id, number)) as writer:
            found = self._pass(key, 0, file.size_bytes, what, writer)
            if found != file.digest:
                raise self._source.damaged(file, what, "does not hold the bytes that were saved")
        return replace(file, save_id=save_id, number=number)

    def _pass_on(self, wants: Sequence[Want], writer: Writer) -> None:
        """Pass on what lies close together in one pack."""
        first, last = wants[0].stretch, wants[-1].stretch
        key = pack_key(wants[0].pack.save_id, wants[0].pack.number)
        if len(wants) == 1:
            found = self._pass(key, first.start, first.length, wants[0].tensor, writer)
            self._check(wants[0], found)
            return
        piece = self._source.read(key, first.start, last.stop - first.start, wants[0].tensor)
        for want in wants:
            begin, end = want.stretch.start - first.start, want.stretch.stop - first.start
            self._check(want, digest(piece[begin:end]))
        begin = at = 0
        for want in wants:
            if want.stretch.start - first.start != at:
                writer.write(piece[begin:at])
                begin = want.stretch.start - first.start
            at = want.stretch.stop - first.start
        writer.write(piece[begin:at])
        self._told(sum(want.stretch.length for want in wants))

    def _pass(self, key: str, start: int, length: int, what: str, writer: Writer) -> str:
        """Pass on any number of bytes and return their digest."""
        state = blake3()
        for at in range(start, start + length, PIECE_BYTES):
            piece = self._source.read(key, at, min(PIECE_BYTES, start + length - at), what)
            hashed = self._hasher.beside(state, piece)
            writer.write(piece)
            if hashed is not None:
                hashed.result()
            self._told(piece.nbytes)
        return state.hexdigest()

    def _check(self, want: Want, found: str) -> None:
        if found != want.stretch.digest:
            stretch = want.stretch
            how = f"does not hold the bytes that were saved, {stretch.start} to {stretch.stop}"
            raise self._source.damaged(want.pack, f"tensor {want.tensor!r}", how)


def _pieces(wants: Sequence[Want]) -> Iterator[list[Want]]:
    """Gather small tensors that follow one another closely in their pack; large ones come alone."""
    some: list[Want] = []
    for want in wants:
        if not want.stretch.length:
            continue
        if some and not (
            0 <= want.stretch.start - some[-1].stretch.stop <= GAP_BYTES
            and want.stretch.stop - some[0].stretch.start <= PIECE_BYTES
        ):
            yield some
            some = []
        some.append(want)
    if some:
        yield some


def _named_apart(slots: Sequence[Slot]) -> list[Slot]:
    """Return slots of which no two have one name, as a pack needs them."""
    named: list[Slot] = []
    taken = {slot.name for slot in slots}
    used: set[str] = set()
    for slot in slots:
        name, count = slot.name, 0
        while name in used or (count and name in taken) or name == "__metadata__":
            count += 1
            name = f"{slot.name}/{count}"
        used.add(name)
        named.append(slot._replace(name=name))
    return named


def _moved(part: Part, places: _Places) -> Part:
    """Return a part whose chunks lie where they lie in the other store."""

    def moved(chunk: Chunk) -> Chunk:
        pack, start = places.found[_stretch(chunk)]
        return replace(chunk, pack=pack, start=start)

    def tensor(each: Tensor) -> Tensor:
        return replace(each, chunks=tuple(map(moved, each.chunks)))

    return replace(part, tensors=tuple(map(tensor, part.tensors)))


def _stretch(chunk: Chunk) -> Stretch:
    return Stretch(chunk.pack, chunk.start, chunk.length, chunk.digest)


def _line(opened: OpenManifest, info: PartInfo, part: Part) -> bytes:
    line = encode_part(part)
    if len(line) > MAX_LINE_BYTES:
        raise IntegrityError(
            f"{opened.head.ref}: the line of part {info.name!r} would take {len(line)} bytes in "
            f"the other store; at most {MAX_LINE_BYTES} can be read",
            ref=opened.head.ref,
        )
    return line
