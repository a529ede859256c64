"""Every kind of value that a tree keeps, for hypothesis, and equality down to types and bits."""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptstore.format.tree import FACTORIES
from tests.format import tensors

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
floats = st.floats() | st.integers(0, 2**64 - 1).map(
    lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0]
)
ints = st.integers() | st.integers(-(2**64), 2**64) | st.sampled_from([2**2000, -(3**8000)])
torch_values = st.sampled_from(
    [
        torch.Size([]),
        torch.Size([2, 0, 3]),
        torch.float32,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.device("cpu"),
        torch.device("cuda", 1),
        torch.strided,
        torch.sparse_coo,
        torch.channels_last,
        torch.preserve_format,
    ]
)
numpy_dtypes = st.sampled_from(
    [
        "?",
        "i1",
        "<u2",
        ">i4",
        "<f2",
        ">f8",
        "<c16",
        "<M8[ns]",
        "<m8[D]",
        "<M8",
        "<U3",
        ">U2",
        "S4",
        "V3",
    ]
)
numpy_scalars = (
    st.one_of(
        hnp.from_dtype(np.dtype(name), allow_nan=True)
        for name in ["?", "i1", "u8", "i8", "f2", "f4", "f8", "c8", "c16", "M8[ns]", "m8[s]"]
    )
    | texts.map(np.str_)
    | st.binary(max_size=4).map(np.bytes_)
    | st.binary(min_size=1, max_size=4).map(np.void)
    | numpy_dtypes.map(np.dtype)
)
hashables = st.recursive(
    st.none() | st.booleans() | ints | floats | texts | st.binary(max_size=3) | torch_values,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
leaves = (
    hashables
    | st.binary(max_size=5).map(bytearray)
    | st.complex_numbers()
    | st.builds(complex, floats, floats)
    | numpy_scalars
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return every container of values of *inner*."""
    lists = st.lists(inner, max_size=3)
    dicts = st.dictionaries(hashables, inner, max_size=3)
    return (
        lists
        | lists.map(tuple)
        | dicts
        | st.dictionaries(texts | st.sampled_from(["$", "$dict", "_metadata"]), inner, max_size=3)
        | dicts.map(OrderedDict)
        | st.builds(with_metadata, dicts, st.dictionaries(texts, inner, max_size=2))
        | st.dictionaries(hashables, st.integers(), max_size=3).map(Counter)
        | st.builds(defaultdict, st.sampled_from([None, *FACTORIES.values()]), dicts)
        | st.builds(deque, lists, st.none() | st.integers(0, 4))
        | st.sets(hashables, max_size=3)
    )


def with_metadata(items: dict[Any, Any], metadata: dict[str, Any]) -> OrderedDict[Any, Any]:
    """Return a state dict as modules give it."""
    ordered = OrderedDict(items)
    ordered._metadata = OrderedDict(metadata)
    return ordered


states = st.recursive(leaves, containers, max_leaves=12)


def bits(value: Any) -> Any:  # noqa: C901, PLR0911 - one return a type
    """Return what two values share exactly when they are the same, types and bits included."""
    kind = type(value)
    if kind is float:
        return kind, struct.pack(">d", value)
    if kind is complex:
        return kind, bits(value.real), bits(value.imag)
    if isinstance(value, np.ndarray):
        order = bool(value.flags.f_contiguous), bool(value.flags.c_contiguous)
        return kind, value.dtype.str, value.shape, order, value.tobytes()
    if isinstance(value, (np.str_, np.bytes_)):
        return kind, value[:]
    if isinstance(value, np.generic):
        return kind, value.dtype.str, value.tobytes()
    if isinstance(value, torch.Tensor):
        return tensors.bits(value)
    if isinstance(value, dict):
        extra = value.default_factory if kind is defaultdict else None
        metadata = bits(value._metadata) if hasattr(value, "_metadata") else None
        return kind, extra, metadata, [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return kind, sorted((bits(item) for item in value), key=repr)
    if isinstance(value, deque):
        return kind, value.maxlen, [bits(item) for item in value]
    if isinstance(value, (list, tuple)):
        return kind, [bits(item) for item in value]
    return kind, value
