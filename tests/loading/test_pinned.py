"""Bytes onto a GPU through pinned buffers, with the CPU in the GPU's place."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import IntegrityError, StorageError
from ckptstore.loading import pinned
from ckptstore.loading.pinned import NOWHERE, Transfer, device_bytes, has_room, onto, takes
from ckptstore.manifest import open_manifest
from ckptstore.storage.local import LocalStorage
from tests.loading.devices import instead_of_a_gpu
from tests.loading.trainings import frozen

STATE = {
    "large": torch.arange(20_000, dtype=torch.float32),  # 20 buffers, the last not full
    "exact": torch.arange(4096, dtype=torch.uint8),
    "small": torch.arange(7, dtype=torch.int64),
    "smaller": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
    "empty": torch.empty(0, 3),
    "turned": torch.randn(3, 4, 5).permute(2, 0, 1),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 300)
        self.tied = nn.Linear(64, 300)
        self.tied.weight = self.first.weight
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))

    def forward(self, x):
        return self.first(x) + self.tied(x)


@pytest.fixture
def device(monkeypatch):
    return instead_of_a_gpu(monkeypatch)


def damage(folder):
    """Change a byte of the last tensor that is there."""
    (pack,) = (path for path in folder.glob("**/*.safetensors") if path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[-70] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)


def test_every_bit_arrives_though_buffers_are_used_again(tmp_path, device):
    Store(tmp_path).save(STATE)

    state = Store(tmp_path).latest().state("model")

    assert frozen(state) == frozen(STATE)
    assert {name: each.stride() for name, each in state.items()} == {
        name: each.stride() for name, each in STATE.items()
    }
    assert len(device.buffers) == 2
    assert device.sent > 20
    assert device.is_idle
    assert not any(thread.name == "ckptstore-fetch" for thread in threading.enumerate())


def test_a_module_takes_what_was_sent(tmp_path, device):
    net = Net()
    Store(tmp_path).save(net)

    built = Store(tmp_path).latest().load(Net, device="cpu")

    assert frozen(built.state_dict()) == frozen(net.state_dict())
    assert built.tied.weight is built.first.weight
    assert device.sent
    assert device.is_idle


def test_ties_that_were_not_saved_are_looked_at_once_all_is_there(tmp_path, device):
    net = Net()
    state = net.state_dict()
    state["tied.weight"] = state["tied.weight"].clone()
    Store(tmp_path).save(state)

    built = Store(tmp_path).latest().load(Net, device="cpu")

    assert torch.equal(built.first.weight, net.first.weight)
    assert device.sent


@pytest.mark.parametrize("what", ["state", "load", "restore", "resume"])
def test_nothing_is_handed_out_or_touched_if_a_byte_is_wrong(tmp_path, device, what):
    Store(tmp_path).save(Net())
    damage(tmp_path)
    store, live = Store(tmp_path), Net()
    before = frozen(live.state_dict())
    with pytest.raises(IntegrityError, match="damaged"):
        {
            "state": lambda: store.latest().state("model"),
            "load": lambda: store.latest().load(Net, device="cpu"),
            "restore": lambda: store.latest().restore(live),
            "resume": lambda: store.resume(live),
        }[what]()
    assert frozen(live.state_dict()) == before
    assert device.sent
    assert device.is_idle
    assert not any(thread.name == "ckptstore-fetch" for thread in threading.enumerate())


def test_a_large_tensor_is_checked_before_it_is_handed_out(tmp_path, device):
    Store(tmp_path).save({"large": STATE["large"]})
    damage(tmp_path)
    with pytest.raises(IntegrityError, match="'model/large' is damaged"):
        Store(tmp_path).latest().state("model")
    assert device.sent == 20
    assert device.is_idle


def test_what_a_cached_copy_has_wrong_is_sent_again(tmp_path, memory_url, device):
    large = {"large": STATE["large"]}
    with Store(memory_url, cache=tmp_path) as store:
        store.save(large)
        store.latest().state("model")
        damage(tmp_path)
        sent = device.sent
        assert frozen(store.latest().state("model")) == frozen(large)
    assert device.sent > sent + 20


def test_a_program_computes_with_what_was_sent(tmp_path, device):
    net, images = Net().eval(), torch.randn(4, 64)
    Store(tmp_path).save(net, program=images)
    program = Store(tmp_path).latest().load_program(device="cpu")
    with torch.no_grad():
        assert torch.equal(program(images), net(images))
    assert device.sent


def test_parameters_that_are_there_get_what_was_sent(tmp_path, device):
    net, live = Net(), Net()
    Store(tmp_path).save(net)
    memory = live.first.weight.data_ptr()

    Store(tmp_path).resume(live)

    assert frozen(live.state_dict()) == frozen(net.state_dict())
    assert live.first.weight.data_ptr() == memory
    assert device.sent


def test_a_device_without_room_gets_it_from_the_host(tmp_path, device):
    net, live = Net(), Net()
    Store(tmp_path).save(net)
    device.free = 4 * sum(each.nbytes for each in [*net.parameters(), *net.buffers()]) - 1

    Store(tmp_path).resume(live)

    assert frozen(live.state_dict()) == frozen(net.state_dict())
    assert not device.sent


def test_what_is_made_of_values_is_read_on_the_host(tmp_path, device):
    import numpy as np

    Store(tmp_path).save({"array": np.arange(5), "plain": torch.ones(3)})
    assert Store(tmp_path).latest().state("model")["array"].tolist() == [0, 1, 2, 3, 4]
    assert not device.sent


def test_it_can_be_used_within_inference_mode(tmp_path, device):
    Store(tmp_path).save(STATE)
    with torch.inference_mode():
        state = Store(tmp_path).latest().state("model")
    assert frozen(state) == frozen(STATE)
    assert device.sent


def test_copies_wait_for_what_the_device_was_given_before_its_memory(device):
    transfer = Transfer(torch.device("cpu"))
    transfer.memory(10)
    assert device.streams[0].after == 1


def test_a_buffer_is_lent_once_it_was_sent(device):
    transfer = Transfer(torch.device("cpu"))
    targets = [transfer.memory(4096) for _ in range(5)]
    for number, target in enumerate(targets):
        with transfer.buffer() as lent:
            lent.memory.fill_(number)
            transfer.send(lent, 0, target)
    assert device.streams[0].done == 3  # the other two are in their buffers
    transfer.finish()
    assert [target.unique().tolist() for target in targets] == [[0], [1], [2], [3], [4]]


def test_only_gpus_are_reached_by_pinned_buffers(tmp_path):
    assert takes(torch.device("cuda", 1))
    assert not takes(torch.device("cpu"))
    Store(tmp_path).save(STATE, run="digits")
    part = open_manifest(LocalStorage(tmp_path), "digits", 1).part("model")
    assert onto(torch.device("cpu"), part) == NOWHERE
    assert len(onto(torch.device("cuda"), part).places) == len(STATE)


def test_what_torch_keeps_is_room_too(monkeypatch, device):
    device.free = 10
    assert has_room(torch.device("cpu"), 10)
    assert not has_room(torch.device("cpu"), 11)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 8)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 7)
    assert has_room(torch.device("cpu"), 11)


def test_no_memory_is_said_so():
    with pytest.raises(StorageError, match="cpu has no memory for a tensor of"):
        device_bytes(2**60, torch.device("cpu"))
    with pytest.raises(StorageError, match="no pinned memory"):
        pinned.pinned_bytes(2**60)
