"""Every kind of tensor that is kept, for hypothesis: of any dtype, dense, sparse, quantised."""

from __future__ import annotations

import functools
import warnings
from itertools import product
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st

DTYPES = sorted(
    {
        each
        for each in vars(torch).values()
        if isinstance(each, torch.dtype) and not str(each).startswith(("torch.q", "torch.quint"))
    },
    key=str,
)
SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
COMPRESSED = {
    "csr": ("crow_indices", "col_indices"),
    "csc": ("ccol_indices", "row_indices"),
    "bsr": ("crow_indices", "col_indices"),
    "bsc": ("ccol_indices", "row_indices"),
}


def quietly(make: Any, *args: Any, **options: Any) -> Any:
    """Call what torch calls beta or deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **options)


# What torch says once a process it says now, and not to whichever example comes first.
quietly(torch.empty, 1, dtype=torch.complex32)
quietly(torch.eye(1).to_sparse_csr)
quietly(torch.quantize_per_tensor, torch.ones(1), 1.0, 0, torch.qint8)


def filled(data: bytes, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    """A row-major tensor of these bytes."""
    if not prod(shape):
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return (
        (flat % 2).view(dtype).view(shape) if dtype is torch.bool else flat.view(dtype).view(shape)
    )


@st.composite
def values(draw: st.DrawFn, shape: list[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    """A row-major tensor of any bits."""
    dtype = dtype or draw(st.sampled_from(DTYPES))
    size = prod(shape) * dtype.itemsize
    return quietly(filled, draw(st.binary(min_size=size, max_size=size)), dtype, shape)


@st.composite
def dense(draw: st.DrawFn) -> torch.Tensor:
    """A plain tensor, however it lies in memory."""
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    tensor = draw(values(shape))
    how = draw(st.sampled_from(["rows", "turned", "sliced", "expanded", "conj", "last"]))
    if how == "turned" and shape:
        tensor = tensor.permute(*draw(st.permutations(range(len(shape)))))
    elif how == "sliced" and shape:
        tensor = tensor[draw(st.integers(0, shape[0])) :: draw(st.integers(1, 2))]
    elif how == "expanded":
        tensor = tensor.expand(2, *shape)
    elif how == "conj" and tensor.is_complex():
        tensor = tensor.conj()
    elif how == "last" and len(shape) == 4 and tensor.dtype is torch.float32:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor


@st.composite
def coo(draw: st.DrawFn) -> torch.Tensor:
    """A sparse tensor in coordinates, coalesced or with any order and number of them."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dense_sizes = draw(st.lists(st.integers(0, 2), max_size=2))
    places = draw(st.lists(st.sampled_from([*product(*map(range, sizes))]), max_size=4))
    coalesced = draw(st.booleans())
    if coalesced:
        places = sorted(set(places))
    indices = torch.tensor(places, dtype=torch.int64).reshape(len(places), len(sizes)).t()
    return quietly(
        torch.sparse_coo_tensor,
        indices,
        draw(values([len(places), *dense_sizes])),
        [*sizes, *dense_sizes],
        is_coalesced=coalesced,
        check_invariants=True,
    )


@st.composite
def compressed(draw: st.DrawFn) -> torch.Tensor:
    """A sparse tensor by rows or columns, in blocks or not, a batch of them or one."""
    layout = draw(st.sampled_from(sorted(COMPRESSED)))
    batch = draw(st.sampled_from([[], [2]]))
    block = [draw(st.integers(1, 2)), draw(st.integers(1, 2))] if layout[0] == "b" else []
    dense_sizes = draw(st.sampled_from([[], [2]]))
    lines, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    chosen = [sorted(draw(st.sets(st.integers(0, width - 1)))) for _ in range(lines)]
    ends = [0]
    for each in chosen:
        ends.append(ends[-1] + len(each))
    dtype = draw(st.sampled_from([torch.int32, torch.int64]))
    starts = torch.tensor(ends, dtype=dtype).expand(*batch, -1).contiguous()
    plain = torch.tensor([index for each in chosen for index in each], dtype=dtype)
    rows, columns = (lines, width) if layout[2] == "r" else (width, lines)
    shape = [rows * block[0], columns * block[1]] if block else [rows, columns]
    return quietly(
        torch.sparse_compressed_tensor,
        starts,
        plain.expand(*batch, -1).contiguous(),
        draw(values([*batch, ends[-1], *block, *dense_sizes])),
        [*batch, *shape, *dense_sizes],
        layout=getattr(torch, f"sparse_{layout}"),
        check_invariants=True,
    )


@st.composite
def quantized(draw: st.DrawFn) -> torch.Tensor:
    """A tensor that torch has quantised, as one or by channel."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    integers = draw(values(shape, draw(st.sampled_from([torch.int8, torch.uint8, torch.int32]))))
    if len(shape) == 2 and draw(st.booleans()):
        integers = integers.t().contiguous().t()
    scheme = draw(st.sampled_from(["tensor", "channel", "floats"]))
    if scheme == "tensor":
        scale = draw(st.floats(1e-6, 1e6))
        made = quietly(torch._make_per_tensor_quantized_tensor, integers, scale, 3)
    else:
        axis = draw(st.integers(0, len(shape) - 1))
        types = (torch.float64, torch.int64) if scheme == "channel" else (torch.float32,) * 2
        scales, zeros = (torch.ones(shape[axis], dtype=each) for each in types)
        made = quietly(torch._make_per_channel_quantized_tensor, integers, scales, zeros, axis)
    return made


@functools.cache
def torchaos() -> tuple[torch.Tensor, ...]:
    """Every tensor of torchao's that is kept, made by torchao itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao import quantization as ao
        from torchao.optim.subclass_4bit import OptimState4bit
        from torchao.optim.subclass_8bit import OptimState8bit
        from torchao.optim.subclass_fp8 import OptimStateFp8

        found = []
        for config, dtype in (
            (ao.Int8WeightOnlyConfig(), torch.float32),
            (ao.Int8WeightOnlyConfig(granularity=ao.PerTensor()), torch.bfloat16),
            (ao.Int8DynamicActivationInt8WeightConfig(), torch.bfloat16),
            (ao.Float8WeightOnlyConfig(), torch.bfloat16),
            (ao.IntxWeightOnlyConfig(torch.int4), torch.float32),
            (ao.Int8DynamicActivationIntxWeightConfig(), torch.float32),
        ):
            layer = torch.nn.Sequential(torch.nn.Linear(32, 16, dtype=dtype))
            ao.quantize_(layer, config)
            found.append(layer[0].weight.detach())
        state = torch.linspace(-1, 1, 512).view(2, 256)
        for kind in (OptimState8bit, OptimState4bit, OptimStateFp8):
            found.append(kind.zeros(state.shape, block_size=128, dtype=torch.float32))
            found[-1].copy_(state)
    return tuple(found)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any tensor that is kept, with or without a gradient, as a parameter or not."""
    tensor = draw(
        dense()
        | coo()
        | compressed()
        | quantized()
        | st.deferred(lambda: st.sampled_from(torchaos()))
    )
    floating = tensor.is_floating_point() or tensor.is_complex()
    needs_gradient = floating and draw(st.booleans())
    # One of its own: those that are drawn several times are the same object else, and so tied.
    tensor = tensor.detach()
    if draw(st.booleans()):
        return torch.nn.Parameter(tensor, requires_grad=needs_gradient)
    return tensor.requires_grad_(needs_gradient)


def bits(value: torch.Tensor) -> Any:
    """Return what two tensors share exactly when they are the same, kind and bits included."""
    plain = value.detach()
    about: tuple[Any, ...] = (type(value), value.dtype, tuple(value.shape), value.requires_grad)
    about += (isinstance(value, torch.nn.Parameter), str(value.layout))
    if hasattr(plain, "__tensor_flatten__") and type(plain) is not torch.Tensor:
        names, context = plain.__tensor_flatten__()
        return *about, repr(context), [(name, bits(getattr(plain, name))) for name in names]
    if value.layout is torch.sparse_coo:
        return *about, value.is_coalesced(), bits(plain._indices()), bits(plain._values())
    if value.layout is not torch.strided:
        names = COMPRESSED[str(value.layout).removeprefix("torch.sparse_")]
        return *about, [bits(getattr(plain, name)()) for name in (*names, "values")]
    if value.is_quantized and "tensor" in str(value.qscheme()):
        return *about, value.q_scale(), value.q_zero_point(), bits(plain.int_repr())
    if value.is_quantized:
        scales, zeros = value.q_per_channel_scales(), value.q_per_channel_zero_points()
        return *about, value.q_per_channel_axis(), *map(bits, (scales, zeros, plain.int_repr()))
    return *about, strides(plain), raw(plain)


def strides(tensor: torch.Tensor) -> Any:
    """A dense tensor's strides, where they mean anything; rows for all that is not dense."""
    if not tensor.numel():
        return None
    order = sorted(range(tensor.dim()), key=lambda dim: -tensor.stride(dim))
    if not tensor.permute(order).is_contiguous():
        tensor = torch.empty(tensor.shape, device="meta")
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def raw(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes, row-major."""
    plain = tensor.resolve_conj().resolve_neg()
    same = SAME_SIZE.get(plain.dtype.itemsize)
    rows = (plain if same is None else plain.view(same)).contiguous()
    # An only element may have any stride, and then its bytes can't be viewed.
    flat = rows.as_strided((rows.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
