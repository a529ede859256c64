"""Input that is small and asks for much: how much memory reading it takes, beside its own size."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

from ckptstore.format.digest import digest
from ckptstore.format.journal import encode_entry
from ckptstore.format.store_facts import StoreFacts, encode_store
from tests.prove.parsers.hostile import ENTRIES, NODES, WRITER, Reader, refused, sealed

FACTOR = 60
"""Bytes of memory a byte of input: JSON's worst is ``[[],[],…]``, a list of 56 bytes for three."""
CONSTANT_BYTES = 512 * 2**10

COUNT = 10_000


def peak(reader: Reader, data: bytes) -> int:
    """Return the bytes that were in use at most while *data* was read, beyond those before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        refused(reader, data)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def allowed(data: bytes) -> int:
    """Return how much reading *data* may take."""
    return FACTOR * len(data) + CONSTANT_BYTES


def bodies() -> Iterator[tuple[str, str]]:
    """Yield what may stand where a value is expected: a name, and JSON of some kilobytes."""
    yield "10,000 nested lists", "[" * COUNT + "]" * COUNT
    yield "10,000 nested lists, never closed", "[" * COUNT
    yield "10,000 nested objects", '{"a":' * COUNT + "1" + "}" * COUNT
    yield "10,000 lists side by side", "[" + ",".join(["[]"] * COUNT) + "]"
    yield "a number of 100,000 digits", "1" * 10 * COUNT
    yield "a float of 100,000 digits", "1." + "1" * 10 * COUNT
    yield "an exponent without end", "1e" + "9" * COUNT
    yield "a string of 100,000 escapes", '"' + "\\u0041" * 10 * COUNT + '"'
    yield "a string of escaped quotes, never closed", '"' + '\\"' * 10 * COUNT
    yield "surrogates", '"' + "\\ud83d" * COUNT + '"'
    yield "10,000 keys", "{" + ",".join(f'"k{n}":0' for n in range(COUNT)) + "}"
    yield "10,000 equal keys", "{" + ",".join(['"k":0'] * COUNT) + "}"
    for node in NODES:
        yield f"a node {json.dumps(node)[:40]}", json.dumps(node)


def manifests() -> Iterator[tuple[str, bytes]]:
    """Yield manifests whose digests hold and whose fields ask for much."""
    for name, body in bodies():
        yield f"head: {name}", manifest('{"config":' + body + "}", [])
        line = '{"tree":' + body + ',"tensors":[]}'
        yield f"part: {name}", manifest(head(line), [line])
    for name, tensor in (
        ("a shape of 2**61", {"shape": [2**61]}),
        ("a shape that overflows", {"shape": [2**40] * 60}),
        ("1,000 dimensions", {"shape": [1] * 1000}),
        ("10,000 overlapping chunks", {"shape": [COUNT], "chunks": COUNT}),
    ):
        line = json.dumps({"tree": {"$tensor": 0}, "tensors": [_tensor(**tensor)]})
        yield f"tensor: {name}", manifest(head(line), [line])
    yield "no line feed", b"x" * 100_000
    yield "a length beyond any file", manifest(head("{}", length=2**26), ["{}"])


def sealed_objects() -> Iterator[tuple[str, bytes]]:
    """Yield journal entries and store facts of that kind."""
    wholes = [encode_entry(entry) for entry in ENTRIES] + [
        encode_store(StoreFacts(WRITER, 9, in_place=True))
    ]
    for whole in wholes:
        value = json.loads(whole)
        del value["blake3"]
        kind = value.get("kind", "store")
        for name, body in bodies():
            for key in value:
                text = json.dumps({**value, key: "@"})
                yield f"{kind}, {key}: {name}", sealed(text.replace('"@"', body))


def head(line: str, *, length: int | None = None) -> str:
    pack = {
        "save": str(WRITER),
        "number": 0,
        "size_bytes": 2**62,
        "header_bytes": 4096,
        "header_blake3": "0" * 64,
    }
    part = {
        "name": "model",
        "kind": "module",
        "size_bytes": 0,
        "length": len(line.encode()) if length is None else length,
        "blake3": digest(line.encode()),
    }
    return json.dumps(
        {
            "format": 1,
            "requires": [],
            "save": str(WRITER),
            "run": "digits",
            "version": 1,
            "kind": "checkpoint",
            "started_at": "2026-01-31T12:00:00.000000Z",
            "created_at": "2026-01-31T12:00:00.000000Z",
            "metrics": {},
            "environment": {},
            "packs": [pack],
            "files": [],
            "parts": [part],
        }
    )


def _tensor(*, shape: list[int], chunks: int = 0) -> dict[str, object]:
    chunk = {"pack": 0, "start": 4096, "length": 4, "offsets": [0], "shape": [1]}
    return {
        "dtype": "float32",
        "itemsize": 4,
        "shape": shape,
        "chunks": [{**chunk, "blake3": "0" * 64}] * chunks,
    }


def manifest(head: str, lines: list[str]) -> bytes:
    first = head.encode()
    parts = [line.encode() for line in lines]
    return b"".join(each + b"\n" for each in (first, f'"{digest(first)}"'.encode(), *parts))
