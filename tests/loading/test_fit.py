from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from ckptstore.errors import MismatchError
from ckptstore.loading.fit import fit, memory, overrides, place, prefixes, same_bits

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
        return OrderedDict((name, value) for name, value in found.items() if "bias" not in name)


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


def test_extra_state_is_not_adopted():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"words": ["a"]}

    module = Extra(2, 2)
    state = dict(saved(nn.Linear(2, 2)), _extra_state={"words": ["b"]})

    assert fit(module, state, WHAT).adopted == ("weight", "bias")


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
            torch.zeros(2, 2),
            torch.eye(2).to_sparse(),
            "'t' is shape [2, 2] in the module, and was saved as shape [2, 2], torch.sparse_coo",
        ),
        (
            torch.zeros(0, 3),
            torch.zeros(3, 0),
            "'t' is shape [0, 3] in the module, and was saved as shape [3, 0]",
        ),
    ],
    ids=["scalar", "value", "layout", "empty"],
)
def test_another_form_is_a_mismatch(own, other, problem):
    module = nn.Module()
    module.t = nn.Parameter(own)

    assert problems(module, {"t": other}) == (problem,)


def test_a_tensor_where_extra_state_belongs_is_a_mismatch():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"words": ["a"]}

    assert problems(Extra(2, 2), saved(nn.Linear(2, 2)) | {"_extra_state": torch.zeros(1)}) == (
        "'_extra_state' is a value of type dict in the module, and was saved as shape [1]",
    )


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
        OwnSaving(3, 3),
        with_hook("register_load_state_dict_pre_hook"),
        with_hook("register_load_state_dict_post_hook"),
        with_hook("register_state_dict_pre_hook"),
        with_hook("register_state_dict_post_hook"),
        with_hook("_register_state_dict_hook"),
    ],
    ids=["load", "save", "before", "after", "before saving", "after saving", "old hook"],
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


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
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


@pytest.mark.parametrize("how", ["method", "hook"])
def test_a_batch_norm_with_loading_code_of_ones_own_is_custom(how):
    class OwnNorm(nn.BatchNorm1d):
        def _load_from_state_dict(self, *args, **kwargs):
            super()._load_from_state_dict(*args, **kwargs)

    norm = OwnNorm(3) if how == "method" else nn.BatchNorm1d(3)
    if how == "hook":
        norm.register_load_state_dict_post_hook(lambda *_: None)

    assert fit(norm, saved(norm), WHAT).custom == ("",)


# ------------------------------------------------------------ one tensor and another


def test_a_place_is_the_same_for_the_same_elements_only():
    tensor = torch.zeros(4, 4)
    same = [tensor.view(4, 4), tensor.data, nn.Parameter(tensor), tensor[:]]
    other = [tensor[:2], tensor[2:], tensor.t(), tensor.view(16), tensor.clone(), tensor[:, :2]]

    assert {place(each) for each in same} == {place(tensor)}
    assert len({place(each) for each in (tensor, *other)}) == 1 + len(other)
    assert {memory(each) for each in same} == {memory(tensor)}


def test_what_has_no_memory_of_its_own_is_only_itself():
    sparse, lazy = torch.eye(2).to_sparse(), nn.LazyLinear(2).weight

    for tensor in (sparse, lazy):
        assert place(tensor) == (id(tensor),)
    assert memory(sparse) == id(sparse)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), True),
        (torch.tensor(0.0), torch.tensor(-0.0), False),
        (torch.tensor(0.0), torch.tensor(0.0).double(), False),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32), False),
        (torch.zeros(2, 3), torch.zeros(3, 2), False),
        (torch.arange(6).view(2, 3), torch.arange(6).view(3, 2).t(), False),
        (torch.arange(6).view(2, 3).t(), torch.arange(6).view(2, 3).t().contiguous(), True),
        (torch.eye(2), torch.eye(2).to_sparse(), False),
        (torch.tensor([1j]).conj(), torch.tensor([complex(0.0, -1.0)]), True),
        (torch.tensor([True]), torch.tensor([False]), False),
        (torch.zeros(0, 2), torch.zeros(0, 2), True),
    ],
)
def test_bits_are_the_same_or_not(one, other, is_same):
    assert same_bits(one, other) is is_same
    assert same_bits(other, one) is is_same
    assert same_bits(one, one)


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
