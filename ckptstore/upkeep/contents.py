"""Every byte of the data that versions name, read once and compared with the digests.

A pack that many versions share is checked when the last of them is known, so that its bytes are
read once. What is wanted of it is kept until then; of its bytes, never more than a piece.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from ckptstore.errors import CkptStoreError, IntegrityError, StorageError
from ckptstore.format.layout import file_key, pack_key, version_key
from ckptstore.format.manifest import File, Head, Pack
from ckptstore.format.part import Part
from ckptstore.format.untree import decode
from ckptstore.manifest import FIRST_READ_BYTES, OpenManifest, open_manifest, path_of
from ckptstore.storage.base import Storage
from ckptstore.upkeep.findings import Finding, Kind
from ckptstore.upkeep.progress import Progress
from ckptstore.upkeep.survey import OF_ONE_FILE, Surveyed

PIECE_BYTES = 4 * 1024 * 1024
DIGEST_LINE = 66
"""A digest in quotes."""


class Stretch(NamedTuple):
    """Bytes of a pack that a tensor is made of."""

    start: int
    length: int
    digest: str

    @property
    def stop(self) -> int:
        """Where the bytes after it begin."""
        return self.start + self.length


class User(NamedTuple):
    """A tensor that a stretch belongs to."""

    version: Surveyed
    part: str
    place: int


Wanted = dict[Stretch, list[User]]


@dataclass
class Counts:
    """What was looked at."""

    packs: int = 0
    bytes_read: int = 0


@dataclass
class Damages:
    """What is wrong with the data of each version."""

    found: dict[tuple[str, int], list[Finding]] = field(default_factory=dict)
    """By the run's path and the version's number."""
    gone: set[tuple[str, int]] = field(default_factory=set)
    """Versions some of whose packs or files are not there at all."""

    def add(self, version: Surveyed, finding: Finding) -> None:
        """Take note of damage."""
        self.found.setdefault((version.path, version.number), []).append(finding)


class Contents:
    """Checks what versions name.

    Args:
        storage: Where it is.
        sizes: The sizes of all packs and files by key; None to ask for each that is named.
        deep: Compare every byte with its digest; else sizes and headers alone.
        progress: Told of every piece that was read.
    """

    def __init__(
        self,
        storage: Storage,
        sizes: Mapping[str, int] | None,
        *,
        deep: bool,
        progress: Progress | None,
    ) -> None:
        self.counts = Counts()
        self.damages = Damages()
        self.notes: list[Finding] = []
        """What is worth knowing and does not hurt."""
        self._storage = storage
        self._sizes = sizes
        self._deep = deep
        self._progress = progress
        self._total_bytes = 0
        self._users: dict[Pack | File, list[Surveyed]] = {}
        self._waiting: Counter[Pack] = Counter()
        self._wanted: dict[Pack, Wanted] = {}
        self._buffer = bytearray()

    def check(
        self, versions: Sequence[Surveyed], manifests: Iterable[tuple[Surveyed, OpenManifest]]
    ) -> None:
        """Check the parts' lines of all *manifests*, and all packs and files of *versions*.

        Raises:
            StorageError: The storage failed, and not just where one file lies.
        """
        for version in versions:
            names: set[Pack | File] = {*version.packs, *version.files}
            for named in names:
                self._users.setdefault(named, []).append(version)
        for named in self._users:
            head = named.header_bytes if isinstance(named, Pack) else 0
            self._total_bytes += named.size_bytes if self._deep else head
        self._waiting = Counter(
            {pack: len(users) for pack, users in self._users.items() if isinstance(pack, Pack)}
        )
        for version, opened in manifests:
            self._check_parts(version, opened)
            self._done_with(version)
        # What is left belongs to manifests that went away meanwhile: whatever it is, check it.
        for pack in [pack for pack, left in self._waiting.items() if left > 0]:
            self._check_pack(pack)
        for file in [named for named in self._users if isinstance(named, File)]:
            self._check_file(file)

    # ------------------------------------------------------------ parts

    def _check_parts(self, version: Surveyed, opened: OpenManifest) -> None:
        damaged = False
        for info in opened.head.parts:
            self._tell(f"{version.ref}, part {info.name!r}")
            try:
                part = opened.part(info.name)
                _check_tree(part, info.name, opened)
            except (IntegrityError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in OF_ONE_FILE:
                    raise
                self._blame("manifest", version, opened.key, str(error))
                damaged = True
                continue
            if self._deep:
                self._want(version, opened.head, info.name, part)

        if not damaged:
            self._check_end(version, opened)

    def _check_end(self, version: Surveyed, opened: OpenManifest) -> None:
        """See that a manifest ends where its last part does."""
        found = len(opened.start)
        if found >= FIRST_READ_BYTES:
            found = self._storage.size_bytes(opened.key)
        lines = [opened.head_length, DIGEST_LINE, *(info.length for info in opened.head.parts)]
        expected = sum(lines) + len(lines)
        if found != expected:
            message = (
                f"{opened.where} should have {expected} bytes, and has {found}; all that the "
                "version consists of is there"
            )
            self.notes.append(Finding("manifest", "note", version.ref, opened.key, message))

    def _want(self, version: Surveyed, head: Head, name: str, part: Part) -> None:
        for place, tensor in enumerate(part.tensors):
            for chunk in tensor.chunks:
                stretch = Stretch(chunk.start, chunk.length, chunk.digest)
                wanted = self._wanted.setdefault(head.packs[chunk.pack], {})
                wanted.setdefault(stretch, []).append(User(version, name, place))

    def _done_with(self, version: Surveyed) -> None:
        for pack in set(version.packs):
            self._waiting[pack] -= 1
            if not self._waiting[pack]:
                self._check_pack(pack)

    # ------------------------------------------------------------ packs and files

    def _check_pack(self, pack: Pack) -> None:
        self.counts.packs += 1
        wanted = self._wanted.pop(pack, {})
        key, users = pack_key(pack.save_id, pack.number), self._users[pack]
        if not self._has_size("pack", key, pack.size_bytes, users):
            return
        header = blake3()
        try:
            for piece in self._pieces(key, 0, pack.header_bytes):
                header.update(piece)
        except (EOFError, OSError) as error:
            self._unread("pack", key, users, error)
            return
        if header.hexdigest() != pack.header_digest:
            self._blame_all("pack", users, key, f"{key} does not begin as it was saved")
            return
        damaged: dict[tuple[str, int], list[tuple[User, Stretch, str]]] = {}
        for stretch, damage in self._damaged(key, wanted):
            for user in wanted[stretch]:
                of_version = damaged.setdefault((user.version.path, user.version.number), [])
                of_version.append((user, stretch, damage))
        for each in damaged.values():
            self._blame_tensors(key, each)

    def _damaged(self, key: str, wanted: Wanted) -> Iterator[tuple[Stretch, str]]:
        """Yield the stretches of a pack that are not what was saved; reads each byte once."""
        ahead = deque(sorted(wanted))
        under_way: list[tuple[Stretch, blake3]] = []
        at = 0
        while ahead or under_way:
            at = at if under_way else ahead[0].start
            while ahead and ahead[0].start < at + PIECE_BYTES:
                under_way.append((ahead.popleft(), blake3()))
            end = min(at + PIECE_BYTES, max(stretch.stop for stretch, _ in under_way))
            try:
                piece = self._read(key, at, end - at)
            except (EOFError, OSError) as error:
                # Whatever lies behind a bad sector may be whole.
                yield from ((stretch, _about_one_file(error)) for stretch, _ in under_way)
                under_way, at = [], end
                continue
            for stretch, hasher in under_way:
                hasher.update(piece[max(0, stretch.start - at) : max(0, stretch.stop - at)])
                if stretch.stop <= end and hasher.hexdigest() != stretch.digest:
                    yield stretch, "does not hold the bytes that were saved"
            under_way, at = [each for each in under_way if each[0].stop > end], end

    def _check_file(self, file: File) -> None:
        self.counts.packs += 1
        key, users = file_key(file.save_id, file.number), self._users[file]
        if not self._has_size("file", key, file.size_bytes, users) or not self._deep:
            return
        hasher = blake3()
        try:
            for piece in self._pieces(key, 0, file.size_bytes):
                hasher.update(piece)
        except (EOFError, OSError) as error:
            self._unread("file", key, users, error)
            return
        if hasher.hexdigest() != file.digest:
            message = f"{key} does not hold the bytes that were saved"
            self._blame_all("file", users, key, message)

    def _has_size(self, kind: Kind, key: str, expected: int, users: Sequence[Surveyed]) -> bool:
        found = None if self._sizes is None else self._sizes.get(key)
        if found is None:
            # A listing may lack what is there: what is named is asked for by its name.
            try:
                found = self._storage.size_bytes(key)
            except FileNotFoundError:
                pass
            except StorageError as error:
                self._unread(kind, key, users, error)
                return False
        if found is None:
            self.damages.gone.update((user.path, user.number) for user in users)
            self._blame_all(kind, users, key, f"{kind} {key} is gone")
        elif found != expected:
            message = f"{kind} {key} should have {expected} bytes, and has {found}"
            self._blame_all(kind, users, key, message)
        return found == expected

    def _pieces(self, key: str, start: int, stop: int) -> Iterator[memoryview]:
        for at in range(start, stop, PIECE_BYTES):
            yield self._read(key, at, min(PIECE_BYTES, stop - at))

    def _read(self, key: str, start: int, length: int) -> memoryview:
        """Return bytes of an object; they are valid until the next are asked for."""
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        piece = memoryview(self._buffer)[:length]
        if length:
            self._storage.read_into(key, start, piece)
            self.counts.bytes_read += length
            self._tell(key)
        return piece

    # ------------------------------------------------------------ saying so

    def _blame_tensors(self, key: str, damaged: Sequence[tuple[User, Stretch, str]]) -> None:
        """Say of one version which of its tensors in a pack are damaged."""
        user, stretch, damage = damaged[0]
        more = f", and so are {len(damaged) - 1} more of it there" if len(damaged) > 1 else ""
        self._blame(
            "pack",
            user.version,
            key,
            f"tensor {self._tensor_name(user)!r} is damaged: {key} {damage}, bytes {stretch.start} "
            f"to {stretch.stop}{more}",
        )

    def _tensor_name(self, user: User) -> str:
        """Return where in its version a tensor is: its line is read again, as no tree is kept."""
        key = version_key(user.version.path, user.version.number)
        try:
            opened = open_manifest(self._storage, user.version.path, user.version.number)
            return path_of(opened.part(user.part).tree, user.place, user.part)
        except (CkptStoreError, FileNotFoundError):
            return f"{user.part}, tensor {user.place} of {key}"

    def _unread(
        self, kind: Kind, key: str, users: Sequence[Surveyed], error: EOFError | OSError
    ) -> None:
        self._blame_all(kind, users, key, f"{kind} {key} {_about_one_file(error)}")

    def _blame_all(self, kind: Kind, users: Sequence[Surveyed], key: str, message: str) -> None:
        for version in users:
            self._blame(kind, version, key, message)

    def _blame(self, kind: Kind, version: Surveyed, key: str, message: str) -> None:
        self.damages.add(version, Finding(kind, "damage", version.ref, key, message))

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self.counts.bytes_read, self._total_bytes, what)


def _check_tree(part: Part, name: str, opened: OpenManifest) -> None:
    """See that a part's tree and its tensors' dtypes are what this ckptstore can build.

    Raises:
        IntegrityError: They are not.
    """
    import torch

    from ckptstore.state.tensors import dtype_of

    where = f"{opened.where}, part {name!r}"
    for place, tensor in enumerate(part.tensors):
        dtype_of(tensor.dtype, tensor.itemsize, f"{where}, tensor {place}")

    def stand_in(place: int) -> torch.Tensor:
        # An array's node says how many bytes it takes. Memory that nobody touches costs nothing.
        return torch.empty(part.tensors[place].size_bytes, dtype=torch.uint8)

    decode(part.tree, where, stand_in, whole=False)


def _about_one_file(error: EOFError | OSError) -> str:
    """Return what is wrong with a file where that is about this file alone.

    Raises:
        OSError: It is about more: no permission, no connection.
    """
    if isinstance(error, FileNotFoundError):
        return "is gone"
    if isinstance(error, OSError):
        if error.errno not in OF_ONE_FILE:
            raise error
        return f"can't be read: {error}"
    return "is cut short"
