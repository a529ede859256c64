"""State stored in another dtype: smaller, said so, and put back in the dtype that it had."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import ArgumentError, UnsupportedValueError
from tests.format.tensors import quietly
from tests.loading.trainings import Net, Training, frozen, same

HALF = {"optimizer": torch.bfloat16}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def training():
    training = Training()
    training.epoch()
    return training


def rounded(optimizer):
    """What its state is once it went through bfloat16; counts of steps don't."""
    state = optimizer.state_dict()
    return {
        number: {
            key: value.to(torch.bfloat16).to(value.dtype) if value.dim() else value
            for key, value in each.items()
        }
        for number, each in state["state"].items()
    }


def test_an_optimizer_takes_half_the_room_and_comes_back_in_its_own_dtype(store, training):
    whole = training.save(store, rng=False)
    saved = training.save(store, rng=False, dtype=HALF)
    expected = frozen(rounded(training.optimizer))
    sizes = {each.name: each.size_bytes for each in saved.head.parts}
    before = {each.name: each.size_bytes for each in whole.head.parts}

    assert sizes["optimizer"] < before["optimizer"] * 0.6
    assert sizes["model"] == before["model"]
    other = Training(seed=5)
    audit = other.resume(store, rng=False).audit
    assert frozen(other.optimizer.state_dict()["state"]) == expected
    assert audit.converted == {"optimizer": ("bfloat16",)}
    assert "optimizer: stored in bfloat16, and converted" in str(audit)
    assert same(other.model, training.model)


def test_state_gives_what_is_stored_and_says_what_it_was(store, training):
    saved = training.save(store, dtype=HALF)
    state = saved.state("optimizer")["state"][0]
    lazy = saved.tensors("optimizer")["state/0/exp_avg"]

    assert (state["exp_avg"].dtype, state["step"].dtype) == (torch.bfloat16, torch.float32)
    assert (lazy.dtype, lazy.was) == (torch.bfloat16, torch.float32)
    assert saved.tensors("optimizer")["state/0/step"].was is None


def test_a_long_count_of_steps_stays_exact(store, training):
    for each in training.optimizer.state.values():
        each["step"].fill_(100_001.0)
    saved = training.save(store, dtype=HALF)
    other = Training(seed=5)
    saved.restore(**other.parts())

    assert {float(each["step"]) for each in other.optimizer.state.values()} == {100_001.0}


def test_a_model_is_loaded_in_the_dtype_it_had(store):
    model = Net()
    saved = store.save(model, dtype={"model": torch.float16}, rng=False)
    expected = Net()
    expected.load_state_dict(model.state_dict())
    expected = expected.half().float()

    assert same(saved.load(Net, device="cpu"), expected)
    assert saved.load(Net, device="cpu", dtype=torch.float16).first.weight.dtype == torch.float16
    other = Net()
    assert saved.restore(other).converted == {"model": ("float16",)}
    assert same(other, expected)
    package = store.save_package(saved, class_names=["a", "b", "c"])
    assert package.size_bytes == saved.size_bytes
    assert same(store.load_package(Net, device="cpu").model, expected)


def test_ties_integers_and_live_tensors_stay_as_they_are(store):
    tied = nn.Linear(3, 3)
    state = {"a": tied.weight, "b": tied.weight, "n": torch.arange(3), "c": torch.ones(2) * 1j}
    saved = store.save(state, dtype={"model": torch.bfloat16}, rng=False)
    loaded = saved.state("model")

    assert tied.weight.dtype == torch.float32
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()
    assert loaded["a"].requires_grad
    assert (loaded["n"].dtype, loaded["c"].dtype) == (torch.int64, torch.complex64)


def test_extra_state_is_the_modules_own(store):
    class Own(nn.Module):
        def get_extra_state(self):
            return {"table": torch.ones(3)}

        def set_extra_state(self, state):
            self.table = state["table"]

    saved = store.save(Own(), dtype={"model": torch.bfloat16}, rng=False)

    assert saved.load(Own, device="cpu").table.dtype == torch.float32


def test_numbers_that_the_dtype_does_not_reach_are_refused_by_name(store):
    state = {"w": torch.tensor([1.0, 70_000.0])}
    with pytest.raises(UnsupportedValueError, match=r"7e\+04 as float16 at 'model/w'"):
        store.save(state, dtype={"model": torch.float16})
    ends = {"w": torch.tensor([float("inf"), float("nan"), 65_504.0])}
    stored = store.save(ends, dtype={"model": torch.float16}, rng=False).state("model")["w"]
    assert frozen(stored) == frozen(ends["w"].half())


def test_moments_that_would_become_zero_are_refused_before_anything_is_written(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8))
    optimizer = torch.optim.Adam(model.parameters())
    (model(torch.randn(8, 8)).square().mean() * 1e-3).backward()
    optimizer.step()
    for dtype in (torch.float16, torch.float8_e5m2, torch.float8_e4m3fn):
        store = Store(tmp_path / str(dtype))
        words = rf"numbers such as .* as {str(dtype)[6:]} at 'optimizer/state/0/exp_avg.*bfloat16"
        with pytest.raises(UnsupportedValueError, match=words):
            store.save(model, optimizer, dtype={"optimizer": dtype})
        assert not list(tmp_path.iterdir())
    store = Store(tmp_path / "store")
    saved = store.save(model, optimizer, dtype=HALF, rng=False)
    stored = saved.state("optimizer")["state"]
    assert all((each["exp_avg_sq"] != 0).all() for each in stored.values())


def test_what_becomes_zero_in_bfloat16_is_what_kernels_may_take_for_zero(store):
    state = {"w": torch.tensor([1e-42, 1.0])}
    assert torch.finfo(torch.float32).tiny > state["w"][0] > 0
    store.save(state, dtype={"model": torch.bfloat16}, rng=False)
    doubles = {"w": torch.tensor([1e-300, 1.0], dtype=torch.float64)}
    with pytest.raises(UnsupportedValueError, match="1 numbers such as 1e-300 as bfloat16"):
        store.save(doubles, dtype={"model": torch.bfloat16})


def test_infinity_is_refused_where_the_dtype_has_none(store):
    state = {"w": torch.tensor([float("inf"), 1.0])}
    with pytest.raises(UnsupportedValueError, match="infinity as float8_e4m3fn at 'model/w'"):
        store.save(state, dtype={"model": torch.float8_e4m3fn})


def test_a_single_number_stays_exact_whatever_its_shape(store):
    model = nn.Sequential(nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor([0.1]))
    saved = store.save(model, optimizer, dtype=HALF, rng=False)
    assert torch.equal(saved.state("optimizer")["param_groups"][0]["lr"], torch.tensor([0.1]))


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_the_values_of_sparse_tensors_are_stored_so(store, layout):
    module = nn.Module()
    module.register_buffer("t", quietly((torch.eye(4) / 3).to_sparse, layout=layout))
    saved = store.save(module, dtype={"model": torch.bfloat16}, rng=False)
    stored = saved.state("model")["t"]
    other = nn.Module()
    other.register_buffer("t", quietly(torch.eye(4).to_sparse, layout=layout))
    audit = saved.restore(other)

    assert (stored.dtype, stored.layout) == (torch.bfloat16, layout)
    assert audit.converted == {"model": ("bfloat16",)}
    assert other.t.dtype == torch.float32
    assert torch.equal(other.t.to_dense(), (torch.eye(4) / 3).bfloat16().float())


def test_what_others_are_made_of_stays_as_it_is(store):
    weight = quietly(
        torch.quantize_per_channel, torch.randn(4, 3), torch.rand(4), torch.zeros(4), 0, torch.qint8
    )
    saved = store.save({"w": weight}, dtype={"model": torch.bfloat16}, rng=False)
    assert torch.equal(saved.state("model")["w"].int_repr(), weight.int_repr())
    assert torch.equal(saved.state("model")["w"].dequantize(), weight.dequantize())


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ({"optimizer": torch.float8_e8m0fnu}, "negative ones too"),
        ({"optimizer": torch.float4_e2m1fn_x2}, "negative ones too"),
        (torch.bfloat16, "takes a dict that says for which parts"),
        ({"optimiser": torch.bfloat16}, "names part 'optimiser'"),
        ({"optimizer": torch.int8}, "is a dtype of floating numbers"),
        ({"optimizer": "bfloat16"}, "is a dtype of floating numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(store, training, dtype, words):
    with pytest.raises(ArgumentError, match=words):
        training.save(store, dtype=dtype)
