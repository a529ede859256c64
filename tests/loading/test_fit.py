from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from ckptstore.errors import MismatchError
from ckptstore.loading.fit import fit, overrides, prefixes
from tests.format.tensors import quietly, torchaos

WHAT = "part 'model' of digits@7"


class Net(nn.Module):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.fc = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)


class OwnLoading(nn.Linear):
    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)


class OwnSaving(nn.Linear):
    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        for name in [name for name in found if "bias" in name]:
            del found[name]  # in place: what a submodule returns is not looked at
        return found


class Tied(nn.Module):
    def __init__(self, size=3):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(size))
        self.b = self.a


def saved(module):
    return OrderedDict(
        (name, value.detach().clone()) for name, value in module.state_dict().items()
    )


def problems(module, state):
    with pytest.raises(MismatchError) as caught:
        fit(module, state, WHAT)
    return caught.value.problems


# ------------------------------------------------------------ what fits


def test_what_fits_is_adopted_in_the_modules_order():
    module = Net()
    state = OrderedDict(reversed(saved(module).items()))

    found = fit(module, state, WHAT)

    assert found.adopted == tuple(module.state_dict())
    assert (found.unsettled, found.custom) == ((), ())
    assert found.own["fc.weight"] is module.fc.weight
    assert not found.is_custom("fc.weight")


def test_nothing_is_touched():
    module, other = Net(), Net()
    before = saved(module)

    fit(module, saved(other), WHAT)

    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_dtype_and_strides_are_the_saved_ones_to_choose():
    state = {"weight": torch.zeros(4, 3, dtype=torch.bfloat16).t(), "bias": torch.zeros(3)}

    assert fit(nn.Linear(4, 3), state, WHAT).adopted == ("weight", "bias")


def test_a_lazy_parameter_takes_any_shape_by_its_own_loading_code():
    module = nn.Sequential(nn.LazyLinear(2))

    found = fit(module, {"0.weight": torch.zeros(2, 7), "0.bias": torch.zeros(2)}, WHAT)

    assert found.adopted == ()
    assert found.is_custom("0.weight")


class Gives(nn.Linear):
    def get_extra_state(self):
        return torch.zeros(2)


class Takes(nn.Linear):
    def set_extra_state(self, state):
        self.extra = state


class GivesAndTakes(Gives, Takes):
    pass


@pytest.mark.parametrize("kind", [Takes, GivesAndTakes])
@pytest.mark.parametrize(
    "extra", [{"words": ["b"]}, torch.zeros(2), torch.zeros(5, dtype=torch.uint8)], ids=str
)
def test_extra_state_may_be_anything_and_is_not_adopted(kind, extra):
    whole = nn.ModuleDict({"own": kind(2, 2)})
    state = saved(nn.ModuleDict({"own": nn.Linear(2, 2)}))

    found = fit(whole, {**state, "own._extra_state": extra}, WHAT)

    assert found.adopted == ("own.weight", "own.bias")
    assert (found.unsettled, found.left_out, found.custom) == ((), (), ())


# ------------------------------------------------------------ what does not


def test_every_mismatch_is_listed_at_once():
    state = saved(Net(width=4, classes=3))
    del state["norm.bias"]
    state["old.scale"] = torch.ones(2)

    with pytest.raises(MismatchError) as caught:
        fit(Net(width=4, classes=10), state, WHAT)

    assert caught.value.problems == (
        "'norm.bias' (shape [4]) is in the module, and was not saved",
        "'out.weight' is shape [10, 4] in the module, and was saved as shape [3, 4]",
        "'out.bias' is shape [10] in the module, and was saved as shape [3]",
        "'old.scale' (shape [2]) was saved, and is not in the module",
    )
    assert "Net does not fit part 'model' of digits@7" in str(caught.value)
    assert "model_config" in str(caught.value)


@pytest.mark.parametrize(
    ("own", "other", "problem"),
    [
        (
            torch.zeros(()),
            torch.zeros(1),
            "'t' is shape [] in the module, and was saved as shape [1]",
        ),
        (
            torch.zeros(3),
            [1.0, 2.0, 3.0],
            "'t' is shape [3] in the module, and was saved as a value of type list",
        ),
        (
            torch.zeros(0, 3),
            torch.zeros(3, 0),
            "'t' is shape [0, 3] in the module, and was saved as shape [3, 0]",
        ),
    ],
    ids=["scalar", "value", "empty"],
)
def test_another_shape_is_a_mismatch(own, other, problem):
    module = nn.Module()
    module.t = nn.Parameter(own)

    assert problems(module, {"t": other}) == (problem,)


SPARSE = torch.sparse_coo_tensor(
    torch.tensor([[0], [1]]), torch.ones(1), (2, 2), check_invariants=True
)
NO_COPY = [
    (torch.zeros(2, 2), SPARSE, "[2, 2]", "[2, 2], torch.sparse_coo"),
    (SPARSE, torch.zeros(2, 2), "[2, 2], torch.sparse_coo", "[2, 2]"),
    (SPARSE, quietly(torch.eye(2).to_sparse_csr), "torch.sparse_coo", "torch.sparse_csr"),
    (torch.zeros(16, 32), torchaos()[0], "[16, 32]", "torchao.quantization.Int8Tensor"),
    (torchaos()[0], torchaos()[2], "reduce_range", "QuantizeTensorToInt8Kwargs"),
    (torchaos()[0], torchaos()[1], "scale float32 [16, 1]", "scale float32 [1, 1]"),
    (
        quietly(torch.quantize_per_tensor, torch.zeros(2), 1.0, 0, torch.qint8),
        quietly(torch.quantize_per_tensor, torch.zeros(2), 1.0, 0, torch.quint8),
        "qint8",
        "quint8",
    ),
]


@pytest.mark.parametrize(("own", "other", "is_now", "was"), NO_COPY)
def test_what_is_copied_in_place_is_of_the_same_kind(own, other, is_now, was):
    module = nn.Module()
    module.register_buffer("t", own)

    assert fit(module, {"t": other}, WHAT).adopted == ("t",)
    with pytest.raises(MismatchError) as caught:
        fit(module, {"t": other}, WHAT, in_place=True)
    (problem,) = caught.value.problems
    mine, saved_as = problem.split(" in the module, and was saved as ")
    assert is_now in mine
    assert was in saved_as


def test_whether_there_is_extra_state_must_fit():
    state = saved(nn.Linear(2, 2))

    assert problems(GivesAndTakes(2, 2), state) == (
        "'_extra_state' (shape [2]) is in the module, and was not saved",
    )
    assert fit(Takes(2, 2), state, WHAT).left_out == ("_extra_state",)
    for kind in (nn.Linear, Gives):
        (problem,) = problems(kind(2, 2), {**state, "_extra_state": torch.zeros(1)})
        assert problem.startswith("'_extra_state' (shape [1]) was saved, and the module has no set")


# ------------------------------------------------------------ ties


def test_a_tie_saved_once_or_as_equal_copies_fits():
    one = torch.tensor([1.0, float("nan"), -0.0])

    for state in ({"a": one, "b": one}, {"a": one, "b": one.clone()}):
        assert fit(Tied(), state, WHAT).adopted == ("a", "b")


@pytest.mark.parametrize(
    "other", [torch.ones(3), torch.zeros(3).neg(), torch.zeros(3).double()], ids=str
)
def test_a_tie_saved_as_two_that_differ_in_any_bit_is_a_mismatch(other):
    assert problems(Tied(), {"a": torch.zeros(3), "b": other}) == (
        "'a' and 'b' are one tensor in the module, and were saved as two that differ",
    )


def test_parameters_made_from_one_another_are_tied():
    module = Tied()
    module.b = nn.Parameter(module.a)

    assert len(problems(module, {"a": torch.zeros(3), "b": torch.ones(3)})) == 1


def test_parts_of_one_memory_are_not_tied():
    module = nn.Module()
    whole = torch.zeros(4)
    module.a, module.b = nn.Parameter(whole[:2]), nn.Parameter(whole[2:])

    assert fit(module, {"a": torch.zeros(2), "b": torch.ones(2)}, WHAT).adopted == ("a", "b")


def test_empty_tensors_are_tied_to_nothing():
    state = {"a": torch.zeros(0), "b": torch.zeros(0).double()}

    assert fit(Tied(0), state, WHAT).adopted == ("a", "b")


def test_mismatches_and_broken_ties_are_listed_together():
    module = Tied()
    module.c = nn.Parameter(torch.zeros(1))

    assert len(problems(module, {"a": torch.zeros(3), "b": torch.ones(3)})) == 2


# ------------------------------------------------------------ loading code of the class


def with_hook(register):
    module = nn.Linear(3, 3)
    getattr(module, register)(lambda *_: None)
    return module


@pytest.mark.parametrize(
    "module",
    [
        OwnLoading(3, 3),
        with_hook("register_load_state_dict_pre_hook"),
        with_hook("register_load_state_dict_post_hook"),
    ],
    ids=["load", "before", "after"],
)
def test_in_the_reach_of_loading_code_nothing_is_settled_beforehand(module):
    whole = nn.ModuleDict({"own": module, "plain": nn.Linear(3, 3)})
    state = saved(nn.ModuleDict({"own": nn.Linear(3, 3), "plain": nn.Linear(3, 3)}))
    del state["own.bias"]
    state["own.other"] = torch.zeros(1)

    found = fit(whole, state, WHAT)

    assert found.custom == ("own.",)
    assert found.adopted == ("plain.weight", "plain.bias")
    assert found.unsettled == ("own.bias", "own.other")
    assert found.is_custom("own.anything")
    assert not found.is_custom("owner")


@pytest.mark.parametrize(
    "module",
    [
        OwnSaving(3, 3, bias=False),
        with_hook("register_state_dict_pre_hook"),
        with_hook("register_state_dict_post_hook"),
        with_hook("_register_state_dict_hook"),
    ],
    ids=["save", "before saving", "after saving", "old hook"],
)
def test_code_that_only_saves_decides_nothing(module):
    whole = nn.ModuleDict({"own": module})
    state = saved(nn.ModuleDict({"own": nn.Linear(3, 3, bias=module.bias is not None)}))

    assert fit(whole, state, WHAT).adopted == tuple(state)
    del state["own.weight"]
    state["own.other"] = torch.zeros(1)
    assert problems(whole, state) == (
        "'own.weight' (shape [3, 3]) is in the module, and was not saved",
        "'own.other' (shape [1]) was saved, and is not in the module",
    )


def popping(*names):
    module = nn.Linear(3, 3)
    module._register_state_dict_hook(
        lambda _, state, prefix, __: [state.pop(f"{prefix}{name}") for name in names] and None
    )
    return module


@pytest.mark.parametrize("module", [OwnSaving(3, 3), popping("bias")], ids=["class", "hook"])
@pytest.mark.parametrize("prefix", ["", "own."])
def test_what_is_left_out_of_both_state_dicts_is_no_mismatch(module, prefix):
    whole = nn.ModuleDict({"own": module}) if prefix else module

    found = fit(whole, saved(whole), WHAT)

    assert found.adopted == (f"{prefix}weight",)
    assert found.left_out == (f"{prefix}bias",)
    assert (found.unsettled, found.custom) == ((), ())


def test_what_was_saved_though_the_module_leaves_it_out_is_taken():
    found = fit(OwnSaving(3, 3), saved(nn.Linear(3, 3)), WHAT)

    assert (found.adopted, found.left_out) == (("weight", "bias"), ())


def test_the_wholes_own_load_state_dict_decides_about_everything_and_a_parts_is_never_called():
    class Own(nn.Linear):
        def load_state_dict(self, state):
            pass

    state = {"other": torch.zeros(1)}

    assert fit(Own(2, 2), state, WHAT).custom == ("",)
    assert fit(nn.Sequential(Own(2, 2)), saved(nn.Sequential(Own(2, 2))), WHAT).custom == ()


def test_what_a_class_leaves_out_of_its_state_dict_is_its_own_all_the_same():
    assert list(fit(OwnSaving(2, 2), saved(nn.Linear(2, 2)), WHAT).own) == ["weight", "bias"]


def test_names_beside_loading_code_are_mismatches_all_the_same():
    whole = nn.ModuleDict({"own": OwnLoading(3, 3), "plain": nn.Linear(3, 3)})
    state = saved(whole)
    del state["own.bias"], state["plain.bias"]

    assert problems(whole, state) == (
        "'plain.bias' (shape [3]) is in the module, and was not saved",
    )


def test_a_module_under_two_names_loads_its_own_way_under_both():
    own = OwnLoading(3, 3)

    assert fit(nn.ModuleList([own, own]), saved(nn.ModuleList([own, own])), WHAT).custom == (
        "0.",
        "1.",
    )


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm2d])
def test_mismatches_of_a_norm_are_listed_with_the_others(norm):
    def make(width):
        return nn.Sequential(
            norm(width, affine=True, track_running_stats=True), nn.Linear(width, 3)
        )

    found = problems(make(4), saved(make(3)))

    assert len(found) == 5  # weight, bias, mean and variance, and the linear's


def test_a_batch_norm_that_did_not_count_yet_is_left_to_its_own_code():
    state = saved(nn.BatchNorm1d(3))
    assert fit(nn.BatchNorm1d(3), state, WHAT).custom == ()
    del state["num_batches_tracked"]

    found = fit(nn.BatchNorm1d(3), state, WHAT)

    assert found.custom == ("",)
    assert found.unsettled == ("num_batches_tracked",)


def test_a_batch_norm_without_statistics_has_nothing_to_add():
    norm = nn.BatchNorm1d(3, track_running_stats=False)

    assert fit(norm, saved(norm), WHAT).adopted == ("weight", "bias")


def test_statistics_that_an_instance_norm_does_not_keep_are_listed():
    state = saved(nn.InstanceNorm1d(3, affine=True, track_running_stats=True))

    assert len(problems(nn.InstanceNorm1d(3, affine=True), state)) == 3


@pytest.mark.parametrize("how", ["method", "hook"])
def test_a_batch_norm_with_loading_code_of_ones_own_is_custom(how):
    class OwnNorm(nn.BatchNorm1d):
        def _load_from_state_dict(self, *args, **kwargs):
            super()._load_from_state_dict(*args, **kwargs)

    norm = OwnNorm(3) if how == "method" else nn.BatchNorm1d(3)
    if how == "hook":
        norm.register_load_state_dict_post_hook(lambda *_: None)

    assert fit(norm, saved(norm), WHAT).custom == ("",)


# ------------------------------------------------------------ classes


def test_a_method_on_the_object_overrides_too():
    module = nn.Linear(2, 2)
    assert not overrides(module, "load_state_dict", "state_dict")
    module.load_state_dict = lambda *_: None

    assert overrides(module, "load_state_dict")
    assert not overrides(module, "state_dict")


def test_prefixes_name_each_place_of_a_module():
    one = nn.Linear(2, 2)
    module = nn.Sequential(one, nn.Sequential(one, nn.ReLU()))

    assert prefixes(module, lambda child: isinstance(child, nn.Linear)) == ("0.", "1.0.")
    assert prefixes(one, lambda child: child is one) == ("",)
