"""Every dtype that torch has: saved, read, mapped, loaded into a module, and restored in place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from tests.format.tensors import DTYPES, bits, filled, quietly


def any_bits(dtype, shape, seed):
    count = torch.Size(shape).numel() * dtype.itemsize
    data = torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed))
    return quietly(filled, bytes(data.tolist()), dtype, shape)


class Net(nn.Module):
    def __init__(self, dtype, seed):
        super().__init__()
        wide = any_bits(dtype, [2, 3, 4, 8], seed)  # its bytes are a multiple of 64: it is mapped
        self.register_buffer("wide", wide)
        self.register_buffer("odd", any_bits(dtype, [3], seed))
        self.register_buffer("one", any_bits(dtype, [], seed))
        self.register_buffer("none", any_bits(dtype, [0, 3], seed))
        self.register_buffer("turned", wide.permute(0, 2, 3, 1))
        needs = dtype.is_floating_point or dtype.is_complex
        self.parameter = nn.Parameter(any_bits(dtype, [5], seed), requires_grad=needs)


def bits_of(module):
    return {name: bits(value) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_everywhere(tmp_path, dtype):
    store = Store(tmp_path, catalog="sqlite://")
    net, other = Net(dtype, 1), Net(dtype, 2)
    assert bits_of(net) != bits_of(other)
    entry = store.save(net, model_config={"dtype": dtype, "seed": 3}, rng=False)

    assert {name: bits(value) for name, value in entry.state("model").items()} == bits_of(net)
    for options in ({"mmap": True}, {"mmap": False}, {"build": "plain"}):
        loaded = quietly(entry.load, Net, device="cpu", **options)
        assert bits_of(loaded) == bits_of(net), options
        assert loaded.parameter.requires_grad is net.parameter.requires_grad
    quietly(entry.restore, other)
    assert bits_of(other) == bits_of(net)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_numbers_whose_sign_torch_has_not_yet_turned_come_back_turned(tmp_path, dtype):
    store = Store(tmp_path, catalog="sqlite://")
    numbers = torch.tensor([1 + 2j, -3j], dtype=dtype)
    state = {"conj": numbers.conj(), "neg": numbers.conj().imag, "both": numbers.conj().neg()}
    assert state["conj"].is_conj()
    assert state["neg"].is_neg()
    back = store.save(state, rng=False).state("model")

    assert {name: value.tolist() for name, value in back.items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert not any(value.is_conj() or value.is_neg() for value in back.values())


@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [([2, 3, 4, 5], torch.channels_last), ([2, 3, 4, 5, 2], torch.channels_last_3d)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.int8])
def test_channels_last_stays_so(tmp_path, dtype, shape, memory_format):
    tensor = torch.randint(-9, 9, shape).to(dtype).contiguous(memory_format=memory_format)
    back = Store(tmp_path, catalog="sqlite://").save({"w": tensor}, rng=False).state("model")["w"]

    assert back.is_contiguous(memory_format=memory_format)
    assert bits(back) == bits(tensor)
    assert back.stride() == tensor.stride()


def test_an_expanded_tensor_has_rows_of_its_own_afterwards(tmp_path):
    tensor = torch.arange(3.0).expand(4, 3)
    back = Store(tmp_path, catalog="sqlite://").save({"w": tensor}, rng=False).state("model")["w"]

    assert torch.equal(back, tensor)
    assert back.stride() == (3, 1)
    back[0, 0] = 7
    assert back[1, 0] == 0
