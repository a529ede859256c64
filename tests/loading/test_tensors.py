"""Tensors of whatever kind, compared and copied."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ckptstore.format.composite import put_together, take_apart
from ckptstore.loading.tensors import (
    copied,
    copies_into,
    copy_into,
    form,
    is_plain,
    kind,
    made_of,
    memory,
    place,
    put_by_hand,
    same_bits,
    same_memory,
    set_sparse,
    stand_in,
    unwritable,
    writes,
)
from tests.format.tensors import bits, compressed, quietly, tensors, torchaos

INT8 = torchaos()[0]
COO = torch.sparse_coo_tensor(
    torch.tensor([[0, 2], [3, 1]]), torch.tensor([1.0, 2.0]), (3, 4), check_invariants=True
)
CSR = quietly(torch.eye(3).to_sparse_csr)
QUANTIZED = quietly(torch.quantize_per_tensor, torch.ones(2, 3), 0.1, 3, torch.qint8)
COMPOSITES = [COO, CSR, INT8]


def test_a_place_is_the_same_for_the_same_elements_only():
    tensor = torch.zeros(4, 4)
    same = [tensor.view(4, 4), tensor.data, nn.Parameter(tensor), tensor[:]]
    other = [tensor[:2], tensor[2:], tensor.t(), tensor.view(16), tensor.clone(), tensor[:, :2]]

    assert {place(each) for each in same} == {place(tensor)}
    assert len({place(each) for each in (tensor, *other)}) == 1 + len(other)
    assert {memory(each) for each in same} == {memory(tensor)}


def test_what_has_no_memory_is_only_itself():
    lazy, meta = nn.LazyLinear(2).weight, torch.empty(2, layout=torch.sparse_coo, device="meta")

    for tensor in (lazy, meta):
        assert place(tensor) == (id(tensor),)
    assert memory(meta) == id(meta)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), True),
        (torch.tensor(0.0), torch.tensor(-0.0), False),
        (torch.tensor(0.0), torch.tensor(0.0).double(), False),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32), False),
        (torch.zeros(2, 3), torch.zeros(3, 2), False),
        (torch.arange(6).view(2, 3), torch.arange(6).view(3, 2).t(), False),
        (torch.arange(6).view(2, 3).t(), torch.arange(6).view(2, 3).t().contiguous(), True),
        (torch.eye(2), torch.eye(2).to_sparse(), False),
        (torch.tensor([1j]).conj(), torch.tensor([complex(0.0, -1.0)]), True),
        (torch.tensor([True]), torch.tensor([False]), False),
        (torch.zeros(0, 2), torch.zeros(0, 2), True),
    ],
)
def test_bits_are_the_same_or_not(one, other, is_same):
    assert same_bits(one, other) is is_same
    assert same_bits(other, one) is is_same
    assert same_bits(one, one)


@settings(deadline=None)
@given(tensors())
def test_a_copy_has_the_same_bits_in_other_memory(tensor):
    other = copied(tensor)

    assert same_bits(tensor, other)
    assert bits(other) == bits(tensor.detach())
    assert not other.requires_grad
    assert copies_into(tensor, other) or any(unwritable(part) for part in made_of(tensor))
    if tensor.numel() and all(part.numel() for part in made_of(tensor)):
        assert place(other) != place(tensor)
        if not type(tensor).__name__.startswith("OptimState"):  # they copy their map
            assert place(tensor.detach()) == place(tensor)
        assert not same_memory(tensor, other)


@settings(deadline=None)
@given(tensors())
def test_one_other_bit_is_noticed(tensor):
    other = copied(tensor)
    part = made_of(other)[-1]
    if not part.numel():
        return
    if part.is_quantized:
        integers = part.int_repr()
        integers[(-1,) * integers.dim()] ^= 1
        part.copy_(quietly(remade, part, integers))
    else:
        place_of_last = sum(
            (size - 1) * step for size, step in zip(part.shape, part.stride(), strict=True)
        )
        start = (part.storage_offset() + place_of_last) * part.dtype.itemsize
        memory_of = part.untyped_storage()
        memory_of[start] = memory_of[start] ^ 1
    assert same_bits(other, tensor) is False


def remade(like, integers):
    if "tensor" in str(like.qscheme()):
        return torch._make_per_tensor_quantized_tensor(
            integers, like.q_scale(), like.q_zero_point()
        )
    return torch._make_per_channel_quantized_tensor(
        integers,
        like.q_per_channel_scales(),
        like.q_per_channel_zero_points(),
        like.q_per_channel_axis(),
    )


@pytest.mark.parametrize("tensor", [*COMPOSITES, QUANTIZED, torch.ones(2)])
def test_a_parameter_made_of_a_tensor_is_at_its_place(tensor):
    parameter = nn.Parameter(tensor, requires_grad=False)

    assert place(parameter) == place(tensor)
    assert memory(parameter) == memory(tensor)
    assert same_memory(parameter, tensor)


def test_a_form_tells_kinds_apart_and_not_numbers():
    assert form(torch.ones(2)) == form(nn.LazyLinear(2).weight) == ""
    assert form(COO) == "torch.sparse_coo, 2 sparse dimensions"
    assert form(CSR) == form(quietly(torch.zeros(3, 3).to_sparse_csr))
    assert [kind(COO), kind(CSR)] == ["torch.sparse_coo", "torch.sparse_csr"]
    blocks = [quietly(torch.eye(4).to_sparse_bsr, size) for size in ((2, 2), (4, 4))]
    assert form(blocks[0]) != form(blocks[1])
    assert form(QUANTIZED) == "qint8, per_tensor_affine"
    assert kind(QUANTIZED) == "qint8"
    assert kind(INT8) == "torchao.quantization.Int8Tensor"
    assert "'block_size': [1, 32]" in form(INT8)
    assert len({form(each) for each in torchaos()}) == len(torchaos())
    assert [is_plain(each) for each in (torch.ones(2), COO, QUANTIZED, INT8)] == [
        True,
        False,
        False,
        False,
    ]


def test_a_write_to_what_a_tensor_is_made_of_is_counted():
    for tensor in (copied(COO), copied(INT8), torch.ones(2)):
        before = writes(tensor)
        with torch.no_grad():
            made_of(tensor)[-1].add_(1)
        assert writes(tensor) > before


@pytest.mark.parametrize("tensor", [COO, CSR, INT8, torch.ones(2), torch.zeros(2).to(torch.bool)])
def test_values_are_copied_into_the_memory_that_is_there(tensor):
    mine = copied(tensor)
    where = place(mine)
    made_of(mine)[-1].zero_()
    copy_into(mine, tensor)

    assert same_bits(mine, tensor)
    assert place(mine) == where


def test_a_quantised_tensor_takes_the_scale_along():
    mine = quietly(torch.quantize_per_tensor, torch.zeros(2, 3), 0.7, 1, torch.qint8)
    assert copies_into(mine, QUANTIZED)
    where = place(mine)
    copy_into(mine, QUANTIZED)

    assert same_bits(mine, QUANTIZED)
    assert place(mine) == where


def test_other_kinds_and_sizes_are_not_copied_in_place():
    for mine, value in (
        (torch.ones(3, 4), COO),
        (COO, CSR),
        (CSR, quietly(torch.zeros(3, 3).to_sparse_csr)),
        (INT8, torch.ones(16, 32)),
        (torch.ones(2), torch.ones(2).double()),
        (torch.ones(2).expand(3, 2), torch.ones(3, 2)),
    ):
        assert not copies_into(mine, value)


@pytest.mark.parametrize("value", [COO, CSR, QUANTIZED, INT8, torch.ones(2)])
def test_a_stand_in_is_a_parameter_where_one_was(value):
    for mine in (nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)):
        new = stand_in(mine, value)
        assert isinstance(new, nn.Parameter)
        assert new.requires_grad is (mine.requires_grad and not value.is_quantized)
        assert same_memory(new, value)
    new = stand_in(torch.ones(2), value)
    assert not isinstance(new, nn.Parameter)
    assert same_memory(new, value)


@settings(deadline=None)
@given(compressed())
def test_a_compressed_tensor_takes_another_number_of_elements(tensor):
    apart = take_apart(tensor)
    starts, indices, values = apart.tensors.values()
    batch = starts.dim() - 1
    none = (slice(None),) * batch + (slice(0, 0),)
    parts = dict(
        zip(
            apart.tensors,
            (torch.zeros_like(starts), indices[none].clone(), copied(values[none])),
            strict=True,
        )
    )
    mine = nn.Parameter(
        put_together(apart.node, apart.content, apart.facts, parts),
        requires_grad=tensor.is_floating_point(),
    )
    assert form(mine) == form(tensor)
    set_sparse(mine, tensor)

    assert same_bits(mine, tensor)
    assert mine.requires_grad is tensor.is_floating_point()


def test_what_torch_cannot_copy_is_put_by_hand():
    nibbles = torch.tensor([1, 2], dtype=torch.uint8).view(torch.uint4)
    own = {
        "a": nn.Parameter(quietly(torch.zeros(3, 3).to_sparse_csr)),
        "four": torch.zeros(2, dtype=torch.uint8).view(torch.uint4),
        "plain": torch.zeros(2),
    }
    own["tied"] = nn.Parameter(own["a"])
    before = dict(own)
    values = {"a": CSR, "tied": CSR, "four": nibbles, "plain": torch.ones(2)}
    state = dict(values)
    put_by_hand(own, ["a", "tied", "four", "plain"], state)

    assert all(own[name] is before[name] for name in own)
    assert all(same_bits(own[name], values[name]) for name in ("a", "tied", "four"))
    assert place(own["a"]) == place(own["tied"]) != place(CSR)
    assert {name for name in state if state[name] is own[name]} == {"a", "tied", "four"}
    assert not own["plain"].any()
