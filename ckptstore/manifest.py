"""A version's manifest, read and checked again at every load: head first, then one line a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ckptstore.errors import IntegrityError, VersionNotFoundError
from ckptstore.format.layout import run_path, version_key
from ckptstore.format.manifest import Head, decode_head, head_line, part_span
from ckptstore.format.part import Part, decode_part
from ckptstore.storage.base import Storage

# Enough for the head and a few parts of most versions in one request.
FIRST_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class OpenManifest:
    """A version whose head was read from the storage and holds."""

    storage: Storage
    key: str
    head: Head
    head_length: int
    start: bytes
    """The manifest's first bytes."""

    @property
    def where(self) -> str:
        """The manifest's address, for messages."""
        return f"{self.storage.url}/{self.key}"

    def part(self, name: str) -> Part:
        """Read one part's line.

        Raises:
            VersionNotFoundError: The version has no such part; the message lists those it has.
            IntegrityError: The line is not the one that was saved.
        """
        names = [info.name for info in self.head.parts]
        if name not in names:
            raise VersionNotFoundError(
                f"{self.head.ref} has no part {name!r}; it has "
                f"{', '.join(map(repr, names)) or 'none'}"
            )
        info, start = part_span(self.head, self.head_length, name)
        stop = start + info.length
        if stop <= len(self.start):
            return decode_part(self.start[start:stop], self.head, info, self.where)
        line = bytearray(info.length)
        try:
            self.storage.read_into(self.key, start, memoryview(line))
        except (EOFError, FileNotFoundError) as error:
            raise IntegrityError(
                f"{self.where} is gone or cut short in part {name!r}; load another version",
                ref=self.head.ref,
            ) from error
        return decode_part(bytes(line), self.head, info, self.where)


def open_manifest(
    storage: Storage, run: str, version: int, *, save_id: UUID | None = None
) -> OpenManifest:
    """Read the head of a version that is known to have been committed.

    Args:
        storage: Where it is.
        run: Its run.
        version: Its number.
        save_id: Its save id, where that is known: a store that was replaced meanwhile may have
            another version of that number.

    Raises:
        IntegrityError: It is gone or damaged, or is another version's.
        NewerFormatError: A newer ckptstore made it.
    """
    key = version_key(run_path(run), version)
    where, ref = f"{storage.url}/{key}", f"{run}@{version}"
    try:
        start, line = _read_head(storage, key, where)
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{ref}: its manifest {where} is gone; load another version", ref=ref
        ) from error
    except IntegrityError as error:
        raise IntegrityError(str(error), ref=ref) from error
    head = decode_head(line, where)
    if run_path(head.run) != run_path(run) or head.version != version:
        raise IntegrityError(f"{where} should be {ref}, and is the manifest of {head.ref}", ref=ref)
    if save_id is not None and head.save_id != save_id:
        raise IntegrityError(
            f"{where} should be of save {save_id}, and is of save {head.save_id}: the store was "
            f"replaced since {ref} was looked up; look it up again",
            ref=ref,
        )
    return OpenManifest(storage, key, head, len(line), start)


def _read_head(storage: Storage, key: str, where: str) -> tuple[bytes, bytes]:
    length = FIRST_READ_BYTES
    while True:
        start = storage.read_start(key, length)
        line = head_line(start, where)
        if line is not None:
            return start, line
        if len(start) < length:
            raise IntegrityError(f"{where} is cut short: its head has no digest line")
        length *= 16


def path_of(tree: object, place: int, root: str) -> str:
    """Return where in a tree the tensor at *place* sits, e.g. ``optimizer/state/0/exp_avg``."""
    pending: list[tuple[object, str]] = [(tree, root)]
    while pending:
        node, path = pending.pop()
        if isinstance(node, dict):
            if node.get("$tensor") == place or node.get("$array") == place:
                return path
            for name, item in node.items():
                if (
                    name.startswith("$")
                    and isinstance(item, list)
                    and name not in ("$tuple", "$deque")
                ):
                    pending += [
                        (pair[1], f"{path}/{_key(pair[0])}") for pair in item if _is_pair(pair)
                    ]
                elif name.startswith("$"):
                    pending.append((item, path))
                else:
                    pending.append((item, f"{path}/{name}"))
        elif isinstance(node, list):
            pending += [(item, f"{path}/{index}") for index, item in enumerate(node)]
    return f"{root}, tensor {place}"


def _is_pair(item: object) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2  # noqa: PLR2004 - key and value


def _key(node: object) -> object:
    return next(iter(node.values()), node) if isinstance(node, dict) else node
