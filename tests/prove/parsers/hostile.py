"""Manifests, journal entries and store facts as a hostile writer makes them: every digest holds.

A flipped bit is caught by a digest before any parser sees it. These are not: what is changed is
sealed again, so that each field's own check has to hold.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from ckptstore.errors import IntegrityError, MissingPackageError, NewerFormatError
from ckptstore.format import untree
from ckptstore.format.digest import digest
from ckptstore.format.facts import Settings
from ckptstore.format.journal import (
    ChildEntry,
    DamageEntry,
    LogEntry,
    NoteEntry,
    RetireEntry,
    SettingsEntry,
    TagEntry,
    UndeleteEntry,
    decode_entry,
    encode_entry,
)
from ckptstore.format.manifest import decode_head, encode_head, head_line, part_span
from ckptstore.format.part import decode_part
from ckptstore.format.sealed import SEAL
from ckptstore.format.store_facts import StoreFacts, decode_store, encode_store
from tests.format.heads import NOON, versions

WHERE = "a test's file"
# Not every machine that runs this has torchao.
TYPED = (IntegrityError, NewerFormatError, MissingPackageError)
WRITER = UUID("01a20cb8-5e69-7452-884a-9ec81d929f23")
SIGNED = {"time": NOON, "writer": WRITER, "by": "me@here"}

ENTRIES = (
    SettingsEntry(Settings("val_loss", "min", {"lr": 0.1}, {"last": 3}), **SIGNED),
    TagEntry("prod", 3, **SIGNED),
    LogEntry(3, None, None, {"test_acc": 0.5}, **SIGNED),
    NoteEntry(3, "odd", **SIGNED),
    RetireEntry({3: "not kept", 4: "not kept"}, **SIGNED),
    UndeleteEntry((3, 4), **SIGNED),
    DamageEntry(3, "its pack is gone", **SIGNED),
    ChildEntry(3, "tuned", WRITER, **SIGNED),
)

NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**62, 2**63, 2**64 - 1, 10**19, 1e308, -0.0, 0.5)
TEXTS = (
    "",
    "\0",
    "../../etc/passwd",
    "a" * 5000,
    "\u202e<script>",
    "9" * 5000,
    "0x" + "f" * 5000,
    "nan",
    "U99999999",
    "V1000000000000",
    "(1000000,1000000)f8",
    "O",
    "cuda:99999999999999999999",
    "float32",
    "2026-01-31T12:00:00.000000Z",
    "9999-99-99T99:99:99Z",
    "01A20CB8-5E69-7452-884A-9EC81D929F23",
)
NODES = (
    {"$tensor": 0},
    {"$tensor": -1},
    {"$tensor": 2**62},
    {"$tensor": True},
    {"$array": 0, "dtype": "f8", "shape": [2**40, 2**40]},
    {"$array": 0, "dtype": "V0", "shape": [0, -1]},
    {"$dict": [[1]]},
    {"$dict": [[{"$dict": []}, 1]]},
    {"$dict": {"a": 1}},
    {"$set": [[]]},
    {"$int": "1" * 5000},
    {"$int": "0x" + "f" * 5000},
    {"$int": 1},
    {"$float": "zz"},
    {"$complex": [1]},
    {"$bytes": "===="},
    {"$deque": [], "maxlen": 10**18},
    {"$deque": [], "maxlen": -1},
    {"$defaultdict": [], "factory": "exec"},
    {"$OrderedDict": [], "_metadata": 3},
    {"$Counter": [[1, {}]]},
    {"$scalar": "AAAA", "dtype": "O"},
    {"$scalar": "AAAA", "dtype": "V1000000000000"},
    {"$scalar": "", "dtype": "f8"},
    {"$numpy.dtype": "(1000,1000,1000)f8"},
    {"$numpy.dtype": "i4,O"},
    {"$torch.Size": [2**70]},
    {"$torch.dtype": "load"},
    {"$torch.device": "cuda:99999999999999"},
    {"$torch.nn": "Module"},
    {"$nobody": 1},
    {
        "$sparse": "coo",
        "shape": [2, 2],
        "coalesced": False,
        "tensors": {"indices": {"$tensor": 1}, "values": {"$tensor": 2}},
    },
    {
        "$sparse": "csr",
        "shape": [1, 1],
        "tensors": {
            "crow_indices": {"$tensor": 5},
            "col_indices": {"$tensor": 3},
            "values": {"$tensor": 2},
        },
    },
    {"$sparse": "bsr", "shape": [2**62, 2**62], "tensors": {}},
    {"$sparse": "coo", "shape": [-1], "coalesced": 1, "tensors": [{"$tensor": 0}]},
    {
        "$quantized": "per_channel_affine",
        "dtype": "quint8",
        "axis": 0,
        "tensors": {
            "integers": {"$tensor": 0},
            "scales": {"$tensor": 4},
            "zero_points": {"$tensor": 3},
        },
    },
    {
        "$quantized": "per_tensor_affine",
        "dtype": "quint8",
        "scale": 0.5,
        "zero_point": 0,
        "tensors": {"integers": {"$tensor": 0}},
        "requires_grad": True,
        "parameter": True,
    },
    {
        "$subclass": "torchao.optim.subclass_fp8.OptimStateFp8",
        "shape": [1, 8],
        "context": [{"$torch.dtype": "float32"}],
        "tensors": {"codes": {"$tensor": 6}, "scale": {"$tensor": 2}},
    },
    {"$subclass": "os.system", "shape": [], "context": "ls", "tensors": {}},
    {"$enum": "torchao.quantization.quant_primitives.MappingType", "member": "SYMMETRIC"},
    {"$enum": "os.path", "member": "sep"},
    {"$record": "torchao.quantization.granularity.PerRow", "fields": {"dim": -1}},
    {"$record": "subprocess.Popen", "fields": {"args": ["ls"]}},
    {"$dict": [], "$set": []},
)
values = st.sampled_from([None, True, False, [], {}, [[]], *NUMBERS, *TEXTS, *NODES])

Reader = Callable[[bytes], object]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every node of a JSON value, the value itself apart."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, (dict, list)):
            found += places(item, (*path, key))
    return found


@st.composite
def changed(draw: st.DrawFn, value: Any) -> str:
    """Return JSON that differs from *value* in one to three places."""
    value = json.loads(json.dumps(value))
    twice: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        nodes = places(value)
        if not nodes:
            break
        *above, last = draw(st.sampled_from(nodes))
        holder = value
        for key in above:
            holder = holder[key]
        kind = draw(st.sampled_from(["replace", "replace", "drop", "grow", "swap", "twice"]))
        if kind == "drop":
            del holder[last]
        elif kind == "grow" and isinstance(holder, list):
            holder.append(holder[last])
        elif kind == "swap":
            other = value
            *others, end = draw(st.sampled_from(nodes))
            try:
                for key in others:
                    other = other[key]
                holder[last] = json.loads(json.dumps(other[end]))
            except (KeyError, IndexError, TypeError):  # what was changed before took it away
                continue
        elif kind == "twice" and not above:
            twice.append(json.dumps(last) + ":" + json.dumps(holder[last]))
        else:
            holder[last] = json.loads(json.dumps(draw(values)))
    text = json.dumps(value, ensure_ascii=False)
    return "{" + ",".join([*twice, text[1:]]) if twice else text


def sealed(text: str) -> bytes:
    """Seal a JSON object that somebody wrote."""
    body = text.encode("utf-8", "surrogatepass").rstrip()[:-1]
    return body + SEAL + digest(body).encode() + b'"}\n'


@st.composite
def hostile_entries(draw: st.DrawFn) -> bytes:
    """Return a journal entry, or store facts, changed and sealed again."""
    makers = [encode_entry(entry) for entry in ENTRIES] + [
        encode_store(StoreFacts(WRITER, 9, in_place=True))
    ]
    value = json.loads(draw(st.sampled_from(makers)))
    del value["blake3"]
    return sealed(draw(changed(value)))


@st.composite
def hostile_manifests(draw: st.DrawFn) -> bytes:
    """Return a manifest with its head, or a part's line, changed, and every digest made to hold."""
    head, lines, _ = draw(versions())
    whole = json.loads(encode_head(head))
    texts = [line.decode() for line in lines]
    for place, text in enumerate(texts):
        if draw(st.booleans()):
            texts[place] = draw(changed(json.loads(text)))
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    for info, line in zip(whole["parts"], encoded, strict=True):
        info["length"], info["blake3"] = len(line), digest(line)
    first = (draw(changed(whole)) if draw(st.booleans()) else json.dumps(whole)).encode(
        "utf-8", "surrogatepass"
    )
    return b"".join(each + b"\n" for each in (first, f'"{digest(first)}"'.encode(), *encoded))


def read_manifest(data: bytes) -> None:
    """Read a manifest as loading does: head, each part's line, each tree; tensors stand in."""
    line = head_line(data, WHERE)
    if line is None:
        return
    head = decode_head(line, WHERE)
    for tree in (head.config, *head.metrics.values(), *(info.model_config for info in head.parts)):
        if tree is not None:
            untree.decode(tree, WHERE)
    for each in head.parts:
        info, start = part_span(head, len(line), each.name)
        part = decode_part(data[start : start + info.length], head, info, WHERE)
        untree.tensor_places(part.tree)
        with contextlib.suppress(*TYPED):  # as verify does, which has read no tensor
            untree.decode(part.tree, WHERE, stand_in, whole=False)
        untree.decode(part.tree, WHERE, stand_in)


def stand_in(place: int) -> Any:
    """Return what stands for a tensor where none is read."""
    import torch

    if place > 1000:
        raise IndexError(place)
    kinds = {
        1: torch.tensor([[0], [1]]),
        2: torch.zeros(1),
        3: torch.zeros(1, dtype=torch.int64),
        4: torch.zeros(8, dtype=torch.float64),
        5: torch.tensor([0, 1]),
        6: torch.zeros(1, 8, dtype=torch.uint8).view(torch.float8_e4m3fn),
    }
    return kinds.get(place, torch.zeros(8, dtype=torch.uint8))


def read_entry(data: bytes) -> None:
    """Read a journal entry, and its settings' config."""
    entry = decode_entry(data, WHERE)
    if isinstance(entry, SettingsEntry) and entry.settings.config is not None:
        untree.decode(entry.settings.config, WHERE)
    if isinstance(entry, LogEntry):
        for value in entry.metrics.values():
            untree.decode(value, WHERE)


READERS: Mapping[str, Reader] = {
    "manifest": read_manifest,
    "journal": read_entry,
    "store": lambda data: decode_store(data, WHERE),
}


def refused(reader: Reader, data: bytes) -> bool:
    """Read; return whether it was refused. Anything that is no typed error comes through."""
    try:
        reader(data)
    except TYPED:
        return True
    return False
