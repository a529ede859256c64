"""Wrappers are taken off by type, at any depth, and never by their string."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckptstore import Store
from ckptstore.errors import MismatchError, UnsupportedValueError
from ckptstore.state.modules import (
    class_name,
    inner_name,
    plain_names,
    plain_state,
    raw_state,
    unassigned,
    unkept_buffers,
    unwrap,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 2)  # a name wrappers use too
        self.bn = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.bn(self.module(x))


KEYS = list(Net().state_dict())


def check(wrapped, plain_keys=KEYS):
    state = plain_state(wrapped)
    assert list(state) == plain_keys
    for (_, own), (_, value) in zip(wrapped.state_dict().items(), state.items(), strict=True):
        assert own.data_ptr() == value.data_ptr()
    back = raw_state(wrapped, state, state._metadata)
    assert list(back) == list(wrapped.state_dict())
    wrapped.load_state_dict(back)
    return state


def test_a_plain_module_is_itself():
    net = Net()
    assert unwrap(net) is net
    assert inner_name(net) is None
    assert check(net)._metadata == net.state_dict()._metadata


def test_data_parallel_is_taken_off():
    net = Net()
    wrapped = nn.DataParallel(net)
    assert unwrap(wrapped) is net
    assert class_name(wrapped).endswith(".Net")
    assert check(wrapped)._metadata == net.state_dict()._metadata


def test_at_any_depth():
    inside = nn.DataParallel(Net())
    outside = nn.DataParallel(nn.Sequential(nn.DataParallel(inside), nn.Linear(1, 1)))
    state = check(outside, [*(f"0.{key}" for key in KEYS), "1.weight", "1.bias"])
    plain = nn.Sequential(Net(), nn.Linear(1, 1)).state_dict()
    assert state.keys() == plain.keys()
    assert state._metadata == plain._metadata


def test_the_same_wrapper_in_two_places():
    shared = nn.DataParallel(nn.Linear(2, 2))
    check(nn.ModuleDict({"a": shared, "b": shared}), ["a.weight", "a.bias", "b.weight", "b.bias"])


def test_modules_that_only_look_like_wrappers_keep_their_names():
    class Lookalike(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(1, 1)
            self._orig_mod = nn.Linear(1, 1)

    check(Lookalike(), ["module.weight", "module.bias", "_orig_mod.weight", "_orig_mod.bias"])


def test_an_averaged_model_keeps_its_own_names(tmp_path):
    net = Net()
    ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    keys = ["n_averaged", *(f"module.{key}" for key in KEYS)]
    check(ema, keys)
    check(AveragedModel(nn.DataParallel(net)), keys)
    check(nn.DataParallel(ema), keys)
    saved = Store(tmp_path).save(net, ema=ema)
    assert list(saved.state("ema")) == keys


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_is_taken_off():
    net = Net()
    compiled = torch.compile(net)
    assert unwrap(compiled) is net
    check(compiled)
    check(nn.DataParallel(compiled))
    check(nn.Sequential(compiled), [f"0.{key}" for key in KEYS])
    in_place = Net()
    in_place.compile()
    check(in_place)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_ddp_is_taken_off_and_saved_by_plain_names(tmp_path):
    net = Net()
    wrapped = DistributedDataParallel(net)
    assert unwrap(wrapped) is net
    check(wrapped)
    optimizer = torch.optim.SGD(wrapped.parameters(), momentum=0.9)
    wrapped(torch.randn(3, 2)).sum().backward()
    optimizer.step()
    saved = Store(tmp_path / "store").save(wrapped, optimizer)
    other = Net()
    saved.restore(other, torch.optim.SGD(other.parameters()))
    assert all(map(torch.equal, other.state_dict().values(), net.state_dict().values()))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_wrappers_that_recompute_activations_are_taken_off(number):
    block = net = Net()
    for _ in range(number):
        block = checkpoint_wrapper(block)
    state = check(nn.Sequential(block), [f"0.{key}" for key in KEYS])

    assert unwrap(block) is net
    assert state._metadata == nn.Sequential(net).state_dict()._metadata


@pytest.mark.parametrize("outer", [checkpoint_wrapper, nn.DataParallel])
@pytest.mark.parametrize("inner", [checkpoint_wrapper, nn.DataParallel])
def test_names_that_a_state_dict_spells_otherwise_than_its_modules_are_found(outer, inner):
    wrapped = nn.Sequential(outer(inner(nn.Sequential(inner(nn.Linear(2, 2)), nn.Linear(1, 1)))))
    plain = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(1, 1)))
    keys = list(plain.state_dict())

    check(wrapped, keys)
    names = plain_names(wrapped)
    assert [names(name) for name, _ in wrapped.named_parameters()] == keys
    assert [names.saved(key) for key in keys] == list(wrapped.state_dict())
    assert {names(name) for name, _ in wrapped.named_modules()} == {
        name for name, _ in plain.named_modules()
    }


def test_what_a_wrapped_module_leaves_out_of_its_state_dict_and_was_saved_is_found(tmp_path):
    class Leaving(nn.Linear):
        def _save_to_state_dict(self, *args):
            super()._save_to_state_dict(*args)
            del args[0][f"{args[1]}bias"]

    saved = Store(tmp_path).save(nn.Sequential(nn.Linear(2, 2)))
    target = nn.Sequential(nn.DataParallel(Leaving(2, 2)))
    saved.restore(target)

    assert torch.equal(target[0].module.bias, saved.state("model")["0.bias"])


def test_a_wrapped_modules_version_is_found(tmp_path):
    class Versioned(nn.Linear):
        _version = 7
        loaded = None

        def _load_from_state_dict(self, *args):
            self.loaded = args[2].get("version")
            super()._load_from_state_dict(*args)

    saved = Store(tmp_path).save(nn.Sequential(checkpoint_wrapper(Versioned(2, 2))))
    target = nn.Sequential(nn.DataParallel(Versioned(2, 2)))
    saved.restore(target)

    assert target[0].module.loaded == 7


def test_a_parametrized_module_is_called_by_its_own_class():
    net = Net()
    net.scale = nn.Parameter(torch.ones(1))
    parametrize.register_parametrization(net, "scale", nn.Identity())

    assert type(net).__name__ == "ParametrizedNet"
    assert class_name(net) == f"{__name__}.Net"


@pytest.mark.usefixtures("process_group")
def test_sharded_modules_and_optimizers_are_refused_with_the_way_out(tmp_path):
    net = Net()
    saved = Store(tmp_path / "store").save(net)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    sharded = fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(sharded.parameters())
    sharded(torch.randn(3, 2)).sum().backward()
    optimizer.step()
    store = Store(tmp_path / "other")

    with pytest.raises(UnsupportedValueError, match=r"sharded .* at 'model/module.weight': gather"):
        store.save(sharded)
    with pytest.raises(UnsupportedValueError, match=r"sharded .* at 'optimizer/state/0/exp_avg'"):
        store.save(optimizer=optimizer)
    with pytest.raises(
        MismatchError, match=r"'module.weight' is sharded .* as are 3 more: restore"
    ):
        saved.restore(sharded)
    gathered = {key: value.to_local() for key, value in sharded.named_parameters()}
    assert not torch.equal(gathered["module.weight"], state["module.weight"])  # left as it was
    assert not (tmp_path / "other").exists()


def test_nobody_is_told_to_record_what_an_average_is_built_around(tmp_path):
    ema = AveragedModel(nn.DataParallel(Net()))
    Store(tmp_path).save(ema=nn.DataParallel(ema))  # a warning fails the test


def test_wrapped_and_plain_load_into_each_other(tmp_path):
    store = Store(tmp_path)
    net = Net()
    saved = store.save(nn.DataParallel(net))
    for target in (Net(), nn.DataParallel(Net()), nn.DataParallel(nn.DataParallel(Net()))):
        saved.restore(target)
        assert all(map(torch.equal, target.state_dict().values(), net.state_dict().values()))
    assert all(map(torch.equal, saved.load(Net).state_dict().values(), net.state_dict().values()))


def test_the_mark_that_assigning_leaves_is_not_saved(tmp_path):
    net = Net()
    state = net.state_dict()
    net.load_state_dict(state, assign=True)
    assert "assign_to_params_buffers" in str(state._metadata)

    back = Store(tmp_path).save(state).state("model")

    assert back._metadata == Net().state_dict()._metadata
    assert "assign_to_params_buffers" in str(state._metadata)  # left as found
    assert unassigned({"a": 1}) == {"a": 1}


def test_buffers_that_are_not_persistent_are_named_and_said_not_to_be_kept(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer("mask", torch.zeros(2), persistent=False)
            self.register_buffer("none", None, persistent=False)
            self.register_buffer("kept", torch.zeros(2))

    model, other = nn.DataParallel(nn.ModuleList([Masked(), nn.Linear(1, 1)])), nn.Linear(1, 1)
    saved = Store(tmp_path).save(model, model_config={})
    audit = saved.restore(model)

    assert unkept_buffers({"model": model, "other": other, "no module": 3}) == {
        "model": ("0.mask",)
    }
    assert audit.not_kept == {"model": ("0.mask",)}
    assert "model, not kept: buffers that are not persistent: 0.mask" in str(audit).splitlines()


def test_names_without_wrappers_are_untouched():
    names = plain_names(nn.Sequential(nn.DataParallel(nn.Linear(1, 1))))
    assert names("0.module.weight") == "0.weight"
    assert names("0.modulex.weight") == "0.modulex.weight"
    assert names("1.module.weight") == "1.module.weight"
    assert names("") == ""
