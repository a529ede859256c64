"""Tensors one at a time: the saved bits, and no more bytes than were asked for."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import (
    ArgumentError,
    IntegrityError,
    RetiredError,
    TensorNotFoundError,
    VersionNotFoundError,
)
from tests.loading.counting import count_reads
from tests.loading.forging import forge, packs_of
from tests.loading.trainings import Net, Training, frozen

ROWS = 1000
STATE = {
    "layer.weight": torch.arange(ROWS * 64, dtype=torch.float32).reshape(ROWS, 64),
    "layer.bias": torch.ones(64),
    "small": torch.tensor(7),
}


@pytest.fixture
def store(store_url):
    return Store(store_url)


@pytest.fixture
def saved(store):
    return store.save(STATE, rng=False)


def test_shape_and_dtype_are_known_without_reading(store, saved, monkeypatch):
    reads = count_reads(monkeypatch, store)
    tensors = saved.tensors("model")

    assert list(tensors) == list(STATE)
    assert len(tensors) == 3
    assert "layer.bias" in tensors
    assert "bias" not in tensors
    weight = tensors["layer.weight"]
    assert (weight.shape, weight.dtype, len(weight)) == ((ROWS, 64), torch.float32, ROWS)
    assert repr(weight) == "<LazyTensor layer.weight, float32, [1000, 64]>"
    assert reads.stretches == []


def test_a_tensor_is_read_whole_and_alone(store, saved, monkeypatch):
    reads = count_reads(monkeypatch, store)
    tensors = saved.tensors("model")
    for key, value in STATE.items():
        assert frozen(tensors[key].read()) == frozen(tensors[key][...]) == frozen(value)

    assert reads.data(saved) == 2 * sum(value.nbytes for value in STATE.values())


def test_rows_take_their_own_bytes_and_the_packs_header_once(store, saved, monkeypatch):
    reads = count_reads(monkeypatch, store)
    weight = saved.tensors("model")["layer.weight"]

    assert torch.equal(weight[10:20], STATE["layer.weight"][10:20])
    assert reads.data(saved) == 10 * 64 * 4
    assert torch.equal(weight[-1], STATE["layer.weight"][-1])
    assert torch.equal(weight[3, 5], STATE["layer.weight"][3, 5])
    assert reads.data(saved) == 11 * 64 * 4 + 4
    assert reads.size_bytes - reads.data(saved) == saved.head.packs[0].header_bytes


def test_a_column_is_read_past_small_gaps(store, saved, monkeypatch):
    reads = count_reads(monkeypatch, store)
    column = saved.tensors("model")["layer.weight"][:, 5]

    assert torch.equal(column, STATE["layer.weight"][:, 5])
    assert column.is_contiguous()
    assert len(reads.stretches) == 2  # the header, and all at once


def test_steps_read_past_small_gaps_and_around_others(store, saved, monkeypatch):
    wide = {"w": torch.randn(6, 40_000)}
    other = store.save(wide, run="wide", rng=False)
    weight = other.tensors("model")["w"]
    reads = count_reads(monkeypatch, store)

    assert torch.equal(weight[1::2], wide["w"][1::2])
    assert reads.data(other) == 3 * 160_000
    reads.clear()
    assert torch.equal(weight[::3, ::20_000], wide["w"][::3, ::20_000])
    assert reads.data(other) == 2 * 2 * 4
    reads.clear()
    assert torch.equal(weight[2, ::500], wide["w"][2, ::500])
    assert reads.data(other) == (39_500 + 1) * 4
    reads.clear()
    narrow = saved.tensors("model")["layer.weight"]
    assert torch.equal(narrow[::10, 3:50:7], STATE["layer.weight"][::10, 3:50:7])
    assert len(reads.stretches) == 2  # the header, and all at once


def test_an_empty_slice_reads_nothing(store, saved, monkeypatch):
    reads = count_reads(monkeypatch, store)

    assert saved.tensors("model")["layer.weight"][5:5].shape == (0, 64)
    assert reads.stretches == []


def test_with_verify_a_slice_is_compared_with_the_digest(store, saved, monkeypatch):
    reads = count_reads(monkeypatch, store)
    weight = saved.tensors("model", verify=True)["layer.weight"]

    assert torch.equal(weight[10:20], STATE["layer.weight"][10:20])
    assert reads.data(saved) == STATE["layer.weight"].nbytes


# ------------------------------------------------------------ on a local disk


@pytest.fixture
def local(tmp_path):
    return Store(tmp_path / "store")


def test_an_optimizers_tensors_have_paths(local):
    training = Training()
    training.epoch()
    saved = training.save(local)
    tensors = saved.tensors("optimizer")

    assert "state/0/exp_avg" in tensors
    assert frozen(tensors["state/0/exp_avg"].read()) == frozen(
        training.optimizer.state_dict()["state"][0]["exp_avg"]
    )


def test_what_is_shared_with_another_version_is_read_where_it_lies(local):
    first = local.save(STATE)
    second = local.save({**STATE, "layer.bias": torch.zeros(64)})
    tensors = second.tensors()

    assert {pack.save_id for pack in second.head.packs} > {first.head.save_id}
    assert torch.equal(tensors["layer.weight"][7:9], STATE["layer.weight"][7:9])
    assert torch.equal(tensors["layer.bias"][:3], torch.zeros(3))


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float8_e5m2, torch.complex128],
)
def test_every_dtype_can_be_sliced(local, dtype):
    value = torch.arange(4000).reshape(4, 1000).remainder(2).to(dtype)
    lazy = local.save({"w": value}).tensors()["w"]

    for index in (slice(1, 3), (slice(None), 5), (slice(None), slice(2, 9, 3)), (..., None)):
        assert frozen(lazy[index]) == frozen(value[index])


def test_another_stride_order_makes_no_difference(local):
    value = torch.arange(240.0).reshape(2, 3, 5, 8).to(memory_format=torch.channels_last)
    lazy = local.save({"w": value}).tensors()["w"]

    assert lazy[...].stride() == value.stride()
    assert torch.equal(lazy[1, :, 2], value[1, :, 2])


def test_torchs_functions_take_it_as_it_is(local):
    lazy = local.save(STATE).tensors()["layer.bias"]
    target = torch.zeros(64)

    assert torch.equal(lazy, STATE["layer.bias"])
    assert torch.cat([lazy, lazy]).shape == (128,)
    assert torch.equal(target.copy_(lazy), STATE["layer.bias"])


def test_what_needed_gradients_comes_as_plain_data(local):
    lazy = local.save({"w": torch.ones(4, requires_grad=True)}).tensors()["w"]

    assert not lazy[...].requires_grad
    assert not lazy[:2].requires_grad


def test_a_tensor_made_of_several_is_read_whole(local):
    value = torch.eye(4).to_sparse()
    lazy = local.save({"w": value}).tensors()["w"]

    assert torch.equal(lazy[...].to_dense(), torch.eye(4))
    assert (lazy.shape, lazy.dtype) == ((4, 4), torch.float32)
    with pytest.raises(ArgumentError, match="made of several tensors"):
        lazy[:2]


def test_what_is_not_there_is_a_key_error_that_says_what_is(local):
    saved = local.save(STATE)
    tensors = saved.tensors()

    with pytest.raises(KeyError) as caught:
        tensors["layer.wieght"]
    assert isinstance(caught.value, TensorNotFoundError)
    assert str(caught.value).startswith("part 'model' of default@1 has no tensor 'layer.wieght'; ")
    assert tensors.get("nothing") is None
    with pytest.raises(VersionNotFoundError, match="no part 'ema'"):
        saved.tensors("ema")


def test_damage_is_found_where_it_can_be(local):
    saved = local.save(STATE)
    (pack,) = packs_of(local.url, "default")
    tensors = saved.tensors()
    data = bytearray(pack.read_bytes())
    # The bias comes first: names settle the order.
    data[saved.head.packs[0].header_bytes + STATE["layer.bias"].nbytes + 500 * 64 * 4] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)

    # A slice has no digest of its own: this is what verify= is for.
    assert not torch.equal(tensors["layer.weight"][500], STATE["layer.weight"][500])
    assert torch.equal(tensors["layer.weight"][499], STATE["layer.weight"][499])
    for read in (
        tensors["layer.weight"].read,
        lambda: saved.tensors(verify=True)["layer.weight"][499],
    ):
        with pytest.raises(IntegrityError, match=r"'model/layer\.weight' is damaged"):
            read()


def test_a_pack_that_begins_otherwise_or_is_short_is_found_by_a_slice_too(local):
    saved = local.save(STATE)
    (pack,) = packs_of(local.url, "default")
    data = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match="should have"):
        saved.tensors()["layer.weight"][0]
    pack.write_bytes(b"\0" + data[1:])
    for index in (0, ...):
        with pytest.raises(IntegrityError, match="does not begin as it was saved"):
            saved.tensors()["layer.weight"][index]


def test_what_was_retired_is_not_read(local):
    tensors = local.save(STATE).tensors()
    local.save(STATE)
    local.prune(Keep(last=1), run="default")

    with pytest.raises(RetiredError):
        local.get(1).tensors()
    assert torch.equal(tensors["small"][...], STATE["small"])  # its bytes are there still


def test_what_went_missing_meanwhile_says_that_it_was_retired(local):
    tensors = local.save(STATE).tensors()
    (pack,) = packs_of(local.url, "default")
    local.save({"other": torch.ones(3)})
    local.prune(Keep(last=1), run="default")
    pack.unlink()

    with pytest.raises(RetiredError):
        tensors["small"].read()


def test_a_model_is_filled_from_lazy_tensors(local):
    model, other = Net(4), Net(4)
    tensors = local.save(model).tensors()
    with torch.no_grad():
        for key, value in other.state_dict().items():
            value.copy_(tensors[key])

    assert frozen(other.state_dict()) == frozen(model.state_dict())


# ------------------------------------------------------------ several chunks


def test_slices_run_across_chunks(local):
    whole = torch.arange(48, dtype=torch.int32).reshape(6, 8)
    pieces = {(0, 0): whole[:2], (2, 0): whole[2:, :5], (2, 5): whole[2:, 5:]}
    saved = local.save({str(at): piece.contiguous() for at, piece in pieces.items()})

    def join(_head, parts):
        chunks = [
            {**each["chunks"][0], "offsets": list(at), "shape": each["shape"]}
            for at, each in zip(pieces, parts["model"]["tensors"], strict=True)
        ]
        joined = {"dtype": "int32", "itemsize": 4, "shape": [6, 8], "chunks": chunks}
        parts["model"] |= {"tree": {"w": {"$tensor": 0}}, "tensors": [joined]}

    forge(local.url, "default", join)
    for verify in (False, True):
        lazy = saved.tensors(verify=verify)["w"]
        for index in (..., slice(1, 4), (slice(1, 5), slice(3, 7)), (4, slice(6, None)), (5, 5)):
            assert torch.equal(lazy[index], whole[index]), (verify, index)
