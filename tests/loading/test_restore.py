"""State back into live objects: in place, as it was saved, and all of it or nothing."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from ckptstore import Store
from ckptstore.errors import (
    ArgumentError,
    IntegrityError,
    MismatchError,
    StateWarning,
    UnsupportedValueError,
    VersionNotFoundError,
)
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import packs_of
from tests.loading.storages import Watched, store_on
from tests.loading.trainings import Net, Training, everything, frozen, generators, same


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def trained():
    training = Training()
    training.epoch()
    return training


def stepped(model, optimizer):
    """Give an optimizer state."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


# ------------------------------------------------------------ in place


def test_modules_keep_their_objects_memory_mode_and_gradients(store, trained):
    checkpoint = trained.save(store)
    other = Training(seed=1)
    other.epoch()
    other.model.eval()
    objects = list(other.model.state_dict(keep_vars=True).values())
    places = [tensor.data_ptr() for tensor in objects]
    gradients = [parameter.grad for parameter in other.model.parameters()]
    grads = frozen(gradients)
    checkpoint.restore(**other.parts())

    after = list(other.model.state_dict(keep_vars=True).values())
    assert all(one is two for one, two in zip(objects, after, strict=True))
    assert [tensor.data_ptr() for tensor in after] == places
    assert same(other.model, trained.model)
    assert not other.model.training
    assert [parameter.grad for parameter in other.model.parameters()] == gradients
    assert frozen(gradients) == grads
    assert list(other.optimizer.state) == list(other.model.parameters())


def test_everything_comes_back_bit_for_bit(store, trained):
    checkpoint = trained.save(store)
    saved = everything(trained)
    other = Training(seed=1)
    other.epoch()
    audit = checkpoint.restore(**other.parts(), rng=True)

    assert everything(other) == saved
    assert audit.restored == ("model", "optimizer", "scheduler", "rng")
    assert audit.not_asked_for == ()


def test_restore_leaves_the_generators_unless_asked(store, trained):
    checkpoint = trained.save(store)
    other = Training(seed=1)
    before = generators()
    audit = checkpoint.restore(**other.parts())

    assert generators() == before
    assert "rng" not in audit.restored
    checkpoint.restore(**other.parts(), rng=True)
    assert generators() != before


def test_generators_that_were_not_saved_cannot_be_asked_for(store):
    checkpoint = store.save(Net(), rng=False)
    model = Net()
    before = frozen(model.state_dict())

    with pytest.raises(VersionNotFoundError, match="no part 'rng'"):
        checkpoint.restore(model, rng=True)
    assert frozen(model.state_dict()) == before


def test_the_model_alone_can_be_restored(store, trained):
    checkpoint = trained.save(store)
    model = Net()
    audit = checkpoint.restore(model)

    assert same(model, trained.model)
    assert audit.not_asked_for == ("optimizer", "scheduler")


def test_hyperparameters_that_the_checkpoint_replaced_are_told(store, trained):
    checkpoint = trained.save(store)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, betas=(0.5, 0.9))
    audit = checkpoint.restore(model, optimizer)

    assert [(entry.name, entry.script) for entry in audit.overridden] == [
        ("optimizer/param_groups/0/lr", 0.5),
        ("optimizer/param_groups/0/betas", (0.5, 0.9)),
    ]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_learning_rate_may_be_a_tensor(store):
    model = Net()
    optimizer = stepped(model, torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.25)))
    checkpoint = store.save(model, optimizer)
    other = torch.optim.AdamW(model.parameters(), lr=0.25)
    audit = checkpoint.restore(model, other)

    assert torch.equal(other.param_groups[0]["lr"], torch.tensor(0.25))
    assert audit.overridden == ()


# ------------------------------------------------------------ optimizers


def test_moments_keep_their_saved_dtype(store):
    model = Net().to(torch.bfloat16)
    optimizer = stepped(model, torch.optim.AdamW(model.parameters()))
    for state in optimizer.state.values():
        state["exp_avg"] = torch.rand_like(state["exp_avg"], dtype=torch.float32)
    saved = frozen(optimizer.state_dict())
    checkpoint = store.save(model, optimizer)
    other = torch.optim.AdamW(model.parameters())
    checkpoint.restore(model, other)

    assert frozen(other.state_dict()) == saved
    assert other.state[model.first.weight]["exp_avg"].dtype == torch.float32
    assert other.state[model.first.weight]["exp_avg_sq"].dtype == torch.bfloat16


@pytest.mark.parametrize("fused", [False, True])
def test_the_step_is_a_scalar_on_the_cpu(store, fused):
    model = Net()
    optimizer = stepped(model, torch.optim.AdamW(model.parameters(), fused=fused))
    checkpoint = store.save(model, optimizer)
    other = torch.optim.AdamW(model.parameters(), fused=fused)
    checkpoint.restore(model, other)
    step = other.state[model.first.weight]["step"]

    assert (step.shape, step.device.type, step.dtype) == ((), "cpu", torch.float32)
    assert float(step) == 1.0
    stepped(model, other)


def test_another_order_is_remapped_by_name(store, trained):
    checkpoint = trained.save(store)
    model = Net()
    optimizer = torch.optim.AdamW(list(model.parameters())[::-1])
    checkpoint.restore(model, optimizer)

    mine, saved = dict(model.named_parameters()), dict(trained.model.named_parameters())
    for name in saved:
        assert frozen(optimizer.state[mine[name]]) == frozen(trained.optimizer.state[saved[name]])


def test_another_order_in_several_groups_is_remapped(store):
    def optimizer_of(model, *, turned):
        first, rest = (
            list(model.first.parameters()),
            [
                parameter
                for name, parameter in model.named_parameters()
                if not name.startswith("first")
            ],
        )
        if turned:
            first, rest = first[::-1], rest[::-1]
        return torch.optim.SGD(
            [{"params": first, "lr": 0.1}, {"params": rest, "lr": 0.2}], momentum=0.9
        )

    model, other = Net(), Net()
    optimizer = stepped(model, optimizer_of(model, turned=False))
    for index, state in enumerate(optimizer.state.values()):
        state["momentum_buffer"].add_(index)
    checkpoint = store.save(model, optimizer)
    turned = optimizer_of(other, turned=True)
    checkpoint.restore(other, turned)

    mine, saved = dict(other.named_parameters()), dict(model.named_parameters())
    for name in saved:
        assert frozen(turned.state[mine[name]]) == frozen(optimizer.state[saved[name]])
    assert [group["lr"] for group in turned.param_groups] == [0.1, 0.2]


def test_an_optimizer_of_named_parameters_is_matched_by_them(store):
    model = Net()
    optimizer = stepped(model, torch.optim.AdamW(list(model.named_parameters())))
    for index, state in enumerate(optimizer.state.values()):
        state["exp_avg"].add_(index)
    checkpoint = store.save(None, optimizer)  # no model tells the names
    other = Net()
    turned = torch.optim.AdamW(list(other.named_parameters())[::-1])
    checkpoint.restore(None, turned)

    mine, saved = dict(other.named_parameters()), dict(model.named_parameters())
    for name in saved:
        assert frozen(turned.state[mine[name]]) == frozen(optimizer.state[saved[name]])
    assert turned.state_dict()["param_groups"][0]["param_names"] == list(mine)[::-1]


def named(model, *, turned=False):
    return torch.optim.AdamW(list(model.named_parameters())[:: -1 if turned else 1])


def unnamed(model, *, turned=False):
    return torch.optim.AdamW(list(model.parameters())[:: -1 if turned else 1])


@pytest.mark.parametrize("part", ["model", "state_dict", "none"])
@pytest.mark.parametrize("way", ["together", "in two calls", "alone", "resumed alone", "resumed"])
@pytest.mark.parametrize("make", [named, unnamed], ids=["named", "unnamed"])
@pytest.mark.parametrize("order", ["the same order", "turned"])
@pytest.mark.filterwarnings("ignore:resumed .* without 'model'")
def test_names_given_to_an_optimizer_and_those_of_a_module_are_brought_together(
    store, part, way, make, order
):
    model, other = Net(), Net()
    optimizer = stepped(model, named(model))
    for index, state in enumerate(optimizer.state.values()):
        state["exp_avg"].add_(index)
    handed = {"model": model, "state_dict": model.state_dict(), "none": None}[part]
    checkpoint = store.save(handed, optimizer)
    # Where no name tells, only the order is left.
    alone = way in ("alone", "resumed alone", "in two calls") or part == "none"
    is_turned = order == "turned" and not (make is unnamed and alone)
    target = make(other, turned=is_turned)
    if way == "in two calls" and part != "none":
        checkpoint.restore(other)
        checkpoint.restore(optimizer=target)
    elif way == "resumed alone" or (way == "resumed" and part == "none"):
        assert store.resume(optimizer=target)
    elif way == "resumed":
        assert store.resume(other, target)
    elif alone:
        checkpoint.restore(optimizer=target)
    else:
        checkpoint.restore(other, target)

    mine, saved = dict(other.named_parameters()), dict(model.named_parameters())
    for name in saved:
        assert frozen(target.state[mine[name]]) == frozen(optimizer.state[saved[name]]), name


def test_names_given_with_a_prefix_are_compared_with_each_other(store):
    model, other = Net(), Net()

    def prefixed(model):
        return torch.optim.AdamW(list(model.named_parameters(prefix="net")))

    optimizer = stepped(model, prefixed(model))
    checkpoint = store.save(model, optimizer)
    target = torch.optim.AdamW(list(other.named_parameters(prefix="net"))[::-1])
    checkpoint.restore(optimizer=target)

    mine, saved = dict(other.named_parameters()), dict(model.named_parameters())
    for name in saved:
        assert frozen(target.state[mine[name]]) == frozen(optimizer.state[saved[name]]), name


def test_without_names_parameters_are_matched_by_position(store):
    model, other = Net(), Net()
    optimizer = stepped(model, torch.optim.AdamW(model.parameters()))
    checkpoint = store.save(None, optimizer)
    target = torch.optim.AdamW(other.parameters())
    checkpoint.restore(None, target)

    assert frozen(target.state_dict()) == frozen(optimizer.state_dict())


def test_an_optimizer_that_has_no_state_yet_is_restored(store):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint = store.save(model, optimizer)
    other = stepped(model, torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9))
    checkpoint.restore(model, other)

    assert not other.state
    assert other.param_groups[0]["lr"] == 0.1


def test_lbfgs_with_its_nested_history_comes_back(store):
    def trained(model, optimizer):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))

        def closure():
            optimizer.zero_grad()
            loss = model.last(torch.relu(model.first(x))).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)

    model, other = Net(), Net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    trained(model, optimizer)
    checkpoint = store.save(model, optimizer)
    target = torch.optim.LBFGS(other.parameters(), max_iter=3)
    checkpoint.restore(other, target)
    trained(model, optimizer)
    trained(other, target)

    assert same(model, other)
    assert frozen(target.state_dict()) == frozen(optimizer.state_dict())


def test_old_optimizer_state_is_let_go_before_the_new_is_placed(store, trained, monkeypatch):
    checkpoint = trained.save(store)
    other = Training(seed=1)
    other.epoch()
    old = [
        weakref.ref(value)
        for state in other.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    alive = []
    load_state_dict = torch.optim.Optimizer.load_state_dict

    def watched(self, state):
        gc.collect()
        alive.append(sum(reference() is not None for reference in old))
        load_state_dict(self, state)

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", watched)
    checkpoint.restore(**other.parts())

    assert len(old) == 18
    assert alive == [0]


# ------------------------------------------------------------ what does not fit


def refused(checkpoint, parts, *problems):
    """Check that a restore is refused with these problems and that no byte was touched."""
    before = frozen(
        {
            name: part.state_dict() if hasattr(part, "state_dict") else str(part)
            for name, part in parts.items()
        }
    )
    places = [p.data_ptr() for p in parts["model"].parameters()] if "model" in parts else []
    drawn = generators()
    with pytest.raises(MismatchError) as caught:
        checkpoint.restore(**parts, rng=True)
    after = frozen(
        {
            name: part.state_dict() if hasattr(part, "state_dict") else str(part)
            for name, part in parts.items()
        }
    )

    assert after == before
    assert generators() == drawn
    if "model" in parts:
        assert [p.data_ptr() for p in parts["model"].parameters()] == places
    for problem in problems:
        assert any(problem in found for found in caught.value.problems), (
            f"{problem} in {caught.value.problems}"
        )
    assert "Nothing was changed" in str(caught.value)
    return caught.value


def test_every_mismatch_of_every_part_is_listed_and_nothing_touched(store, trained):
    checkpoint = trained.save(store)
    other = Training(seed=1)
    other.model = Net(9)
    other.model.extra = nn.Linear(1, 1)
    other.optimizer = torch.optim.AdamW(other.model.parameters())
    parts = other.parts() | {
        "scheduler": torch.optim.lr_scheduler.ExponentialLR(other.optimizer, 0.5)
    }

    error = refused(
        checkpoint,
        parts,
        "model: 'first.weight' is shape [9, 4] in the module, and was saved as shape [8, 4]",
        "model: 'extra.weight'",
        "model: 'norm.running_mean'",
        "optimizer: no state was saved for 'model/extra.weight'",
        "scheduler: saved by torch.optim.lr_scheduler.StepLR, and this is",
    )
    assert len(error.problems) >= 10


def test_another_dtype_is_a_mismatch(store, trained):
    checkpoint = trained.save(store)

    refused(
        checkpoint,
        {"model": Net().double()},
        "'first.weight' is torch.float64, and was saved as torch.float32; convert the module",
    )


def test_a_batch_norm_of_another_width_touches_nothing(store):
    checkpoint = store.save(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(8)))

    refused(
        checkpoint,
        {"model": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(9))},
        "'1.weight' is shape [9]",
        "'1.running_var' is shape [9]",
    )


def test_a_batch_norm_of_before_there_were_counts_is_restored(store):
    model, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    model.running_mean.fill_(2)
    state = model.state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    store.save(state).restore(other)

    assert same(other, model)


def test_another_set_of_parameters_is_listed(store, trained):
    checkpoint = trained.save(store)
    model = Net()
    optimizer = torch.optim.AdamW(list(model.parameters())[:-1])

    refused(
        checkpoint,
        {"model": model, "optimizer": optimizer},
        "optimizer: state was saved for 'model/last.bias', which it lacks",
    )


def test_parameters_in_other_groups_are_listed(store, trained):
    checkpoint = trained.save(store)
    model = Net()
    groups = [{"params": list(model.first.parameters())}, {"params": list(model.last.parameters())}]

    refused(
        checkpoint,
        {"model": model, "optimizer": torch.optim.AdamW(groups)},
        "1 parameter groups were saved, and this optimizer has 2",
        "state was saved for 'model/norm.weight'",
    )


def test_moments_of_another_shape_are_listed_without_names(store):
    model, other = Net(8), Net(9)
    checkpoint = store.save(None, stepped(model, torch.optim.AdamW(model.parameters())))

    refused(
        checkpoint,
        {"optimizer": torch.optim.AdamW(other.parameters())},
        "'exp_avg' of parameter 0 has shape [8, 4], and the parameter has [9, 4]",
    )


def test_moments_of_another_shape_name_their_parameter(store):
    model, other = Net(8), Net(9)
    checkpoint = store.save(model, stepped(model, torch.optim.AdamW(model.parameters())))

    refused(
        checkpoint,
        {"optimizer": torch.optim.AdamW(other.parameters())},
        "'exp_avg' of 'model/first.weight' has shape [8, 4], and the parameter has [9, 4]",
    )


def test_an_optimizer_of_ones_own_keeps_what_it_likes_under_any_key(store):
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1})

        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["exp_avg"] = parameter.detach().flatten().repeat(2)

    model, other = Net(), Net()
    optimizer, again = Own(model.parameters()), Own(other.parameters())
    optimizer.step()
    store.save(model, optimizer).restore(other, again)

    assert frozen(again.state_dict()) == frozen(optimizer.state_dict())


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, torch.optim.RAdam, torch.optim.Adam, torch.optim.RMSprop]
)
def test_another_class_of_optimizer_is_a_mismatch(store, trained, kind):
    checkpoint = trained.save(store)
    model = Net()

    refused(
        checkpoint,
        {"model": model, "optimizer": kind(model.parameters(), lr=0.1)},
        f"saved by torch.optim.adamw.AdamW, and this is {kind.__module__}.{kind.__qualname__}",
    )


def test_parts_that_were_swapped_are_a_mismatch(store, trained):
    checkpoint = trained.save(store)
    other = Training(seed=1)

    refused(
        checkpoint,
        {"model": other.model, "optimizer": Net(), "scheduler": other.optimizer},
        "optimizer: saved by torch.optim.adamw.AdamW, and this is",
        "scheduler: saved by torch.optim.lr_scheduler.StepLR, and this is",
    )


def test_an_optimizer_that_keeps_its_own_layout_is_refused_with_the_way_out(store):
    class Own(torch.optim.SGD):
        def state_dict(self):
            return {"mine": 1}

    model = Net()
    checkpoint = store.save(model, Own(model.parameters(), lr=0.1))

    refused(
        checkpoint,
        {"model": model, "optimizer": Own(model.parameters(), lr=0.1)},
        "hand checkpoint.state('optimizer') to its load_state_dict()",
    )
    assert checkpoint.state("optimizer") == {"mine": 1}


def test_a_part_that_was_not_saved_lists_those_that_were(store, trained):
    checkpoint = store.save(trained.model)
    before = everything(trained)

    with pytest.raises(VersionNotFoundError, match=r"no part 'optimizer'; it has 'model', 'rng'"):
        checkpoint.restore(trained.model, trained.optimizer)
    assert everything(trained) == before


def test_parts_that_were_not_saved_are_left_as_they_are_where_one_is_not_strict(store, trained):
    checkpoint = store.save(trained.model, rng=False)
    other = Training(seed=5)
    before = frozen(other.optimizer.state_dict())
    told = r"restored \S+ without 'optimizer', 'rng', which it does not have"
    with pytest.warns(StateWarning, match=told):
        audit = checkpoint.restore(other.model, other.optimizer, rng=True, strict=False)

    assert (audit.restored, audit.not_saved) == (("model",), ("optimizer", "rng"))
    assert same(other.model, trained.model)
    assert frozen(other.optimizer.state_dict()) == before


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize(("pack", "whole"), [(0, "optimizer"), (1, "model")])
def test_damage_anywhere_in_what_is_asked_for_touches_nothing(store, trained, epochs, pack, whole):
    checkpoint = trained.save(store)
    path = packs_of(store.url, "default")[pack]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    other = Training(seed=1)
    for _ in range(epochs):
        other.epoch()
    before = everything(other)

    with pytest.raises(IntegrityError, match="is damaged"):
        checkpoint.restore(**other.parts(), rng=True)
    assert everything(other) == before
    checkpoint.restore(**{whole: getattr(other, whole)})  # it is whole


@pytest.mark.parametrize(
    ("name", "value"), [("model", Net), ("model", {}), ("optimizer", 3), ("scheduler", "x")]
)
def test_what_has_no_state_is_no_part(store, trained, name, value):
    checkpoint = trained.save(store)

    with pytest.raises(ArgumentError, match=rf"restore\({name}=…\)"):
        checkpoint.restore(**{name: value})


# ------------------------------------------------------------ other objects


def test_generators_are_parts(store):
    ours, theirs = torch.Generator().manual_seed(1), np.random.default_rng(1)
    checkpoint = store.save(Net(), draws=ours, noise=theirs)
    drawn = torch.rand(3, generator=ours), theirs.random(3)
    checkpoint.restore(draws=ours, noise=theirs)

    assert torch.equal(torch.rand(3, generator=ours), drawn[0])
    assert (theirs.random(3) == drawn[1]).all()


def test_generators_of_another_kind_are_a_mismatch(store):
    checkpoint = store.save(Net(), draws=torch.Generator(), noise=np.random.default_rng(1))
    model = Net()

    refused(
        checkpoint,
        {"model": model, "noise": np.random.Generator(np.random.MT19937(1))},
        "noise: saved from PCG64, and this draws from MT19937",
    )
    refused(
        checkpoint,
        {"model": model, "draws": np.random.default_rng(1), "noise": torch.Generator()},
        "draws: saved by torch._C.Generator, and this is numpy.random._generator.Generator",
        "noise: saved by numpy.random._generator.Generator",
    )


def test_an_object_of_ones_own_is_restored_by_its_load_state_dict(store):
    class Counter:
        def __init__(self):
            self.count = 0

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    one, two = Counter(), Counter()
    one.count = 7
    store.save(Net(), counter=one).restore(counter=two)
    assert two.count == 7


def test_an_object_that_cannot_take_state_is_a_mismatch(store):
    class WriteOnly:
        def state_dict(self):
            return {"a": 1}

    checkpoint = store.save(Net(), log=WriteOnly())

    refused(checkpoint, {"model": Net(), "log": WriteOnly()}, "log: ", "has no load_state_dict()")


def test_a_class_that_moved_to_another_module_still_fits(store, trained, monkeypatch):
    checkpoint = trained.save(store)
    monkeypatch.setattr(torch.optim.lr_scheduler.StepLR, "__module__", "__main__")

    checkpoint.restore(scheduler=trained.scheduler)


def test_extra_state_and_custom_loading_run(store):
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.seen = 0

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    model, other = Custom(), Custom()
    model.seen = 5
    store.save(model).restore(other)

    assert other.seen == 5
    assert same(model, other)


class Keeps(nn.Module):
    """Keeps the very tensors that its loading code is given."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.kept = []

    def _load_from_state_dict(self, state, prefix, *args):
        self.kept += state.values()
        super()._load_from_state_dict(state, prefix, *args)


def test_code_that_keeps_what_it_is_given_gets_no_mapped_memory(store):
    storage = Watched(LocalStorage(store.url))
    model, other = Keeps(), Keeps()
    store.save(model)
    store_on(storage).get("@latest").restore(other)

    assert storage.mapped != []
    assert len(other.kept) == 2
    assert not any(map(storage.lies_in_a_map, other.kept))
    assert same(model, other)


def test_what_an_optimizers_tensors_share_they_share_again(store):
    model = Keeps()
    optimizer = stepped(model, torch.optim.SGD(model.parameters(), momentum=0.9))
    one, two = optimizer.state.values()
    two["momentum_buffer"] = one["momentum_buffer"][0]
    one["also"] = one["momentum_buffer"]
    checkpoint = store.save(model, optimizer)
    other = Keeps()
    target = stepped(other, torch.optim.SGD(other.parameters(), momentum=0.9))
    checkpoint.restore(other, target)

    loaded = target.state[other.fc.weight]
    assert loaded["also"] is loaded["momentum_buffer"]
    assert frozen(target.state_dict()) == frozen(optimizer.state_dict())


# ------------------------------------------------------------ loading code of the class


class ByClass(Net):
    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name.startswith("first.")]:
            del state[name]
        return state


class ByHook(Net):
    def __init__(self, width=8):
        super().__init__(width)
        self._register_state_dict_hook(self.without_bias)

    def without_bias(self, _, state, *__):
        del state["first.bias"]


class Lenient(ByClass):
    def load_state_dict(self, state, strict=False, assign=False):  # noqa: FBT002 - torch's
        return super().load_state_dict(state, strict, assign)


@pytest.mark.parametrize("kind", [ByClass, ByHook, Lenient])
@pytest.mark.parametrize("verb", ["resume", "restore"])
def test_what_a_class_leaves_out_of_its_state_dict_stays_as_it_is(store, kind, verb):
    model, other = kind(), kind()
    first = frozen(other.first.bias)
    checkpoint = store.save(model)
    store.resume(other) if verb == "resume" else checkpoint.restore(other)

    assert same(model.last, other.last)
    assert same(model.norm, other.norm)
    assert frozen(other.first.bias) == first != frozen(model.first.bias)


def test_what_a_class_saves_and_does_not_find_is_listed_first(store):
    state = ByClass().state_dict()
    del state["last.bias"]
    checkpoint = store.save(state)

    refused(checkpoint, {"model": ByClass()}, "model: 'last.bias' (shape [3]) is in the module")


def test_a_class_whose_loading_passes_over_keys_is_taken_at_its_word(store):
    state = Lenient().state_dict()
    del state["last.bias"]
    other = Lenient()
    store.save({**state, "other": torch.ones(1)}).restore(other)

    assert torch.equal(other.last.weight, state["last.weight"])


class Strict(Net):
    def load_state_dict(self, state, **options):
        return super().load_state_dict(state, **options)


class Reports(Net):
    """Loads, and then says that something was missing or too much."""

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        *_, missing, unexpected, _ = args
        missing.append("the key")
        unexpected.append("another")


@pytest.mark.parametrize(
    ("kind", "problems"),
    [
        (Strict, ["ema: Error(s) in loading state_dict for Strict"]),
        (Reports, ["ema: 'the key' is in the module, and", "ema: 'another' was saved, and"]),
    ],
)
def test_loading_code_that_refuses_leaves_every_part_as_it_was(store, kind, problems):
    model = Net()
    optimizer = stepped(model, torch.optim.AdamW(model.parameters()))
    checkpoint = store.save(model, optimizer, ema=ByClass() if kind is Strict else Net())
    other, ema = Net(), kind()

    parts = {"model": other, "optimizer": torch.optim.AdamW(other.parameters()), "ema": ema}
    error = refused(checkpoint, parts, *problems)

    assert len(error.problems) == len(problems)


def test_what_each_modules_loading_code_refuses_is_listed_at_once(store):
    checkpoint = store.save(Net(), one=Net(), two=Net())

    error = refused(checkpoint, {"model": Net(), "one": Reports(), "two": Reports()})

    assert [problem.split(":")[0] for problem in error.problems] == ["one", "one", "two", "two"]


def test_loading_code_that_raises_leaves_every_module_as_it_was_and_is_named(store):
    class Picky(Net):
        def get_extra_state(self):
            return {"words": 1}

        def set_extra_state(self, state):
            self.words = state["words"]
            raise KeyError("tokens")

    checkpoint = store.save(Net(), ema=Picky())
    model, ema = Net(), Picky()
    before = frozen(model.state_dict()), frozen(ema.state_dict())

    with pytest.raises(KeyError) as caught:
        checkpoint.restore(model, ema=ema)

    assert (frozen(model.state_dict()), frozen(ema.state_dict())) == before
    assert not hasattr(ema, "words")
    assert caught.value.__notes__ == [
        "ckptstore: part 'ema' of default@1 was not restored; the modules are as they were"
    ]


def test_an_object_that_raises_says_which_part_it_was_and_what_was_restored(store):
    class Broken:
        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state):
            raise KeyError(state["a"])

    model = Net()
    optimizer = torch.optim.SGD(model.parameters())
    checkpoint = store.save(model, optimizer, queue=Broken())

    with pytest.raises(KeyError) as caught:
        checkpoint.restore(model, optimizer, queue=Broken())
    (note,) = caught.value.__notes__
    assert note.startswith("ckptstore: part 'queue' of default@1 was not restored; ")
    assert note.endswith("restored before it: 'model', 'optimizer'")
    with pytest.raises(KeyError) as caught:
        checkpoint.restore(queue=Broken())
    assert "nothing was restored before it" in caught.value.__notes__[0]


def test_extra_state_of_another_form_is_taken(store):
    class Grows(nn.Linear):
        def __init__(self, size):
            super().__init__(2, 2)
            self.seen = torch.arange(size)

        def get_extra_state(self):
            return self.seen

        def set_extra_state(self, state):
            self.seen = state

    other = Grows(0)
    store.save(Grows(5).state_dict()).restore(other)

    assert torch.equal(other.seen, torch.arange(5))


@pytest.mark.parametrize("verb", ["resume", "restore"])
def test_an_expanded_buffer_is_a_mismatch_before_anything_is_touched(store, verb):
    def make():
        model = Net()
        model.register_buffer("table", torch.ones(1).expand(4))
        return model

    checkpoint = store.save(make())
    other = make()
    before = frozen(other.state_dict())

    with pytest.raises(MismatchError, match=r"model: 'table' has elements that share memory"):
        store.resume(other) if verb == "resume" else checkpoint.restore(other)
    assert frozen(other.state_dict()) == before


def test_tied_weights_stay_tied(store):
    def tied():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    store.save(model).restore(other)

    assert other[1].weight is other[0].weight
    assert same(model, other)


class Around(torch.optim.Optimizer):
    """Looks ahead: steps another optimizer, which keeps the state."""

    def __init__(self, inner):
        self.inner = inner
        self.steps = 0
        super().__init__(inner.param_groups, {})

    def step(self):
        self.inner.step()
        self.steps += 1

    def state_dict(self):
        return {"inner": self.inner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state):
        self.inner.load_state_dict(state["inner"])
        self.steps = state["steps"]


class Beside(Around):
    """The same with torch's layout, as PostLocalSGDOptimizer has it: it is no optimizer itself."""

    def __init__(self, inner):
        self.inner = inner
        self.steps = 0
        self.param_groups = inner.param_groups

    def step(self):  # torch puts hooks around those of optimizers that it made
        self.inner.step()
        self.steps += 1

    def state_dict(self):
        return {**self.inner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)
        self.steps = state["steps"]


@pytest.mark.parametrize("kind", [Around, Beside])
def test_an_optimizer_around_another_takes_its_state_in_its_own_way(store, kind):
    model = Net()
    optimizer = stepped(model, kind(torch.optim.Adam(model.parameters())))
    store.save(model, optimizer)
    other = Net()
    again = stepped(other, kind(torch.optim.Adam(other.parameters())))
    stepped(other, again)
    store.resume(other, again)
    assert again.steps == 1
    for mine, its in zip(other.parameters(), model.parameters(), strict=True):
        moment = again.inner.state[mine]["exp_avg"]
        assert torch.equal(moment, optimizer.inner.state[its]["exp_avg"])
        moment.add_(1)  # it is the optimizer's own memory, and may be written to


def test_an_optimizer_whose_state_is_spread_over_ranks_says_what_to_do(store, tmp_path):
    class Spread(torch.optim.SGD):
        def state_dict(self):
            raise RuntimeError("has not been consolidated on this rank")

    model = Net()
    with pytest.raises(UnsupportedValueError, match=r"consolidate_state_dict\(to=0\)") as raised:
        store.save(model, Spread(model.parameters(), lr=0.1))
    assert "not been consolidated" in str(raised.value)
    assert not [*tmp_path.rglob("*.*")]
