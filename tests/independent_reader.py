"""A reader of format 1 after ``docs/format.md``: without ckptstore, torch or NumPy."""

from __future__ import annotations

import base64
import itertools
import json
import math
import struct
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3
from safetensors import deserialize


class Tensor(NamedTuple):
    dtype: str
    shape: list[int]
    order: list[int] | None
    requires_grad: bool
    data: bytes  # row-major


def sealed(file: Path) -> dict[str, Any]:
    """``ckptstore.json``, or an entry of a journal."""
    body, _, tail = file.read_bytes().rpartition(b',"blake3":"')
    assert tail == blake3(body).hexdigest().encode() + b'"}\n', file
    return json.loads(body + b"}")


def version(store: Path, run: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A version's head, and the state of each of its parts."""
    manifest = store / "runs" / run.lower() / "_versions" / f"{number:08d}.jsonl"
    line, digest, *part_lines = manifest.read_bytes().split(b"\n")[:-1]
    assert json.loads(digest) == blake3(line).hexdigest(), manifest
    head = json.loads(line)
    assert (head["format"], head["requires"]) == (1, [])
    packs, states = [pack(store, named) for named in head["packs"]], {}
    for info, part_line in zip(head["parts"], part_lines, strict=True):
        assert info["blake3"] == blake3(part_line).hexdigest(), info["name"]
        part = json.loads(part_line)
        tensors = [tensor(described, packs) for described in part["tensors"]]
        states[info["name"]] = value(part["tree"], tensors)
    return head, states


def pack(store: Path, named: dict[str, Any]) -> bytes:
    folder = uuid.UUID(named["save"]).hex[-2:]
    name = f"{named['save']}-{named['number']}.safetensors"
    data = (store / "packs" / folder / name).read_bytes()
    assert blake3(data[: named["header_bytes"]]).hexdigest() == named["header_blake3"], name
    deserialize(data)  # raises unless it is a plain safetensors file
    return data


def tensor(described: dict[str, Any], packs: list[bytes]) -> Tensor:
    shape, size = described["shape"], described["itemsize"]
    whole = bytearray(size * math.prod(shape))
    for chunk in described["chunks"]:
        data = packs[chunk["pack"]][chunk["start"] : chunk["start"] + chunk["length"]]
        assert blake3(data).hexdigest() == chunk["blake3"]
        offsets = chunk.get("offsets", [0] * len(shape))
        for index, at in enumerate(itertools.product(*map(range, chunk.get("shape", shape)))):
            place = 0
            for length, offset, step in zip(shape, offsets, at, strict=True):
                place = place * length + offset + step
            whole[place * size : (place + 1) * size] = data[index * size : (index + 1) * size]
    grad = described.get("requires_grad", False)
    return Tensor(described["dtype"], shape, described.get("order"), grad, bytes(whole))


def value(tree: Any, tensors: list[Tensor]) -> Any:
    """What a tree stands for; what Python alone has no type for stays a node."""
    if isinstance(tree, list):
        return [value(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    node = {key: value(item, tensors) for key, item in tree.items()}
    name = next(iter(node), "")
    if name in ("$tensor", "$array"):
        node[name] = tensors[node[name]]
    return BUILD[name](node[name], node) if name in BUILD else node


def ordered(pairs: list[Any], node: dict[str, Any]) -> OrderedDict[Any, Any]:
    made = OrderedDict(pairs)
    if "_metadata" in node:
        made._metadata = node["_metadata"]  # type: ignore[attr-defined]
    return made


FACTORIES = {kind.__name__: kind for kind in (bool, bytes, dict, float, int, list, set, str, tuple)}
BUILD: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "$int": lambda text, _: int(text, 0),
    "$float": lambda text, _: (
        float(text) if len(text) < 5 else struct.unpack(">d", bytes.fromhex(text))[0]
    ),
    "$complex": lambda parts, _: complex(*parts),
    "$bytes": lambda text, _: base64.b64decode(text),
    "$bytearray": lambda text, _: bytearray(base64.b64decode(text)),
    "$tuple": lambda items, _: tuple(items),
    "$set": lambda items, _: set(items),
    "$frozenset": lambda items, _: frozenset(items),
    "$deque": lambda items, node: deque(items, node["maxlen"]),
    "$dict": lambda pairs, _: dict(pairs),
    "$Counter": lambda pairs, _: Counter(dict(pairs)),
    "$defaultdict": lambda pairs, node: defaultdict(FACTORIES.get(node["factory"]), pairs),
    "$OrderedDict": ordered,
}
