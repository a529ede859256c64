"""The manifest: lines of JSON whose creation commits a version.

Line 1 is the head, line 2 the BLAKE3 of line 1's bytes as a JSON string, then one line a part in
the head's order. Indexing and collection read the head alone. Every line ends in a line feed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from ckptstore.errors import IntegrityError, InvalidNameError
from ckptstore.format.digest import MAX_LINE_BYTES, digest, dump_line, parse_line
from ckptstore.format.fields import FORMAT, Fields, format_time
from ckptstore.format.imported import ImportedFrom, decode_imported, imported_json
from ckptstore.format.layout import check_run
from ckptstore.format.timings import Timings, decode_timings, timings_json

KINDS = ("checkpoint", "package")
PART_KINDS = ("module", "state_dict", "optimizer", "object", "generator", "rng", "tree")


@dataclass(frozen=True)
class Pack:
    """A pack as the head names it."""

    save_id: UUID
    number: int
    size_bytes: int
    header_bytes: int
    """How many bytes precede the data."""
    header_digest: str


@dataclass(frozen=True)
class File:
    """An opaque file (a program, an export) as the head names it."""

    save_id: UUID
    number: int
    size_bytes: int
    digest: str
    role: str | None = None
    """What it is to its version, e.g. ``program``; never a path. No two of a version are the same
    to the same part."""
    part: str | None = None
    """The part that it belongs to, None where it belongs to none."""

    def described(self) -> dict[str, Any]:
        """Return what people want to know of it, as plain JSON."""
        return {"role": self.role, "part": self.part, "size_bytes": self.size_bytes}


@dataclass(frozen=True)
class PartInfo:
    """What the head says of a part."""

    name: str
    kind: str
    """One of :data:`PART_KINDS`."""
    size_bytes: int
    """Bytes of its tensors."""
    length: int
    """Bytes of its line in the manifest, without the line feed."""
    digest: str
    """BLAKE3 of its line, without the line feed."""
    class_name: str | None = None
    """Module and qualified name of the object's class, for people; never imported."""
    model_config: Any = None
    """Constructor arguments of a module as an encoded tree, or None where they are unknown."""


@dataclass(frozen=True)
class Parent:
    """The version that this one came from."""

    run: str
    version: int
    save_id: UUID


@dataclass(frozen=True)
class CopiedFrom:
    """The version of another store that this one is a copy of."""

    store_id: UUID
    """The other store's."""
    version: Parent
    """As it is named there."""
    origin: UUID
    """The save id of the version that all copies go back to: by it copies are known again, however
    often they were copied."""
    copied_at: datetime
    parent: Parent | None = None
    """The parent that the version has there, as it is named there."""


@dataclass(frozen=True)
class Head:
    """Line 1 of a manifest: all that is known of a version except its trees and tensors."""

    save_id: UUID
    run: str
    """As spelled by the run's first save."""
    version: int
    kind: str
    """``checkpoint`` or ``package``."""
    started_at: datetime
    created_at: datetime
    parent: Parent | None = None
    epoch: int | None = None
    step: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Numbers, or encoded trees of what JSON has no number for (NaN, infinities, large ints)."""
    config: Any = None
    """The run's hyperparameters as an encoded tree."""
    package: Mapping[str, Any] | None = None
    """What only packages have: class names and the shape of one sample."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    packs: Sequence[Pack] = ()
    files: Sequence[File] = ()
    parts: Sequence[PartInfo] = ()
    copied_from: CopiedFrom | None = None
    """None where it was saved into this store itself."""
    imported_from: ImportedFrom | None = None
    """The file of another tool that it, or what it is a copy of, was brought in from."""
    left_out: Sequence[str] = ()
    """Parts that the training has and this version lacks, as there was no time to save them."""
    timings: Timings | None = None
    """What saving it cost; None where it was not measured."""

    @property
    def ref(self) -> str:
        """The version's ref, e.g. ``digits@7``."""
        return f"{self.run}@{self.version}"

    @property
    def size_bytes(self) -> int:
        """The bytes of its tensors and files."""
        return sum(part.size_bytes for part in self.parts) + sum(
            file.size_bytes for file in self.files
        )

    @property
    def origin(self) -> UUID:
        """The save id of what this is, or is a copy of; the same for all copies of a version."""
        return self.save_id if self.copied_from is None else self.copied_from.origin


def parent_of(head: Head) -> Parent:
    """Return a version as another one names it as its parent."""
    return Parent(head.run, head.version, head.save_id)


def encode_manifest(head: Head, part_lines: Sequence[bytes]) -> bytes:
    """Return a whole manifest. The head's parts must describe *part_lines*."""
    line = encode_head(head)
    return b"".join(line + b"\n" for line in (line, dump_line(digest(line)), *part_lines))


def encode_head(head: Head) -> bytes:
    """Return line 1, without the line feed."""
    return dump_line(
        {
            "format": FORMAT,
            "requires": [],
            "save": str(head.save_id),
            "run": head.run,
            "version": head.version,
            "kind": head.kind,
            "parent": _parent_json(head.parent),
            **_copied_json(head.copied_from),
            **imported_json(head.imported_from),
            "started_at": format_time(head.started_at),
            "created_at": format_time(head.created_at),
            "epoch": head.epoch,
            "step": head.step,
            "metrics": dict(head.metrics),
            "config": head.config,
            **({"package": dict(head.package)} if head.package is not None else {}),
            "environment": dict(head.environment),
            "packs": [
                {
                    "save": str(pack.save_id),
                    "number": pack.number,
                    "size_bytes": pack.size_bytes,
                    "header_bytes": pack.header_bytes,
                    "header_blake3": pack.header_digest,
                }
                for pack in head.packs
            ],
            "files": [
                {
                    "save": str(file.save_id),
                    "number": file.number,
                    "size_bytes": file.size_bytes,
                    "blake3": file.digest,
                    **({"role": file.role} if file.role is not None else {}),
                    **({"part": file.part} if file.part is not None else {}),
                }
                for file in head.files
            ],
            **({"left_out": list(head.left_out)} if head.left_out else {}),
            **timings_json(head.timings),
            "parts": [
                {
                    "name": part.name,
                    "kind": part.kind,
                    "class": part.class_name,
                    "model_config": part.model_config,
                    "size_bytes": part.size_bytes,
                    "length": part.length,
                    "blake3": part.digest,
                }
                for part in head.parts
            ],
        }
    )


def head_line(start: bytes, where: str) -> bytes | None:
    """Return line 1 out of a manifest's first bytes once its digest holds.

    Returns:
        The line without its line feed, or None where *start* does not reach the end of line 2.

    Raises:
        IntegrityError: Line 2 is not line 1's digest.
    """
    end = start.find(b"\n")
    if end > MAX_LINE_BYTES or (end < 0 and len(start) > MAX_LINE_BYTES):
        raise IntegrityError(f"{where}: its first line is longer than {MAX_LINE_BYTES} bytes")
    expected_end = end + 1 + 67
    if end < 0 or len(start) < expected_end:
        return None
    line = start[:end]
    if start[end + 1 : expected_end] != b'"' + digest(line).encode() + b'"\n':
        raise IntegrityError(
            f"{where}: the head's digest does not match; it was damaged or cut short"
        )
    return line


def decode_head(line: bytes, where: str) -> Head:
    """Read line 1. Its digest must have been checked.

    Raises:
        IntegrityError: It is not what format 1 says.
        NewerFormatError: A newer ckptstore made it.
    """
    fields = Fields(parse_line(line, where), where)
    fields.check_format()
    kind = fields.text("kind")
    if kind not in KINDS:
        raise fields.bad("kind", "'checkpoint' or 'package'")
    try:
        run = check_run(fields.text("run"))
    except InvalidNameError as error:
        raise IntegrityError(f"{where}: {error}") from error
    parts = tuple(_decode_part_info(item, where) for item in fields.items("parts"))
    if len({part.name for part in parts}) != len(parts):
        raise fields.bad("parts", "parts of different names")
    files = tuple(_decode_file(item, where) for item in fields.items("files"))
    roles = [(file.role, file.part) for file in files if file.role is not None]
    if len(set(roles)) != len(roles):
        raise fields.bad("files", "files of which no two have one role for one part")
    return Head(
        save_id=fields.uuid("save"),
        run=run,
        version=fields.number("version", least=1),
        kind=kind,
        started_at=fields.time("started_at"),
        created_at=fields.time("created_at"),
        parent=_decode_parent(fields),
        epoch=fields.number_or_none("epoch", least=-(2**62)),
        step=fields.number_or_none("step", least=-(2**62)),
        metrics=fields.mapping("metrics"),
        config=fields.get("config"),
        package=fields.mapping("package") if fields.get("package") is not None else None,
        environment=fields.mapping("environment"),
        packs=tuple(_decode_pack(item, where) for item in fields.items("packs")),
        files=files,
        parts=parts,
        copied_from=_decode_copied(fields),
        imported_from=decode_imported(fields),
        left_out=_decode_left_out(fields, {part.name for part in parts}),
        timings=decode_timings(fields),
    )


def part_span(head: Head, head_length: int, name: str) -> tuple[PartInfo, int]:
    """Return a part's description and where its line starts in the manifest.

    Args:
        head: The decoded head.
        head_length: Bytes of line 1 without its line feed.
        name: The part's name; it must be among the head's.
    """
    start = head_length + 1 + 67
    for info in head.parts:
        if info.name == name:
            return info, start
        start += info.length + 1
    raise KeyError(name)


def _decode_pack(item: object, where: str) -> Pack:
    fields = Fields(item, f"{where}, a pack")
    pack = Pack(
        fields.uuid("save"),
        fields.number("number"),
        fields.number("size_bytes"),
        fields.number("header_bytes", least=8),
        fields.digest("header_blake3"),
    )
    if pack.header_bytes > min(pack.size_bytes, 100_000_008):
        # safetensors itself reads no header of more than 100 MB.
        raise fields.bad("header_bytes", "at most the pack's size and 100 MB")
    return pack


def _decode_file(item: object, where: str) -> File:
    fields = Fields(item, f"{where}, a file")
    return File(
        fields.uuid("save"),
        fields.number("number"),
        fields.number("size_bytes"),
        fields.digest("blake3"),
        fields.text_or_none("role"),
        fields.text_or_none("part"),
    )


def _decode_part_info(item: object, where: str) -> PartInfo:
    fields = Fields(item, f"{where}, a part")
    kind = fields.text("kind")
    if kind not in PART_KINDS:
        raise fields.bad("kind", f"one of {', '.join(PART_KINDS)}")
    length = fields.number("length", least=1)
    if length > MAX_LINE_BYTES:
        raise fields.bad("length", f"at most {MAX_LINE_BYTES}")
    return PartInfo(
        name=fields.text("name"),
        kind=kind,
        size_bytes=fields.number("size_bytes"),
        length=length,
        digest=fields.digest("blake3"),
        class_name=fields.text_or_none("class"),
        model_config=fields.get("model_config"),
    )


def _decode_left_out(fields: Fields, parts: Collection[str]) -> tuple[str, ...]:
    if fields.get("left_out") is None:
        return ()
    names = fields.items("left_out")
    is_text = all(isinstance(name, str) for name in names)
    if not is_text or len(set(names)) != len(names) or not set(names).isdisjoint(parts):
        raise fields.bad("left_out", "different names of parts that are not there")
    return tuple(names)


def _parent_json(parent: Parent | None) -> dict[str, Any] | None:
    if parent is None:
        return None
    return {"run": parent.run, "version": parent.version, "save": str(parent.save_id)}


def _copied_json(copied: CopiedFrom | None) -> dict[str, Any]:
    if copied is None:
        return {}
    value = {
        "store": str(copied.store_id),
        **(_parent_json(copied.version) or {}),
        "origin": str(copied.origin),
        "copied_at": format_time(copied.copied_at),
        "parent": _parent_json(copied.parent),
    }
    return {"copied_from": value}


def _decode_parent(fields: Fields) -> Parent | None:
    return None if fields.get("parent") is None else _decode_named(fields.fields("parent"))


def _decode_copied(fields: Fields) -> CopiedFrom | None:
    if fields.get("copied_from") is None:
        return None
    copied = fields.fields("copied_from")
    return CopiedFrom(
        copied.uuid("store"),
        _decode_named(copied),
        copied.uuid("origin"),
        copied.time("copied_at"),
        _decode_parent(copied),
    )


def _decode_named(fields: Fields) -> Parent:
    try:
        run = check_run(fields.text("run"))
    except InvalidNameError as error:
        raise IntegrityError(f"{fields.where}: {error}") from error
    return Parent(run, fields.number("version", least=1), fields.uuid("save"))
