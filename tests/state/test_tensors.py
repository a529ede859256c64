"""Tensors as bytes and back: row-major, without a copy where that is possible."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError, StorageError
from ckptstore.state import tensors
from ckptstore.state.tensors import (
    dtype_name,
    dtype_of,
    fresh_bytes,
    from_bytes,
    from_rows,
    identity,
    is_plain,
    pieces,
    stride_order,
    view_bytes,
)


@st.composite
def strided(draw):
    """Return a view of any kind."""
    dtype = draw(st.sampled_from([torch.uint8, torch.bfloat16, torch.float32, torch.complex64]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    whole = torch.arange(
        1, 1 + max(1, torch.Size(n * s for n, s in zip(shape, steps, strict=True)).numel())
    ).to(dtype)
    if dtype.is_complex:
        whole = torch.complex(whole.real, -whole.real - 1)
    count = torch.Size(n * s for n, s in zip(shape, steps, strict=True)).numel()
    tensor = whole[:count].view([n * s for n, s in zip(shape, steps, strict=True)])
    for dim, step in enumerate(steps):
        tensor = tensor[(slice(None),) * dim + (slice(draw(st.integers(0, step - 1)), None, step),)]
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor.permute(*draw(st.permutations(range(tensor.dim()))))
    if dtype.is_complex and draw(st.booleans()):
        tensor = tensor.conj()
        if draw(st.booleans()):
            tensor = tensor.imag
    return tensor


def rows(tensor):
    return tensor.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)


@settings(deadline=None, max_examples=300)
@given(strided(), st.sampled_from([1, 8, 24, 2**24]))
def test_every_view_is_its_rows_in_pieces_and_comes_back(tensor, limit):
    before, tensors.STAGING_BYTES = tensors.STAGING_BYTES, limit
    try:
        found = [bytes(piece) for piece in pieces(tensor)]
    finally:
        tensors.STAGING_BYTES = before
    data = b"".join(found)
    assert len(data) == tensor.numel() * tensor.dtype.itemsize
    if not is_plain(tensor):
        assert all(len(piece) <= max(limit, tensor.dtype.itemsize) for piece in found)

    flat = (
        torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if data
        else torch.empty(0, dtype=torch.uint8)
    )
    back = from_bytes(flat, tensor.dtype, tensor.shape, stride_order(tensor))
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, rows(tensor))
    for one, other, size in zip(back.stride(), tensor.stride(), tensor.shape, strict=True):
        if (
            tensor.numel() == tensor.untyped_storage().nbytes() // tensor.dtype.itemsize
            and size > 1
        ):
            assert one == other  # a dense tensor has its strides again


def test_a_plain_tensors_bytes_are_its_own_memory():
    tensor = torch.arange(10.0)[3:]
    view = view_bytes(tensor)
    assert view.nbytes == 28
    view[:4] = b"\0\0\x80?"
    assert tensor[0] == 1.0
    assert next(pieces(tensor)) == view


@pytest.mark.parametrize(
    ("tensor", "order"),
    [
        (torch.ones(2, 3), None),
        (torch.ones(()), None),
        (torch.ones(0, 3).t(), None),
        (torch.ones(2, 3).t(), (1, 0)),
        (torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), (0, 2, 3, 1)),
        (torch.ones(2, 3, 4).permute(2, 0, 1), (1, 2, 0)),
        (torch.ones(2).expand(3, 2), None),
        (torch.ones(4, 6)[::2, ::2], None),
        (torch.ones(1, 3).t(), None),
    ],
)
def test_the_stride_order_is_from_slowest_to_fastest(tensor, order):
    assert stride_order(tensor) == order


def test_from_rows_gives_strides_in_the_order_asked_for():
    tensor = torch.arange(24).view(2, 3, 4)
    turned = from_rows(tensor, (2, 0, 1))
    assert turned.stride() == (3, 1, 6)
    assert torch.equal(turned, tensor)
    assert from_rows(tensor, None) is tensor


def test_identity_is_shared_by_the_same_view_alone():
    base = torch.arange(6.0)
    assert identity(base) == identity(base[:]) == identity(base.detach())
    others = [base[1:], base[:3], base.view(2, 3), base.view(3, 2).t(), base.view(torch.int32)]
    others += [base.clone(), base.detach().requires_grad_(), torch.nn.Parameter(base)]
    assert len({identity(base), *map(identity, others)}) == len(others) + 1
    assert identity(base[:0]) is None


def test_a_dtype_is_found_by_its_name_and_size():
    for dtype in (torch.float32, torch.bool, torch.float8_e4m3fn, torch.complex128):
        assert dtype_of(dtype_name(dtype), dtype.itemsize, "here") is dtype
    for name, size in (
        ("float32", 8),
        ("float1024", 128),
        ("nn", 4),
        ("__name__", 1),
        ("load", 1),
        ("qint8", 1),
        ("quint4x2", 1),
    ):
        with pytest.raises(IntegrityError, match=r"here.*no dtype"):
            dtype_of(name, size, "here")


def test_memory_that_is_not_there_is_an_error_with_a_name():
    with pytest.raises(StorageError, match="no memory"):
        fresh_bytes(2**60)
    assert fresh_bytes(100).data_ptr() % 64 == 0
