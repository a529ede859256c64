"""A module for a version's weights: the right bits, the right arguments, nothing else disturbed."""

from __future__ import annotations

import functools
import threading

import pytest
import torch
from torch import nn

from ckptstore import Store, remember_init
from ckptstore.errors import (
    ArgumentError,
    DeviceError,
    IntegrityError,
    MismatchError,
    UsageError,
    VersionNotFoundError,
)
from tests.loading.forging import head_of, packs_of
from tests.loading.trainings import Needy, Net, Training, frozen, generators, same


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def training():
    training = Training()
    training.epoch()
    return training


def test_the_weights_come_back_bit_for_bit_in_eval_mode(store, training):
    checkpoint = training.save(store)
    model = checkpoint.load(Net, device="cpu")

    assert type(model) is Net
    assert same(model, training.model)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("build", ["auto", "plain"])
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bits_are_equal_however_it_is_loaded(store, build, mmap, dtype):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 5)).to(dtype)
    model = model.to(memory_format=torch.channels_last)
    loaded = store.save(model).load(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 5)),
        device="cpu",
        mmap=mmap,
        build=build,
    )

    assert same(loaded, model)
    assert loaded[0].weight.dtype == dtype
    assert loaded[0].weight.stride() == model[0].weight.stride()
    assert loaded[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_mapped_and_read_weights_compute_the_same_bits(store, training):
    checkpoint = training.save(store)
    x = torch.randn(5, 4)

    one, other = (checkpoint.load(Net, device="cpu", mmap=mmap)(x) for mmap in (True, False))
    assert torch.equal(one, other)
    assert torch.equal(one, training.model.eval()(x))


@pytest.mark.parametrize("mmap", [True, False])
def test_parameters_that_are_not_tied_share_no_memory(store, mmap):
    loaded = store.save(Net(64)).load(Net, device="cpu", mmap=mmap)
    memory = [tensor.untyped_storage().data_ptr() for tensor in loaded.state_dict().values()]

    assert len(set(memory)) == len(memory)


def test_weights_can_be_trained_on_without_touching_the_store(store, training):
    checkpoint = training.save(store)
    before = [path.read_bytes() for path in packs_of(store.url, "default")]
    model = checkpoint.load(Net, device="cpu")
    model.train()
    model(torch.randn(8, 4)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()

    assert [path.read_bytes() for path in packs_of(store.url, "default")] == before
    assert same(checkpoint.load(Net, device="cpu"), training.model)


def test_loading_moves_no_generator_and_touches_no_other_module(store, training):
    checkpoint = training.save(store)
    other = Net().train()
    other(torch.randn(4, 4)).sum().backward()
    gradients = frozen([parameter.grad for parameter in other.parameters()])
    before, state = generators(), frozen(other.state_dict())
    for options in ({}, {"build": "plain"}, {"mmap": False}):
        checkpoint.load(Net, device="cpu", **options)

    assert generators() == before
    assert frozen(other.state_dict()) == state
    assert frozen([parameter.grad for parameter in other.parameters()]) == gradients
    assert other.training


# ------------------------------------------------------------ constructor arguments


def test_recorded_arguments_are_used(store):
    assert store.save(Net(5)).load(Net, device="cpu").first.out_features == 5


def test_given_arguments_override_recorded_ones(store):
    checkpoint = store.save(Net(5), model_config={"width": 6})

    with pytest.raises(MismatchError, match=r"shape \[6, 4\] in the module, and was saved as"):
        checkpoint.load(Net, device="cpu")
    assert checkpoint.load(Net, device="cpu", model_config={"width": 5}).first.out_features == 5


def test_missing_arguments_are_named_with_what_to_write(store):
    with pytest.warns(UserWarning, match="Needy needs width"):
        checkpoint = store.save(Needy(3))

    with pytest.raises(ArgumentError, match=r"Needy needs width, .* model_config=\{'width': …\}"):
        checkpoint.load(Needy, device="cpu")
    assert same(
        checkpoint.load(Needy, device="cpu", model_config={"width": 3}),
        checkpoint.load(lambda: Needy(3), device="cpu"),
    )


def test_wrong_arguments_show_the_classs_own_error(store):
    checkpoint = store.save(Net(5))

    with pytest.raises(UsageError, match=r"unexpected keyword argument 'depth'.*model_config="):
        checkpoint.load(Net, device="cpu", model_config={"depth": 2})


def build_net(width):
    return Net(width)


def build_any(**arguments):
    return Net(**arguments)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: Net(5),
        functools.partial(Net, 5),
        functools.partial(Net, width=5),
        build_net,
        build_any,
        lambda classes: Net(5, classes),
    ],
    ids=["lambda", "partial", "partial by name", "function", "any keywords", "one of them"],
)
def test_any_callable_that_builds_the_module_will_do(store, factory):
    model = Net(5)

    assert same(store.save(model).load(factory, device="cpu"), model)


def test_a_callable_that_builds_no_module_is_named(store):
    with pytest.raises(UsageError, match="returned dict; it must return a"):
        store.save(Net()).load(dict, device="cpu", model_config={})


@pytest.mark.parametrize("wrong", [Net(), "Net", 3, None])
def test_an_instance_is_no_class(store, wrong):
    checkpoint = store.save(Net())

    with pytest.raises(ArgumentError, match=r"pass the module's class .*checkpoint.restore"):
        checkpoint.load(wrong, device="cpu")


def test_a_slip_in_build_is_refused(store):
    with pytest.raises(ArgumentError, match="say 'auto' or 'plain'"):
        store.save(Net()).load(Net, build="fast")


def test_a_class_of_other_shapes_lists_every_mismatch(store):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 9)
            self.norm = nn.BatchNorm1d(8)
            self.extra = nn.Linear(2, 2)

    checkpoint = store.save(Net(8))
    with pytest.raises(MismatchError) as caught:
        checkpoint.load(Other, device="cpu", model_config={})

    assert len(caught.value.problems) == 6
    for name in ("first.weight", "first.bias", "extra.weight", "extra.bias", "last.weight"):
        assert any(name in problem for problem in caught.value.problems), name
    assert "part 'model' of default@1" in str(caught.value)


# ------------------------------------------------------------ parts


def test_another_part_is_loaded_by_its_name(store):
    model, ema = Net(4), Net(4)
    checkpoint = store.save(model, ema=ema)

    assert same(checkpoint.load(Net, device="cpu", part="ema"), ema)
    assert same(checkpoint.load(Net, device="cpu"), model)


def test_an_averaged_model_keeps_its_own_names(store):
    model = Net(4)
    ema = torch.optim.swa_utils.AveragedModel(model)
    model.first.weight.data.add_(1)
    ema.update_parameters(model)
    checkpoint = store.save(model, ema=ema)
    loaded = checkpoint.load(
        lambda: torch.optim.swa_utils.AveragedModel(Net(4)), device="cpu", part="ema"
    )

    assert same(loaded, ema)
    assert "module.first.weight" in checkpoint.state("ema")
    assert int(loaded.n_averaged) == 1


def test_a_part_that_is_no_module_says_how_to_read_it(store, training):
    checkpoint = training.save(store)

    with pytest.raises(VersionNotFoundError, match=r"no module: .state\('optimizer'\)"):
        checkpoint.load(Net, part="optimizer")
    with pytest.raises(VersionNotFoundError, match=r"no part 'ema'; it has 'model', 'optimizer'"):
        checkpoint.load(Net, part="ema")


def test_an_unknown_part_is_named_before_any_constructor_argument(store):
    class Sized(nn.Linear):
        def __init__(self, size):
            super().__init__(size, size)

    checkpoint = store.save(Sized(3).state_dict())

    with pytest.raises(VersionNotFoundError, match=r"no part 'ema'; it has 'model'"):
        checkpoint.load(Sized, part="ema")


def test_a_state_dict_that_was_saved_is_loaded_into_a_class(store):
    model = Net(5)
    checkpoint = store.save(model.state_dict())

    assert same(checkpoint.load(lambda: Net(5), device="cpu"), model)


# ------------------------------------------------------------ wrappers


def compiled(model):
    return torch.compile(model, backend="eager")


def inside(model):
    outer = nn.Sequential(nn.DataParallel(model))
    outer.add_module("tail", nn.Linear(3, 2))
    return outer


WRAPPERS = {
    "plain": lambda model: model,
    "DataParallel": nn.DataParallel,
    "compile": compiled,
    "both": lambda model: nn.DataParallel(compiled(model)),
    "both, the other way": lambda model: compiled(nn.DataParallel(model)),
}


@pytest.mark.parametrize("saved", WRAPPERS.values(), ids=list(WRAPPERS))
@pytest.mark.parametrize("loaded", WRAPPERS.values(), ids=list(WRAPPERS))
def test_wrappers_are_looked_through_on_both_sides(store, saved, loaded):
    model = Net(4)
    checkpoint = store.save(saved(model))

    assert list(checkpoint.state("model")) == list(model.state_dict())
    built = checkpoint.load(lambda: loaded(Net(4)), device="cpu")
    assert frozen(list(built.state_dict().values())) == frozen(list(model.state_dict().values()))
    target = loaded(Net(4))
    checkpoint.restore(target)
    assert frozen(list(target.state_dict().values())) == frozen(list(model.state_dict().values()))


def test_a_wrapper_deep_inside_leaves_plain_names(store):
    model = Net(4)
    checkpoint = store.save(inside(model))

    names = list(checkpoint.state("model"))
    assert names[0] == "0.first.weight"
    assert not [name for name in names if "module." in name]
    target = inside(Net(4))
    checkpoint.restore(target)
    assert frozen(target[0].module.state_dict()) == frozen(model.state_dict())


def test_a_wrapped_class_is_in_eval_mode_all_the_way(store):
    built = store.save(Net(4)).load(lambda: nn.DataParallel(Net(4)), device="cpu")

    assert isinstance(built, nn.DataParallel)
    assert not any(module.training for module in built.modules())


# ------------------------------------------------------------ devices


def test_a_device_that_is_not_there_names_those_that_are(store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checkpoint = store.save(Net())

    for device in ("cuda", "cuda:3", 0, torch.device("cuda")):
        with pytest.raises(DeviceError, match="is not there; this machine has cpu"):
            checkpoint.load(Net, device=device)
    with pytest.raises(DeviceError, match="is no device: write 'cpu'"):
        checkpoint.load(Net, device="gpu")
    with pytest.raises(DeviceError, match="holds no data"):
        checkpoint.load(Net, device="meta")


def test_no_device_means_the_cpu_where_there_is_no_other(store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert store.save(Net()).load(Net).first.weight.device.type == "cpu"


def test_a_device_error_comes_before_anything_is_read(store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checkpoint = store.save(Net())
    for path in packs_of(store.url, "default"):
        path.unlink()

    with pytest.raises(DeviceError):
        checkpoint.load(Net, device="cuda")
    with pytest.raises(IntegrityError):
        checkpoint.load(Net, device="cpu")


def test_what_a_subclass_did_not_record_is_asked_for(store):
    @remember_init
    class Base(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, 1)

    class Sub(Base):
        def __init__(self, width, depth):
            super().__init__(width)
            self.depth = depth

    with pytest.warns(UserWarning, match="Sub needs width, depth"):
        checkpoint = store.save(Sub(3, 2))
    with pytest.raises(ArgumentError, match="Sub needs width, depth"):
        checkpoint.load(Sub)


# ------------------------------------------------------------ checked, or not


def damaged(store, at=None):
    """Flip a bit; by default in a tensor that is mapped, and checked while the module is built."""
    (path,) = packs_of(store.url, "default")[:1]
    data = bytearray(path.read_bytes())
    data[head_of(store.url, "default").packs[0].header_bytes if at is None else at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("at", [None, -1])
def test_damage_is_found_unless_nobody_is_to_look(store, training, mmap, at):
    checkpoint = store.save(training.model, rng=False)
    damaged(store, at)

    with pytest.raises(IntegrityError, match="is damaged"):
        checkpoint.load(Net, device="cpu", mmap=mmap)
    model = checkpoint.load(Net, device="cpu", mmap=mmap, verify=False)
    assert not same(model, training.model)


@pytest.mark.parametrize("at", [0, 30])
def test_how_a_file_begins_is_always_checked(store, training, at):
    checkpoint = store.save(training.model, rng=False)
    damaged(store, at)

    with pytest.raises(IntegrityError, match="does not begin as it was saved"):
        checkpoint.load(Net, device="cpu", verify=False)


def test_a_files_size_is_always_checked(store, training):
    checkpoint = store.save(training.model, rng=False)
    (path,) = packs_of(store.url, "default")[:1]
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(IntegrityError, match="should have"):
        checkpoint.load(Net, device="cpu", verify=False)


def test_verify_is_yes_or_no(store, training):
    checkpoint = store.save(training.model, rng=False)

    with pytest.raises(ArgumentError, match="verify='lazy': say True or False"):
        checkpoint.load(Net, device="cpu", verify="lazy")


def test_damage_is_told_before_what_does_not_fit(store, training):
    """A version that is damaged can be passed over; one that does not fit can't."""
    checkpoint = store.save(training.model, model_config={}, rng=False)
    damaged(store)

    with pytest.raises(IntegrityError, match="is damaged"):
        checkpoint.load(Net, device="cpu", model_config={"width": 5})


def test_no_loading_code_sees_damaged_bytes(store, training):
    seen = []

    class Looks(Net):
        def load_state_dict(self, state, strict=True, assign=False):  # noqa: FBT002 - torch's
            seen.append(state)
            return super().load_state_dict(state, strict, assign)

    checkpoint = store.save(training.model, rng=False)
    checkpoint.load(Looks, device="cpu")
    assert seen
    damaged(store)
    seen.clear()

    with pytest.raises(IntegrityError, match="is damaged"):
        checkpoint.load(Looks, device="cpu")
    assert seen == []


def test_a_class_that_interrupts_leaves_no_thread(store, training):
    class Interrupts(Net):
        def __init__(self, **arguments):
            raise KeyboardInterrupt(arguments)

    checkpoint, before = store.save(training.model, rng=False), threading.active_count()

    with pytest.raises(KeyboardInterrupt):
        checkpoint.load(Interrupts, device="cpu")
    assert threading.active_count() == before


@pytest.mark.parametrize("verify", [True, False])
def test_unverified_and_verified_loads_give_the_same_bits(store, training, verify):
    checkpoint = store.save(training.model, rng=False)

    assert same(checkpoint.load(Net, device="cpu", verify=verify), training.model)
