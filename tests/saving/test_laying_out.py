"""Where copies lie: one after the other, aligned, laid out as what they are copies of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.saving.capture import capture
from ckptstore.saving.laying_out import ALIGNMENT, Layout
from ckptstore.saving.narrowing import narrow
from ckptstore.state.tensors import stride_order


def laid_out(state):
    parts = capture({"model": state})
    layout = Layout(parts)
    memory = torch.zeros(-(-layout.size_bytes // 4096) * 4096 + 4096, dtype=torch.uint8)
    return layout, layout.lay_out(memory)[0].tensors


def test_copies_follow_one_another_and_are_aligned():
    _, copies = laid_out({"a": torch.ones(3), "b": torch.ones(20), "c": torch.ones(1).bool()})
    addresses = [copy.data_ptr() for copy in copies]
    assert [address - addresses[0] for address in addresses] == [0, ALIGNMENT, 3 * ALIGNMENT]
    assert all(address % ALIGNMENT == 0 for address in addresses)


def test_a_tensor_that_parts_share_is_copied_once():
    shared = torch.nn.Parameter(torch.ones(5))
    parts = capture({"model": {"w": shared}, "ema": {"v": shared.detach()}})
    layout = Layout(parts)
    one, other = layout.lay_out(torch.zeros(4096, dtype=torch.uint8))
    assert len(layout.slots) == 1
    assert one.tensors[0].data_ptr() == other.tensors[0].data_ptr()
    assert (one.tensors[0].requires_grad, other.tensors[0].requires_grad) == (True, False)


def test_views_that_differ_are_copied_each():
    base = torch.arange(6.0)
    layout, _ = laid_out(
        {"a": base, "b": base[:3], "c": base.view(2, 3), "d": base.view(torch.int32)}
    )
    assert len(layout.slots) == 4


def test_empty_tensors_share_nothing_and_take_nothing():
    empty = torch.empty(0, 3)
    layout, copies = laid_out({"a": empty, "b": empty, "c": torch.empty(3, 0).t()})
    assert layout.size_bytes == 0
    assert [tuple(copy.shape) for copy in copies] == [(0, 3), (0, 3), (0, 3)]


def test_what_was_converted_for_the_save_is_passed_on():
    parts = capture({"model": {"w": torch.ones(100), "n": torch.ones(2, dtype=torch.int64)}})
    narrow(parts, {"model": torch.bfloat16})
    layout = Layout(parts)
    copied = layout.lay_out(torch.zeros(4096, dtype=torch.uint8))[0]
    assert copied.tensors[0] is parts[0].tensors[0]
    assert copied.tensors[1] is not parts[0].tensors[1]
    assert (layout.passed_bytes, layout.size_bytes) == (200, 64)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1),
        torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.arange(6.0).as_strided((2, 1, 3), (3, 50, 1)),
        torch.tensor(3.0),
        torch.ones(1).as_strided((1, 1), (7, 9)),
    ],
)
def test_dense_tensors_keep_their_memory_as_it_is(tensor):
    layout, (copy,) = laid_out({"w": tensor})
    assert layout.slots[0].is_dense
    assert copy.stride() == tensor.stride()
    assert layout.size_bytes == 64 * -(-tensor.nbytes // 64)


def test_gaps_and_repetitions_are_not_copied():
    layout, copies = laid_out(
        {
            "a": torch.arange(1000.0)[::100],
            "b": torch.ones(1).expand(1000),
            "c": torch.ones(9, 9)[:, :2].t(),
        }
    )
    assert layout.size_bytes == 64 + 4032 + 128
    assert [slot.is_dense for slot in layout.slots] == [False, False, False]
    assert [copy.stride() for copy in copies] == [(1,), (1,), (1, 2)]


@given(st.data())
@settings(max_examples=300)
def test_the_order_of_dimensions_is_kept(draws):
    shape = draws.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    strides = draws.draw(st.lists(st.integers(0, 40), min_size=len(shape), max_size=len(shape)))
    tensor = torch.arange(600.0).as_strided(shape, strides)
    layout, (copy,) = laid_out({"w": tensor})
    assert stride_order(copy) == stride_order(tensor)
    copy.copy_(tensor)
    assert torch.equal(copy, tensor)  # so no two elements share memory
    assert layout.size_bytes >= tensor.numel() * 4
