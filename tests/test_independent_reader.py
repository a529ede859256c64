"""A reader that knows only ``docs/format.md`` reads what ckptstore reads."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict, deque
from collections.abc import Callable
from struct import iter_unpack
from typing import Any

import numpy as np
import pytest
import torch

from ckptstore import Store
from ckptstore.format.journal import decode_entry
from ckptstore.format.untree import decode
from tests.format.tensors import quietly, torchaos
from tests.independent_reader import opaque, sealed, value, version
from tests.test_golden import GOLDEN, VERSIONS

JOURNAL = sorted((GOLDEN / "runs/digits/_journal").iterdir())


@pytest.mark.parametrize("ref", VERSIONS)
def test_both_readers_agree_on_every_part(ref):
    entry = Store(GOLDEN, catalog="sqlite://").get(ref)
    _, states = version(GOLDEN, entry.run, entry.version)

    assert tuple(states) == entry.parts
    for part, state in states.items():
        assert shown(state) == shown(entry.state(part)), part


@pytest.mark.parametrize("ref", VERSIONS)
def test_both_readers_agree_on_the_head(ref):
    entry = Store(GOLDEN, catalog="sqlite://").get(ref)
    head, _ = version(GOLDEN, entry.run, entry.version)

    assert head["save"] == entry.save_id
    assert shown(value(head["metrics"])) == shown(entry.metrics)
    assert shown(value(head["config"])) == shown(entry.config)
    assert (head["epoch"], head["step"], head["kind"]) == (
        entry.epoch,
        entry.step,
        type(entry).__name__.lower(),
    )
    assert (head["parent"] and f"{head['parent']['run']}@{head['parent']['version']}") == (
        entry.parent
    )


@pytest.mark.parametrize("file", JOURNAL, ids=lambda file: file.stem)
def test_both_readers_agree_on_the_journal(file):
    read, entry = sealed(file), decode_entry(file.read_bytes(), file.name)

    assert read["writer"] == str(entry.writer)
    if read["kind"] == "tag":
        assert (read["tag"], read["version"]) == (entry.tag, entry.version)
    else:
        assert (read["monitor"], read["mode"]) == (entry.settings.monitor, entry.settings.mode)
        assert value(read["config"]) == decode(entry.settings.config, "config")


def test_a_flipped_bit_is_noticed_by_the_other_reader_too(tmp_path):
    damaged = tmp_path / "00000001.json"
    damaged.write_bytes(JOURNAL[0].read_bytes().replace(b"accuracy", b"accurace"))

    with pytest.raises(AssertionError):
        sealed(damaged)


SPARSE = torch.tensor([[0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 4.0]])
COMPOSITES = {
    "coo": SPARSE.to_sparse(),
    "uncoalesced": torch.sparse_coo_tensor(
        torch.tensor([[1, 1], [0, 0]]), torch.ones(2), (2, 4), check_invariants=True
    ),
    "csr": quietly(SPARSE.to_sparse_csr),
    "csc": torch.nn.Parameter(quietly(SPARSE.to_sparse_csc)),
    "bsr": quietly(SPARSE.to_sparse_bsr, (2, 2)),
    "bsc": quietly(SPARSE.to_sparse_bsc, (1, 2)),
    "levels": quietly(torch.quantize_per_tensor, SPARSE, 0.5, 3, torch.quint8),
    "channels": quietly(
        torch.quantize_per_channel,
        SPARSE,
        torch.tensor([0.5, 0.25], dtype=torch.float64),
        torch.tensor([1, 2]),
        0,
        torch.qint8,
    ),
    "int8": torchaos()[0],
    "moments": torchaos()[-1],
}


def test_both_readers_agree_on_tensors_made_of_others(tmp_path):
    Store(tmp_path, catalog="sqlite://").save({"all": COMPOSITES}, run="x", rng=False)
    _, states = version(tmp_path, "x", 1)
    entry = Store(tmp_path, catalog="sqlite://").get("x@1")

    assert shown(states["model"]) == shown(entry.state("model"))
    assert shown(states["model"]["all"]) == shown(COMPOSITES)


@pytest.mark.parametrize("name", ["coo", "uncoalesced", "csr", "csc", "bsr", "bsc"])
def test_what_the_page_says_of_sparse_tensors_is_enough_to_fill_a_matrix(tmp_path, name):
    Store(tmp_path, catalog="sqlite://").save({"w": COMPOSITES[name]}, run="x", rng=False)
    node = version(tmp_path, "x", 1)[1]["model"]["w"]

    assert filled(node) == COMPOSITES[name].to_dense().tolist()


@pytest.mark.parametrize("name", ["levels", "channels"])
def test_what_the_page_says_of_quantised_tensors_is_enough_to_have_their_values(tmp_path, name):
    Store(tmp_path, catalog="sqlite://").save({"w": COMPOSITES[name]}, run="x", rng=False)
    node = version(tmp_path, "x", 1)[1]["model"]["w"]
    integers = numbers(node, "integers", "B" if node["dtype"] == "quint8" else "b")
    if name == "levels":
        scales, zeros = [node["scale"]] * 2, [node["zero_point"]] * 2
    else:
        assert node["axis"] == 0
        scales, zeros = numbers(node, "scales", "d"), numbers(node, "zero_points", "q")
    rows = [
        [(each - zero) * scale for each in integers[4 * row : 4 * row + 4]]
        for row, (scale, zero) in enumerate(zip(scales, zeros, strict=True))
    ]
    assert rows == COMPOSITES[name].dequantize().tolist()


def numbers(node, name, code):
    """The numbers in one of the tensors of a node."""
    data = node["tensors"][name]["$tensor"]["data"]
    return [each for (each,) in iter_unpack(f"<{code}", data)]


def filled(node):
    """A sparse matrix of floats from its node, row by row."""
    layout, (rows, columns) = node["$sparse"], node["shape"]
    matrix = [[0.0] * columns for _ in range(rows)]
    values = numbers(node, "values", "f")
    if layout == "coo":
        indices = numbers(node, "indices", "q")
        places = zip(indices[: len(values)], indices[len(values) :], strict=True)
        for (row, column), each in zip(places, values, strict=True):
            matrix[row][column] += each
        return matrix
    by_row = layout[2] == "r"
    ends = numbers(node, "crow_indices" if by_row else "ccol_indices", "q")
    others = numbers(node, "col_indices" if by_row else "row_indices", "q")
    height, width = node["tensors"]["values"]["$tensor"]["shape"][1:] or (1, 1)
    for line in range(len(ends) - 1):
        for at in range(ends[line], ends[line + 1]):
            top, left = (line, others[at]) if by_row else (others[at], line)
            for place in range(height * width):
                row, column = top * height + place // width, left * width + place % width
                matrix[row][column] = values[at * height * width + place]
    return matrix


def made_of(value: torch.Tensor, name: str, content: str, **members: Any) -> dict[str, Any]:
    """The node of a tensor that is made of others."""
    beside = {key: member for key, member in members.items() if not torch.is_tensor(member)}
    parts = {key: part for key, part in members.items() if torch.is_tensor(part)}
    return {
        name: content,
        **beside,
        "tensors": {key: {"$tensor": tensor(part)} for key, part in parts.items()},
        **({"requires_grad": True} if value.requires_grad else {}),
        **({"parameter": True} if isinstance(value, torch.nn.Parameter) else {}),
    }


def any_tensor(value: torch.Tensor) -> dict[str, Any]:
    """The node of any tensor, after the page."""
    plain, layout = value.detach(), torch_name(value.layout).removeprefix("sparse_")
    shape = {"shape": list(value.shape)}
    if hasattr(plain, "__tensor_flatten__") and type(plain) is not torch.Tensor:
        names, context = plain.__tensor_flatten__()
        content = f"{type(plain).__module__}.{type(plain).__qualname__}"
        parts = {name: getattr(plain, name) for name in names}
        return made_of(value, "$subclass", content, **shape, context=context, **parts)
    if layout == "coo":
        parts = {"indices": plain._indices(), "values": plain._values()}
        return made_of(value, "$sparse", layout, **shape, coalesced=value.is_coalesced(), **parts)
    if layout != "strided":
        names = (
            ("crow_indices", "col_indices") if layout[2] == "r" else ("ccol_indices", "row_indices")
        )
        parts = {name: getattr(plain, name)() for name in (*names, "values")}
        return made_of(value, "$sparse", layout, **shape, **parts)
    if value.is_quantized:
        facts = (
            {"scale": value.q_scale(), "zero_point": value.q_zero_point()}
            if "tensor" in str(value.qscheme())
            else {
                "axis": value.q_per_channel_axis(),
                "scales": value.q_per_channel_scales(),
                "zero_points": value.q_per_channel_zero_points(),
            }
        )
        members = {"dtype": torch_name(value.dtype), "integers": plain.int_repr(), **facts}
        return made_of(value, "$quantized", torch_name(value.qscheme()), **members)
    parameter = {"parameter": True} if type(value) is torch.nn.Parameter else {}
    return {"$tensor": tensor(value), **parameter}


def shown(state: Any) -> Any:
    """State of either reader in one form: equal exactly where types and bits are."""
    for kind, node in NODES.items():
        if isinstance(state, kind):
            return shown(node(state))
    if isinstance(state, dict):
        if "chunks" in state:  # where the other reader found a tensor, nobody else needs to know
            state = {name: state[name] for name in MEMBERS if name in state}
        beside = [getattr(state, "default_factory", None)]
        if isinstance(state, OrderedDict):
            beside.append(shown(getattr(state, "_metadata", None)))
        return (
            type(state).__name__,
            [(shown(key), shown(item)) for key, item in state.items()],
            beside,
        )
    if isinstance(state, (set, frozenset)):
        return (type(state).__name__, sorted(map(repr, state)))
    if isinstance(state, (list, tuple, deque)):
        items = [shown(item) for item in state]
        return (type(state).__name__, items, getattr(state, "maxlen", None))
    return (type(state).__name__, repr(state))


def tensor(value: torch.Tensor) -> dict[str, Any]:
    """A tensor as the other reader has it, in the order of the manifest's members."""
    plain = value.detach().contiguous().reshape(-1)
    order = sorted(range(value.dim()), key=lambda dim: (-value.stride(dim), dim))
    return {
        "dtype": torch_name(value.dtype),
        "shape": list(value.shape),
        **({} if value.is_contiguous() else {"order": order}),
        **({"requires_grad": True} if value.requires_grad else {}),
        "data": plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"",
    }


def array(value: np.ndarray) -> dict[str, Any]:
    return {
        "$array": {"dtype": "uint8", "shape": [value.nbytes], "data": value.tobytes()},
        "dtype": value.dtype.str,
        "shape": list(value.shape),
        "fortran": bool(value.flags.f_contiguous and not value.flags.c_contiguous),
    }


def torch_name(value: object) -> str:
    return str(value).removeprefix("torch.")


MEMBERS = ("dtype", "shape", "order", "requires_grad", "data")

# What the other reader leaves as it stands in the tree. The first that fits counts.
NODES: dict[type, Callable[[Any], dict[str, Any]]] = {
    torch.Tensor: any_tensor,
    torch.Size: lambda value: {"$torch.Size": list(value)},
    torch.device: lambda value: {"$torch.device": str(value)},
    torch.dtype: lambda value: {"$torch.dtype": torch_name(value)},
    torch.layout: lambda value: {"$torch.layout": torch_name(value)},
    torch.memory_format: lambda value: {"$torch.memory_format": torch_name(value)},
    np.ndarray: array,
    np.generic: lambda value: {
        "$scalar": base64.b64encode(value.tobytes()).decode(),
        "dtype": value.dtype.str,
    },
    np.dtype: lambda value: {"$numpy.dtype": value.str},
}


def test_files_are_read_as_the_page_says(tmp_path):
    store = Store(tmp_path, run="digits", catalog="sqlite://")
    store.save(torch.nn.Sequential(torch.nn.Linear(3, 2)), program=torch.ones(2, 3), rng=False)
    head, states = version(tmp_path, "digits", 1)
    (named,) = head["files"]
    assert (named["role"], named["part"]) == ("program", "model")

    data = opaque(tmp_path / "files", **named)
    program = json.loads(data[: data.index(b"\n")])
    assert {each["key"] for each in program["tensors"]} == set(states["model"])
    assert program["graph"]["steps"] == [
        {"call": "aten.linear.default", "args": [{"value": 2}, {"value": 0}, {"value": 1}]}
    ]

    (file,) = (path for path in (tmp_path / "files").rglob("*") if path.is_file())
    file.write_bytes(data[:-1] + b"?")
    with pytest.raises(AssertionError, match="not the bytes that were written"):
        version(tmp_path, "digits", 1)
