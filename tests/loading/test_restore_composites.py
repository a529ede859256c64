"""Modules and optimizers whose tensors are sparse, quantised or subclasses, restored in place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import MismatchError
from ckptstore.loading.tensors import place
from ckptstore.loading.undo import Before
from tests.format.tensors import bits, quietly, torchaos
from tests.loading.test_build_composites import CONFIGS, Net, Sparse, bits_of, quantised, same


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://")


def identities(module):
    return {name: id(each) for name, each in module.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize(("config", "dtype"), CONFIGS, ids=lambda each: type(each).__name__)
def test_a_quantised_model_is_restored_in_place(store, config, dtype):
    net, other = quantised(config, dtype), quantised(config, dtype)
    samples = torch.randn(3, 64, dtype=dtype)
    entry = store.save(net, rng=False)
    objects, data = identities(other), other.a.weight.qdata
    assert not same(other, net)

    entry.restore(other)

    assert same(other, net)
    assert torch.equal(other(samples), net(samples))
    assert identities(other) == objects
    assert other.a.weight.qdata is data


def test_sparse_tensors_are_restored_in_place_whatever_their_number(store):
    net, other = Sparse(empty=False), Sparse()
    entry, objects = store.save(net, rng=False), identities(other)

    entry.restore(other)

    assert same(other, net)
    assert identities(other) == objects
    assert other.csr.requires_grad
    assert not other.coo.requires_grad


def test_parameters_made_of_one_sparse_tensor_stay_tied(store):
    class Tied(nn.Module):
        def __init__(self, matrix):
            super().__init__()
            self.a = nn.Parameter(matrix)
            self.b = nn.Parameter(self.a)

    for convert in (torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr):
        net, other = (Tied(quietly(convert, each)) for each in (torch.eye(3), torch.ones(3, 3)))
        entry = store.save(net, rng=False, model_config={})
        entry.restore(other)

        assert same(other, net)
        assert place(other.a) == place(other.b) != place(net.a)


@pytest.mark.parametrize("change", ["layout", "class", "plain", "settings", "scheme"])
def test_another_kind_is_listed_and_nothing_is_changed(store, change):
    int8, per_row = torchaos()[0], torchaos()[2]
    kinds = {
        "layout": (torch.eye(3).to_sparse(), quietly(torch.eye(3).to_sparse_csr)),
        "class": (int8, torchaos()[4]),
        "plain": (int8, torch.zeros(16, 32)),
        "settings": (int8, per_row.to(torch.float32)),
        "scheme": tuple(
            quietly(torch.quantize_per_tensor, torch.ones(2), 0.1, 0, dtype)
            for dtype in (torch.qint8, torch.quint8)
        ),
    }
    saved, mine = kinds[change]
    net, other = nn.Module(), nn.Module()
    net.register_buffer("w", saved)
    other.register_buffer("w", mine.clone())
    first = Net()
    before = bits_of(other), bits_of(first)
    entry = store.save(net, first=Net(), rng=False)

    with pytest.raises(MismatchError, match=r"model: 'w' is .* and was saved as") as raised:
        entry.restore(model=other, first=first)

    assert len(raised.value.problems) == 1
    assert (bits_of(other), bits_of(first)) == before


def test_a_scale_is_restored_with_a_quantised_buffer(store):
    net, other = nn.Module(), nn.Module()
    for module, scale in ((net, 0.1), (other, 0.7)):
        values = quietly(torch.quantize_per_tensor, torch.ones(2), scale, 0, torch.qint8)
        module.register_buffer("q", values)
    mine = other.q
    store.save(net, rng=False).restore(other)

    assert other.q is mine
    assert bits(other.q) == bits(net.q)


def test_integers_of_four_bits_are_restored(store):
    net, other = nn.Module(), nn.Module()
    for module, value in ((net, 5), (other, 2)):
        module.register_buffer("q", torch.full((3,), value, dtype=torch.uint8).view(torch.uint4))
    store.save(net, rng=False).restore(other)

    assert bits(other.q) == bits(net.q)
    assert bits(store.latest().load(lambda: other, device="cpu").q) == bits(net.q)


class Refusing(nn.Module):
    """Takes its own state, spoils what it has, and then fails."""

    def __init__(self, *, empty):
        super().__init__()
        self.net = Sparse(empty=empty)
        self.q = quantised(*CONFIGS[0])
        values = quietly(torch.quantize_per_tensor, torch.ones(2), 0.1, 0, torch.qint8)
        self.register_buffer("levels", values)
        self.fails = False

    def _load_from_state_dict(self, state, prefix, *args):
        super()._load_from_state_dict(state, prefix, *args)
        if self.fails:
            raise RuntimeError("no")


def test_a_module_that_refuses_its_state_is_as_it_was(store):
    net, other = Refusing(empty=False), Refusing(empty=True)
    levels = quietly(torch.quantize_per_tensor, torch.ones(2), 0.9, 1, torch.qint8)
    net.levels = levels
    # Its children load before it does in no case; so it is the last that fails.
    last = nn.Sequential(net.net, net.q, net)
    entry = store.save(last, rng=False)
    mine = nn.Sequential(other.net, other.q, other)
    other.fails = True
    before, objects = bits_of(mine), identities(mine)

    with pytest.raises(MismatchError, match="no"):
        entry.restore(mine)

    assert bits_of(mine) == before
    assert identities(mine) == objects
    other.fails = False
    entry.restore(mine)
    assert bits_of(mine) == bits_of(last)


def test_whatever_was_changed_in_them_is_as_it_was():
    module = nn.Module()
    module.sparse, module.q = Sparse(empty=False), quantised(*CONFIGS[1])
    values = quietly(torch.quantize_per_tensor, torch.ones(2), 0.1, 0, torch.qint8)
    module.register_buffer("levels", values)
    values_before, objects = bits_of(module), identities(module)
    before = Before(module)

    with torch.no_grad():
        module.sparse.coo.detach()._values().add_(1)
        module.sparse.csr.requires_grad_(False)  # noqa: FBT003 - as torch has it
        module.sparse.csr.resize_as_sparse_(quietly(torch.zeros(3, 4).to_sparse_csr))
        module.sparse.csr.requires_grad_()
        module.sparse.bsr.values().add_(1)
        module.q.a.weight.qdata.add_(1)
        module.q.b.weight.scale = torch.zeros(1)
        others = quietly(torch.quantize_per_tensor, torch.zeros(2), 0.5, 1, torch.qint8)
        module.levels.copy_(others)
        module.sparse.coo.data = torch.zeros(3, 4).to_sparse()
    assert bits_of(module) != values_before
    before.put_back()

    assert bits_of(module) == values_before
    assert identities(module) == objects


def train(optimizer_class, store, *, steps, cut=None, resume=False):
    torch.manual_seed(0)
    net = nn.Linear(256, 32)  # torchao takes none with less than 4096 elements
    optimizer = optimizer_class(net.parameters(), lr=1e-2, block_size=64)
    start = store.resume(model=net, optimizer=optimizer).step if resume else 0
    losses = []
    for step in range(start, steps):
        x = torch.randn(4, 256, generator=torch.Generator().manual_seed(step))
        loss = net(x).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step + 1 == cut:
            store.save(net, optimizer=optimizer, step=step + 1, model_config={})
    return net, optimizer, losses[-2:]


@pytest.mark.parametrize("name", ["AdamW8bit", "AdamW4bit", "AdamWFp8"])
def test_an_optimizer_of_few_bits_goes_on_as_if_it_had_not_stopped(store, name, monkeypatch):
    from torchao import optim

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # takes half a minute
    kind = getattr(optim, name)
    whole, moments, losses = train(kind, store, steps=5, cut=3)
    net, again, losses_again = train(kind, store, steps=5, resume=True)

    assert same(net, whole)
    assert losses_again == losses
    for mine, other in zip(again.state.values(), moments.state.values(), strict=True):
        assert {key: bits(value) for key, value in mine.items()} == {
            key: bits(value) for key, value in other.items()
        }
    assert type(again.state[net.weight]["exp_avg"]).__name__.startswith("OptimState")


def test_an_optimizer_goes_on_with_a_quantised_model(store):
    net = quantised(*CONFIGS[0])
    optimizer = torch.optim.SGD(
        [each for each in net.parameters() if each.requires_grad], lr=0.1, momentum=0.9
    )
    net(torch.randn(3, 64)).sum().backward()
    optimizer.step()
    entry = store.save(net, optimizer=optimizer, rng=False)
    other = quantised(*CONFIGS[0])
    again = torch.optim.SGD(
        [each for each in other.parameters() if each.requires_grad], lr=0.1, momentum=0.9
    )
    entry.restore(model=other, optimizer=again)

    assert same(other, net)
    assert again.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


class Holding:
    """Any object with a state dict, here with every kind of tensor in it."""

    def __init__(self, tensors=()):
        self.tensors = list(tensors)

    def state_dict(self):
        return {"seen": {3: (self.tensors,)}}

    def load_state_dict(self, state):
        ((self.tensors,),) = state["seen"].values()


def test_any_object_gets_them_back(store):
    sparse = Sparse(empty=False)
    tensors = [*sparse.parameters(), *sparse.buffers(), *torchaos()]
    entry = store.save(Net(), tracker=Holding(tensors), rng=False)
    tracker = Holding()
    entry.restore(tracker=tracker)

    assert [bits(each) for each in tracker.tensors] == [bits(each) for each in tensors]
    assert bits_list(entry.state("tracker")["seen"][3][0]) == bits_list(tensors)


def bits_list(tensors):
    return [bits(each) for each in tensors]
