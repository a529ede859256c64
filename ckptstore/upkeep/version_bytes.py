"""The bytes of one version's packs and files, as they are read to be copied."""

from __future__ import annotations

import errno

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import digest
from ckptstore.format.layout import file_key, pack_key
from ckptstore.format.manifest import File, Pack
from ckptstore.format.pack_header import names_in
from ckptstore.manifest import OpenManifest


class VersionBytes:
    """Reads the packs and files of one version; what is wrong with them is that version's damage.

    Args:
        opened: The version.
    """

    def __init__(self, opened: OpenManifest) -> None:
        self._storage = opened.storage
        self._head = opened.head
        self._names: dict[int, dict[tuple[int, int], list[str]]] = {}
        self._buffer = bytearray()

    def name(self, pack: int, start: int, length: int) -> str | None:
        """Return what a pack calls a stretch of its data, None if it has no name of its own there.

        Args:
            pack: The pack's place in the head.
            start: Bytes from the file's start.
            length: In bytes.

        Raises:
            IntegrityError: The pack is gone, or does not begin as it was saved.
            StorageError: The storage failed.
        """
        if pack not in self._names:
            self._names[pack] = self._read_names(self._head.packs[pack])
        names = self._names[pack].get((start, length))
        if not names:
            return None
        # Tensors without elements may lie at the same place, one name for each.
        return names.pop(0) if len(names) > 1 else names[0]

    def read(self, key: str, start: int, length: int, what: str) -> memoryview:
        """Return bytes of a pack or file; they hold until the next are asked for.

        Args:
            key: The object's.
            start: Bytes from its start.
            length: In bytes.
            what: Whose they are, for messages.

        Raises:
            IntegrityError: They are gone or can't be read.
            StorageError: The storage failed.
        """
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        piece = memoryview(self._buffer)[:length]
        try:
            if length:
                self._storage.read_into(key, start, piece)
        except EOFError as error:
            raise self._wrong(key, what, "is cut short") from error
        except FileNotFoundError as error:
            raise self._wrong(key, what, "is gone") from error
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise self._wrong(key, what, f"can't be read: {error}") from error
        return piece

    def damaged(self, named: Pack | File, what: str, how: str) -> IntegrityError:
        """Return the error that says what is wrong with a pack or file."""
        key = pack_key if isinstance(named, Pack) else file_key
        return self._wrong(key(named.save_id, named.number), what, how)

    def _wrong(self, key: str, what: str, how: str) -> IntegrityError:
        return IntegrityError(
            f"{self._head.ref}, {what}: {self._storage.url}/{key} {how}", ref=self._head.ref
        )

    def _read_names(self, pack: Pack) -> dict[tuple[int, int], list[str]]:
        key = pack_key(pack.save_id, pack.number)
        try:
            size = self._storage.size_bytes(key)
        except FileNotFoundError as error:
            raise self.damaged(pack, "a pack", "is gone") from error
        if size != pack.size_bytes:
            how = f"should have {pack.size_bytes} bytes, and has {size}"
            raise self.damaged(pack, "a pack", how)
        header = bytes(self.read(key, 0, pack.header_bytes, "a pack"))
        if digest(header) != pack.header_digest:
            raise self.damaged(pack, "a pack", "does not begin as it was saved")
        return names_in(header, pack.size_bytes, f"{self._head.ref}: {self._storage.url}/{key}")
