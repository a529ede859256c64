"""A reader of format 1 after ``docs/format.md``: without ckptstore, torch or NumPy."""

import base64
import json
from collections import Counter, OrderedDict, defaultdict, deque
from itertools import product
from struct import iter_unpack, unpack

from blake3 import blake3
from safetensors import deserialize


def checked(data, digest):
    assert blake3(data).hexdigest() == digest, "these are not the bytes that were written"
    return data


def sealed(file):
    """What ``ckptstore.json`` or a journal entry says."""
    body, _, tail = file.read_bytes().rpartition(b',"blake3":"')
    assert tail.endswith(b'"}\n'), "it was cut short"
    return json.loads(checked(body, tail[:-3].decode()) + b"}")


def version(store, run, number):
    """A version's head, and the state of each of its parts."""
    manifest = store / "runs" / run.lower() / "_versions" / f"{number:08d}.jsonl"
    line, digest, *part_lines = manifest.read_bytes().split(b"\n")[:-1]
    head = json.loads(checked(line, json.loads(digest)))
    assert (head["format"], head["requires"]) == (1, []), "a newer format"
    packs, states = [pack(store / "packs", **named) for named in head["packs"]], {}
    for info, part_line in zip(head["parts"], part_lines, strict=True):
        part = json.loads(checked(part_line, info["blake3"]))
        tensors = [{**facts, "data": elements(packs, **facts)} for facts in part["tensors"]]
        states[info["name"]] = value(part["tree"], tensors)
    for named in head["files"]:
        opaque(store / "files", **named)
    return head, states


def opaque(folder, *, save, number, size_bytes, **named):
    data = (folder / save[-2:] / f"{save}-{number}").read_bytes()
    assert len(data) == size_bytes, "it was cut short"
    return checked(data, named["blake3"])


def pack(folder, *, save, number, header_bytes, header_blake3, **_):
    data = (folder / save[-2:] / f"{save}-{number}.safetensors").read_bytes()
    checked(data[:header_bytes], header_blake3)
    deserialize(data)  # raises unless it is a plain safetensors file
    return data


def elements(packs, *, shape, itemsize, chunks, **_):
    """A tensor's bytes, row-major, whatever boxes they were cut into."""
    found = {}
    for chunk in chunks:
        data = packs[chunk["pack"]][chunk["start"] : chunk["start"] + chunk["length"]]
        items = iter_unpack(f"{itemsize}s", checked(data, chunk["blake3"]))
        sides = zip(chunk.get("offsets", [0] * len(shape)), chunk.get("shape", shape), strict=True)
        places = product(*(range(start, start + length) for start, length in sides))
        found |= {place: item for place, (item,) in zip(places, items, strict=True)}
    return b"".join(found[place] for place in product(*map(range, shape)))


def value(tree, tensors=()):
    """What a tree stands for; what only torch or NumPy has a type for stays a node."""
    if isinstance(tree, list):
        return [value(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    node = {key: value(item, tensors) for key, item in tree.items()}
    name = next(iter(node), "")
    if name in {"$tensor", "$array"}:
        node[name] = tensors[node[name]]
    return BUILD[name](node.pop(name), **node) if name in BUILD else node


def ordered(pairs, **attributes):
    vars(made := OrderedDict(pairs)).update(attributes)
    return made


FACTORIES = {kind.__name__: kind for kind in (bool, bytes, dict, float, int, list, set, str, tuple)}
BUILD = {f"${kind.__name__}": kind for kind in (dict, tuple, set, frozenset, deque)} | {
    "$OrderedDict": ordered,
    "$Counter": lambda pairs: Counter(dict(pairs)),
    "$defaultdict": lambda pairs, factory: defaultdict(FACTORIES.get(factory), pairs),
    "$int": lambda text: int(text, 0),
    "$float": lambda text: float(text) if len(text) < 5 else unpack(">d", bytes.fromhex(text))[0],
    "$complex": lambda parts: complex(*parts),
    "$bytes": base64.b64decode,
    "$bytearray": lambda text: bytearray(base64.b64decode(text)),
}
