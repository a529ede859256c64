"""Modules whose tensors are sparse, quantised or subclasses, built from their class."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ckptstore import Store, remember_init
from ckptstore.errors import IntegrityError, MismatchError
from ckptstore.loading.tensors import place
from tests.format.tensors import bits, quietly, torchaos


@remember_init
class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.a = nn.Linear(64, 32, dtype=dtype)
        self.b = nn.Linear(32, 64, dtype=dtype)
        self.tied = self.a

    def forward(self, x):
        return self.tied(torch.relu(self.b(torch.relu(self.a(x)))))


def configs():
    torchaos()
    from torchao import quantization as ao

    return [
        (ao.Int8WeightOnlyConfig(), torch.float32),
        (ao.Int8DynamicActivationInt8WeightConfig(), torch.bfloat16),
        (ao.Float8WeightOnlyConfig(), torch.bfloat16),
        (ao.IntxWeightOnlyConfig(torch.int4), torch.float32),
        (ao.Int8DynamicActivationIntxWeightConfig(), torch.float32),
    ]


CONFIGS = configs()


def quantised(config, dtype):
    from torchao.quantization import quantize_

    net = Net(dtype)
    quietly(quantize_, net, config)
    return net.eval()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://")


def same(one, other):
    """Two modules' state dicts with their kinds and bits."""
    return bits_of(one) == bits_of(other)


def bits_of(module):
    return {name: bits(value) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("build", ["auto", "plain"])
@pytest.mark.parametrize(("config", "dtype"), CONFIGS, ids=lambda each: type(each).__name__)
def test_a_quantised_model_is_loaded_by_its_plain_class(store, config, dtype, build):
    net = quantised(config, dtype)
    samples = torch.randn(3, 64, dtype=dtype)
    predicted = net(samples)
    entry = store.save(net, rng=False)

    loaded = entry.load(Net, build=build, device="cpu")

    assert same(loaded, net)
    assert torch.equal(loaded(samples), predicted)
    assert isinstance(loaded.a.weight, nn.Parameter)
    assert loaded.tied.weight is loaded.a.weight
    assert not loaded.training


def test_a_class_that_quantises_itself_takes_what_was_saved(store):
    config, dtype = CONFIGS[0]
    net = quantised(config, dtype)
    samples = torch.randn(3, 64)
    predicted = net(samples)
    loaded = store.save(net, rng=False).load(lambda: quantised(config, dtype), device="cpu")

    assert same(loaded, net)
    assert torch.equal(loaded(samples), predicted)


def test_a_class_that_quantises_itself_takes_plain_weights_too(store):
    config, dtype = CONFIGS[0]
    net = Net().eval()
    loaded = store.save(net, rng=False).load(lambda: quantised(config, dtype), device="cpu")

    assert same(loaded, net)
    assert loaded.tied.weight is loaded.a.weight


def test_what_is_loaded_can_be_saved_and_packaged_again(store):
    net = quantised(*CONFIGS[1])
    entry = store.save(net, rng=False)
    again = store.save(entry.load(Net, device="cpu"), rng=False)
    package = store.save_package(entry)

    assert same(again.load(Net, device="cpu"), net)
    assert same(package.load(Net, device="cpu"), net)
    assert again.new_bytes == 0


class Sparse(nn.Module):
    """Sparse as a parameter, as a buffer, twice by one object, and beside what is dense."""

    def __init__(self, *, empty=True):
        super().__init__()
        matrix = torch.zeros(3, 4) if empty else torch.arange(12.0).view(3, 4).fmod(3)
        square = torch.zeros(4, 4) if empty else torch.eye(4)
        self.csr = nn.Parameter(quietly(matrix.to_sparse_csr))
        self.coo = nn.Parameter(matrix.to_sparse(), requires_grad=False)
        self.again = self.coo
        self.register_buffer("bsr", quietly(square.to_sparse_bsr, (2, 2)))
        self.register_buffer("bsc", quietly(square.bool().to_sparse_bsc, (2, 2)))
        self.register_buffer("csc", quietly(square.to(torch.complex64).to_sparse_csc))
        self.bias = nn.Parameter(matrix[:, 0].clone())

    def forward(self, x):
        return self.csr @ x + self.coo @ x + self.bias[:, None]


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("csr", "coo"):
            setattr(self, name, nn.Parameter(torch.randn(3, 4)))
        self.again = self.coo
        for name in ("bsr", "bsc", "csc"):
            self.register_buffer(name, torch.randn(4, 4))
        self.bias = nn.Parameter(torch.randn(3))


@pytest.mark.parametrize("build", ["auto", "plain"])
@pytest.mark.parametrize("factory", [Sparse, Dense])
def test_sparse_tensors_come_back_whatever_the_class_has_there(store, factory, build):
    net = Sparse(empty=False)
    loaded = store.save(net, rng=False).load(factory, build=build, device="cpu")

    assert same(loaded, net)
    assert loaded.again is loaded.coo
    assert loaded.csr.requires_grad
    assert loaded.coo.requires_grad is (factory is Dense)
    assert isinstance(loaded.csr, nn.Parameter)
    assert not isinstance(loaded.bsr, nn.Parameter)
    x = torch.randn(4, 2)
    assert torch.equal(Sparse.forward(loaded, x), net(x))


def test_another_shape_is_a_mismatch_whatever_the_layout(store):
    entry = store.save({"coo": torch.zeros(3, 5).to_sparse()}, rng=False)

    class Wider(nn.Module):
        def __init__(self):
            super().__init__()
            self.coo = nn.Parameter(torch.zeros(3, 4))

    with pytest.raises(MismatchError, match=r"'coo' is shape \[3, 4\] in the module"):
        entry.load(Wider, device="cpu")


def test_tensors_that_are_tied_in_the_file_alone_are_two(store):
    sparse = torch.eye(3).to_sparse()
    entry = store.save({"a": sparse, "b": sparse}, rng=False)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(3, 3).to_sparse())
            self.b = nn.Parameter(torch.zeros(3, 3).to_sparse())

    loaded = entry.load(Two, device="cpu")
    assert place(loaded.a) != place(loaded.b)
    assert bits(loaded.a) == bits(loaded.b)


def test_parameters_made_of_one_stay_tied_in_the_plain_class(store):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(16, 32))
            self.b = nn.Parameter(self.a)

    for tensor in (torchaos()[0], quietly(torch.eye(16, 32).to_sparse_csr)):
        entry = store.save({"a": tensor, "b": tensor.clone()}, rng=False)
        loaded = entry.load(Tied, device="cpu")
        assert place(loaded.a) == place(loaded.b)
        assert bits(loaded.a.detach()) == bits(tensor.detach())


class Looking(nn.Module):
    """Holds what its sparse parameter is made of beside it."""

    def __init__(self):
        super().__init__()
        places = torch.tensor([[0, 1], [1, 2]])
        sparse = torch.sparse_coo_tensor(places, torch.zeros(2), (3, 4), check_invariants=True)
        self.w = nn.Parameter(sparse)
        self.where = sparse._indices()
        self.what = sparse._values()


def test_what_looks_at_the_memory_sees_what_was_saved(store):
    net = Looking()
    with torch.no_grad():
        net.what.add_(3)
        net.where.copy_(torch.tensor([[1, 2], [0, 0]]))
    loaded = store.save(net, rng=False).load(Looking, device="cpu")

    assert bits(loaded.w) == bits(net.w)
    assert loaded.what.tolist() == [3, 3]
    assert loaded.where.tolist() == [[1, 2], [0, 0]]


class OwnLoading(Sparse):
    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)


def test_a_class_with_loading_code_of_its_own_keeps_ties(store):
    net = OwnLoading(empty=False)
    loaded = store.save(net, rng=False).load(OwnLoading, device="cpu")

    assert same(loaded, net)
    assert loaded.again is loaded.coo


class Extra(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.state = None

    def get_extra_state(self):
        return {"graph": [quietly(torch.eye(3).to_sparse_csr), torchaos()[0]]}

    def set_extra_state(self, state):
        self.state = state


def test_extra_state_holds_them_too(store):
    net = Extra()
    loaded = store.save(net, rng=False).load(Extra, device="cpu")

    assert [bits(each) for each in loaded.state["graph"]] == [
        bits(each) for each in net.get_extra_state()["graph"]
    ]


def test_a_load_in_inference_mode_gives_tensors_that_can_be_trained(store):
    entry = store.save(Sparse(empty=False), rng=False)
    with torch.inference_mode():
        loaded = entry.load(Sparse, device="cpu")
    assert not any(part.is_inference() for part in loaded.parameters())
    loaded.coo.requires_grad_()
    (loaded.coo @ torch.ones(4, 1)).sum().backward()


class Rounding(Sparse):
    """Writes to its weights when it is moved."""

    def _apply(self, fn, **options):
        with torch.no_grad():
            self.coo.detach()._values().add_(1)
        return super()._apply(fn, **options)


def test_a_write_on_the_way_is_noticed(store):
    entry = store.save(Sparse(empty=False), rng=False)
    with pytest.raises(IntegrityError, match="'coo' is not what was saved"):
        entry.load(Rounding, device="cpu")


def test_a_module_is_not_changed_by_being_saved(store):
    nets = [Sparse(empty=False), quantised(*CONFIGS[0])]
    before = [(copy.copy(dict(net.named_parameters())), bits_of(net)) for net in nets]
    store.save(model=nets[0], other=nets[1], rng=False)

    for net, (parameters, values) in zip(nets, before, strict=True):
        assert all(each is parameters[name] for name, each in net.named_parameters())
        assert bits_of(net) == values
