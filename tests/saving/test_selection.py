"""Saving less: what is chosen is saved, what is left out is said, and nothing is lost silently."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import ckptstore
from ckptstore import Keep, Store
from ckptstore.errors import ArgumentError, KeysWarning, MismatchError, StateWarning
from tests.loading.forging import packs_of
from tests.loading.trainings import frozen, same


@ckptstore.remember_init
class Adapted(nn.Module):
    """A pretrained base that stands still, and an adapter that is trained."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # stands for a download: each gets the same base
            self.base = nn.Sequential(nn.Linear(64, 512), nn.BatchNorm1d(512), nn.Linear(512, 64))
            self.base.requires_grad_(requires_grad=False)
        self.adapter = nn.Linear(64, 8)

    def forward(self, x):
        return self.adapter(self.base(x))


def trained(model, optimizer, steps=2):
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 64)).square().mean().backward()
        optimizer.step()


def adam(model):
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.01)


FROZEN = (
    "base.0.weight",
    "base.0.bias",
    "base.1.weight",
    "base.1.bias",
    "base.2.weight",
    "base.2.bias",
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def model():
    model = Adapted()
    trained(model, adam(model))
    return model


def test_trainable_leaves_out_what_stands_still_and_says_so(store, model):
    saved = store.save(model, only="trainable", rng=False)

    assert saved.left_out() == FROZEN
    state = saved.state("model")
    # Statistics change in training though what they belong to stands still.
    assert set(state) == set(model.state_dict()) - set(FROZEN)
    assert frozen(state["base.1.running_mean"]) == frozen(model.base[1].running_mean)
    assert saved.size_bytes < 10_000


def test_a_load_takes_the_rest_from_the_class_and_warns(store, model):
    saved = store.save(model, only="trainable")
    with pytest.warns(KeysWarning, match="left out when it was saved: base.0.weight") as caught:
        loaded = saved.load(Adapted, device="cpu")

    assert same(loaded, model)
    assert caught[0].message.report.left_out == FROZEN
    assert caught[0].message.report.missing == ()


def test_a_load_of_what_was_saved_alone_warns_of_nothing(store, model):
    saved = store.save(model, only="trainable")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = saved.load(Adapted, device="cpu", only="adapter")

    assert same(loaded.adapter, model.adapter)


def test_training_resumes_into_what_the_script_built_and_the_audit_says_so(store):
    def cut(at):
        torch.manual_seed(0)
        model = Adapted()
        optimizer = adam(model)
        for step in range(4):
            if step == at:
                store.save(model, optimizer, only="trainable", step=step)
                torch.manual_seed(99)
                model = Adapted()
                optimizer = adam(model)
                audit = store.resume(model, optimizer).audit
                assert audit.keys["model"].left_out == FROZEN
                assert "model, left as it is: left out when it was saved: base.0" in str(audit)
            trained(model, optimizer, steps=1)
        return frozen([model.state_dict(), optimizer.state_dict()])

    assert cut(None) == cut(2)


def test_what_the_previous_version_has_bit_for_bit_is_named_and_the_version_whole(store, model):
    first = store.save(model, rng=False)
    model.adapter.weight.data.add_(1)
    second = store.save(model, only="trainable", rng=False)

    assert second.left_out() == ()
    assert second.new_bytes < first.new_bytes / 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(second.load(lambda: Adapted(seed=5), device="cpu"), model)


def test_so_is_what_the_parent_has_through_any_number_of_versions(store, model):
    base = store.save(model, run="base", rng=False)
    for _ in range(3):
        model.adapter.weight.data.add_(1)
        saved = store.save(model, run="tuned", only="trainable", rng=False, parent=base)
        base = None
    store.prune(Keep(last=1), run="tuned")
    latest = Store(store.url).latest(run="tuned")

    assert latest.version == 3
    assert latest.left_out() == ()
    assert same(latest.load(lambda: Adapted(seed=5), device="cpu"), model)
    assert saved.size_bytes > 100_000


def test_what_the_parent_has_otherwise_is_not_taken_for_it(store, model):
    store.save(model, rng=False)
    model.base[0].weight[0, 0] += 1  # another base, as the script loads it
    saved = store.save(model, only="trainable", rng=False)

    assert saved.left_out() == ("base.0.weight",)
    with pytest.warns(KeysWarning):
        loaded = saved.load(Adapted, device="cpu")
    assert torch.equal(loaded.base[0].weight, Adapted().base[0].weight)
    assert same(loaded.base[2], model.base[2])


def test_a_pack_that_is_gone_is_not_named(store, model):
    store.save(model, rng=False)
    for pack in packs_of(store.url, "default"):
        pack.unlink()
    saved = store.save(model, only="adapter", rng=False)

    assert set(saved.left_out()) == set(model.state_dict()) - {"adapter.weight", "adapter.bias"}
    with pytest.warns(KeysWarning):
        assert same(saved.load(Adapted, device="cpu").adapter, model.adapter)


def test_patterns_choose_too_and_a_dict_says_for_which_part(store, model):
    other = Adapted()
    saved = store.save(model, ema=other, only={"model": ["adapter.weight", "base.1.*"]}, rng=False)

    assert set(saved.state("model")) == {
        key for key in model.state_dict() if key == "adapter.weight" or key.startswith("base.1.")
    }
    assert saved.left_out("ema") == ()
    assert same(saved.load(Adapted, device="cpu", part="ema"), other)


class Wider(Adapted):
    """The same code, of which a base has another shape than when the adapter was trained."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.base[0] = nn.Linear(64, 513)


class Bare(Adapted):
    """One that has no base any more."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        del self.base


def put_back(saved, kind, **how):
    with pytest.warns(KeysWarning):
        return saved.restore(kind(), **how).keys["model"]


def load(saved, kind, **how):
    with pytest.warns(KeysWarning) as caught:
        saved.load(kind, device="cpu", **how)
    return caught[0].message.report


@pytest.mark.parametrize("take", [put_back, load])
def test_what_takes_the_place_of_what_was_left_out_has_its_form(store, model, take):
    saved = store.save(model, only="adapter", rng=False)
    words = (
        r"'base.0.weight' is float32, shape \[513, 64\] in the module, and was float32, "
        r"shape \[512, 64\] when the save left it out"
    )
    with pytest.raises(MismatchError, match=words):
        saved.restore(Wider())
    report = take(saved, Wider, strict=False)
    assert report.mismatched == ("base.0.weight", "base.0.bias")
    assert {"base.2.weight", "base.1.running_mean"} <= set(report.left_out)
    with pytest.raises(MismatchError, match=r"'base.0.weight' \(float32.* is not in the module"):
        saved.load(Bare, device="cpu")
    assert "base.0.weight" in take(saved, Bare, strict=False).unexpected
    assert same(saved.load(Bare, device="cpu", only="adapter").adapter, model.adapter)


def test_so_does_its_dtype_unless_it_is_converted(store, model):
    saved = store.save(model.bfloat16(), only="adapter", dtype={"model": torch.float32}, rng=False)
    words = "'base.0.weight' is float32, .* in the module, and was bfloat16"
    with pytest.raises(MismatchError, match=words):
        saved.load(Adapted, device="cpu")
    report = load(saved, Adapted, dtype=torch.bfloat16)
    assert "base.0.weight" in report.left_out
    assert report.mismatched == ()
    other = Adapted().bfloat16()
    with pytest.warns(KeysWarning, match=r"other values here .*num_batches_tracked"):
        audit = saved.restore(other)
    assert "base.0.weight" in audit.keys["model"].left_out


def test_tied_weights_are_saved_if_one_name_is_chosen(store):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4, bias=False)
            self.two = nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

    tied = Tied()
    saved = store.save(tied, only="one", rng=False)

    assert saved.left_out() == ()  # the other name costs nothing
    assert same(saved.load(Tied, device="cpu"), tied)


def test_wrapped_modules_are_known_by_plain_names(store, model):
    saved = store.save(torch.nn.DataParallel(model), only="trainable", rng=False)

    assert saved.left_out() == FROZEN


class Renamed(nn.Module):
    """One whose hooks save each layer under the name that another has."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(3, 3).requires_grad_(requires_grad=False)
        self.head = nn.Linear(3, 3)
        self._register_state_dict_hook(self.turned)

    @staticmethod
    def turned(_module, state, _prefix, _metadata):
        names = {"base": "head", "head": "base"}
        for key in list(state):
            layer, _, name = key.partition(".")
            state[f"new.{names[layer]}.{name}"] = state[f"{names[layer]}.{name}"].detach()
        old = {key: state.pop(key) for key in list(state) if not key.startswith("new.")}
        state.update({key: old[f"{names[key[:4]]}{key[4:]}"].detach() for key in old})


def test_hooks_that_rename_keys_do_not_hide_what_stands_still(store):
    model = Renamed()
    saved = store.save(model, only="trainable", rng=False)

    held = {name: value for name, value in model.state_dict().items() if value.numel()}
    still = {model.base.weight.data_ptr(), model.base.bias.data_ptr()}
    assert set(saved.left_out()) == {key for key in held if held[key].data_ptr() in still}
    assert {"head.weight", "new.base.bias"} <= set(saved.left_out())
    assert "base.weight" not in saved.left_out()


def test_what_hooks_rename_and_an_optimizer_trains_is_warned_of(store):
    model = Renamed()
    with pytest.warns(StateWarning, match="leaves out what an optimizer trains: .*'base.weight'"):
        store.save(model, torch.optim.SGD(model.head.parameters()), only="head")


def test_a_package_of_it_leaves_out_the_same(store, model):
    saved = store.save(model, only="trainable")
    with pytest.warns(StateWarning, match="'base.0.weight'.* so the package lacks them too"):
        package = store.save_package(saved, class_names=list(range(8)))

    assert package.left_out() == FROZEN
    with pytest.warns(KeysWarning):
        assert same(store.load_package(Adapted, device="cpu").model, model)


def test_a_copy_says_the_same(store, tmp_path, model):
    store.save(model, only="trainable", dtype={"model": torch.bfloat16}, rng=False)
    other = Store(tmp_path / "other")
    store.copy_to(other)
    copied = other.latest(run="default")

    assert copied.left_out() == FROZEN
    assert copied.tensors()["adapter.weight"].was == torch.float32
    assert store.verify().ok
    assert other.verify().ok


def test_what_an_optimizer_trains_and_nobody_saves_is_warned_of(store, model):
    with pytest.warns(StateWarning, match="leaves out what an optimizer trains: 'adapter.weight'"):
        store.save(model, adam(model), only="base")


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("adaptor.*", r"only='adaptor.\*' fits no key of part 'model' .did you mean 'adapter'"),
        ([], "would save nothing"),
        (7, "takes a pattern"),
        ({"ema": "adapter"}, "only= names 'ema'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(store, model, only, words):
    with pytest.raises(ArgumentError, match=words):
        store.save(model, only=only)
    assert store.resume(Adapted()).checkpoint is None


def test_trainable_needs_a_module_that_trains(store, model):
    average = Adapted().requires_grad_(requires_grad=False)
    with pytest.raises(ArgumentError, match="no parameter of part 'ema' requires gradients"):
        store.save(model, ema=average, only="trainable")
    with pytest.raises(ArgumentError, match="is a state dict"):
        store.save(model.state_dict(), only="trainable")
    with pytest.raises(ArgumentError, match="is about the keys of modules"):
        store.save(None, adam(model), only="trainable")
    assert store.save(model, ema=average, only={"model": "trainable"}).left_out("ema") == ()


def test_a_program_needs_all_of_it(store, model):
    for less in ({"only": "trainable"}, {"dtype": {"model": torch.bfloat16}}):
        with pytest.raises(ArgumentError, match="program= needs the model's weights as they are"):
            store.save(model.eval(), program=torch.randn(2, 64), **less)


def test_a_lean_save_forgets_what_was_said_of_parts_it_leaves_out(store, model):
    what = {
        "model": model,
        "optimizer": adam(model),
        "only": {"model": "adapter", "ema": "adapter"},
        "dtype": {"optimizer": torch.bfloat16},
    }
    run = store.run("lean")
    with pytest.raises(ArgumentError, match="only= names 'ema'"):
        run.save(**what)
    del what["optimizer"]
    saved = run._without(("optimizer", "ema")).save(**what)

    assert saved.parts == ("model", "rng")
    assert saved.head.left_out == ("optimizer", "ema")
