"""Manifests that a careless or hostile writer could make, with every digest valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ckptstore.format.digest import digest
from ckptstore.format.layout import pack_key, version_key
from ckptstore.format.manifest import Head, decode_head

Change = Callable[[dict[str, Any], dict[str, Any]], None]
"""Changes a head and its parts' lines (by name), both as parsed JSON, in place."""


def manifest_of(folder: str | Path, run: str, version: int = 1) -> Path:
    return Path(folder) / version_key(run, version)


def head_of(folder: str | Path, run: str, version: int = 1) -> Head:
    line = manifest_of(folder, run, version).read_bytes().split(b"\n")[0]
    return decode_head(line, "a test")


def packs_of(folder: str | Path, run: str, version: int = 1) -> list[Path]:
    head = head_of(folder, run, version)
    return [Path(folder) / pack_key(pack.save_id, pack.number) for pack in head.packs]


def forge(folder: str | Path, run: str, change: Change, version: int = 1) -> None:
    """Rewrite a manifest so that it says something else and every digest in it holds."""
    path = manifest_of(folder, run, version)
    first, _, *rest = path.read_bytes().split(b"\n")
    head = json.loads(first)
    parts = {
        info["name"]: json.loads(line) for info, line in zip(head["parts"], rest[:-1], strict=True)
    }
    change(head, parts)
    lines = {name: _line(value) for name, value in parts.items()}
    write(path, head, lines)


def forge_line(folder: str | Path, run: str, part: str, line: bytes, version: int = 1) -> None:
    """Put other bytes in the place of a part's line; every digest in the manifest holds."""
    path = manifest_of(folder, run, version)
    first, _, *rest = path.read_bytes().split(b"\n")
    head = json.loads(first)
    lines = {info["name"]: old for info, old in zip(head["parts"], rest[:-1], strict=True)}
    write(path, head, lines | {part: line})


def write(path: Path, head: dict[str, Any], lines: dict[str, bytes]) -> None:
    """Write a manifest whose head describes these lines."""
    for info in head["parts"]:
        info["length"], info["blake3"] = len(lines[info["name"]]), digest(lines[info["name"]])
    first = _line(head)
    ordered = [lines[info["name"]] for info in head["parts"]]
    path.write_bytes(b"".join(x + b"\n" for x in (first, _line(digest(first)), *ordered)))


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
