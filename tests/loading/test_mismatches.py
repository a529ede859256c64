"""What keeps a part's state from an object, told apart by kind, layout and form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.format.manifest import PartInfo
from ckptstore.loading.mismatches import (
    fit_module,
    kind_problems,
    moment_problems,
    object_problems,
    vector_problems,
)


def info(kind, class_name=None):
    return PartInfo("part", kind, 0, 0, "", class_name)


def sgd(*shapes):
    return torch.optim.SGD([nn.Parameter(torch.zeros(shape)) for shape in shapes])


@pytest.mark.parametrize(
    ("part", "saved"),
    [
        (nn.Linear(1, 1), info("module", "torch.nn.modules.conv.Conv2d")),
        (nn.Linear(1, 1), info("state_dict")),
        (sgd(1), info("optimizer", "somewhere.else.SGD")),
    ],
)
def test_the_same_kind_of_thing_fits(part, saved):
    assert kind_problems(part, saved, part.state_dict()) == []


@pytest.mark.parametrize(
    ("part", "saved"),
    [
        (nn.Linear(1, 1), info("optimizer", "a.SGD")),
        (sgd(1), info("optimizer", "torch.optim.adam.Adam")),
        (sgd(1), info("module", "a.SGD")),
        (torch.Generator(), info("object", "torch._C.Generator")),
    ],
)
def test_another_kind_is_named(part, saved):
    (problem,) = kind_problems(part, saved, {})

    assert problem.startswith(f"saved by {saved.class_name}, and this is ")


@pytest.mark.parametrize(
    "groups", [None, [{}], [{"params": [1, 0]}], [{"params": [0]}, {"params": [0]}]], ids=str
)
def test_parameters_not_numbered_through_all_groups_cannot_be_matched(groups):
    state = {"state": {}, "param_groups": groups}

    (problem,) = kind_problems(sgd(1), info("optimizer"), state)

    assert "has not the layout of torch's optimizers" in problem


def test_a_module_that_fits_says_how():
    module = nn.Linear(2, 2)

    found, problems = fit_module(module, module.state_dict(), "model")

    assert found is not None
    assert (found.adopted, problems) == (("weight", "bias"), [])


def expanded():
    return torch.zeros(1).expand(4)


def inferred():
    with torch.inference_mode():
        return torch.zeros(4)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (expanded, "has elements that share memory (it was expanded)"),
        (inferred, "was made in inference mode"),
        (lambda: torch.zeros(4, device="meta"), "is on the meta device"),
    ],
    ids=["expanded", "inference", "meta"],
)
def test_a_tensor_that_nothing_can_be_copied_into_is_a_mismatch(make, reason):
    module = nn.Linear(2, 2)
    module.register_buffer("table", make())
    state = {**nn.Linear(2, 2).state_dict(), "table": torch.ones(4)}

    _, problems = fit_module(module, state, "model")

    assert problems == [f"'table' {reason}, so nothing can be copied into it"]


def test_a_dimension_of_one_or_none_may_have_any_stride():
    module = nn.Module()
    module.register_buffer("one", torch.zeros(1).expand(1))
    module.register_buffer("none", torch.zeros(1, 0).expand(3, 0))

    assert fit_module(module, module.state_dict(), "model")[1] == []


def test_moments_are_compared_with_the_parameter_they_belong_to():
    optimizer = sgd(2, 3)
    two, three = optimizer.param_groups[0]["params"]
    moments = {"momentum_buffer": torch.zeros(3), "other": torch.zeros(9)}

    assert moment_problems(optimizer, three, moments, "'a'") == []
    assert moment_problems(optimizer, two, moments, "'a'") == [
        "'momentum_buffer' of 'a' has shape [3], and the parameter has [2]"
    ]


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ([[0, 1]], None),
        ([[1, 0]], "they stand in another order here"),
        ([[0, None]], "can't go on with some of them"),
        ([[0]], "can't go on with some of them"),
    ],
)
def test_a_vector_over_all_parameters_is_for_all_of_them(numbers, problem):
    optimizer = torch.optim.LBFGS([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))])
    found = vector_problems(optimizer, {"state": {}}, numbers, 2)
    assert (problem is None and not found) or (problem is not None and problem in found[0])
    assert vector_problems(sgd(3, 1), {"state": {}}, numbers, 2) == []


@pytest.mark.parametrize("names", [["a"], "ab", [1, 2]])
def test_names_of_another_form_are_told(names):
    optimizer = sgd(2, 3)
    state = optimizer.state_dict()
    state["param_groups"][0]["param_names"] = names
    (problem,) = kind_problems(optimizer, info("optimizer"), state)
    assert "layout" in problem


def test_a_scaler_that_is_enabled_has_nothing_to_take_from_one_that_was_not():
    scaler = torch.amp.GradScaler("cpu")
    (problem,) = object_problems(scaler, {})
    assert problem.startswith("saved while it was not enabled")
    assert object_problems(scaler, scaler.state_dict()) == []
    assert object_problems(torch.amp.GradScaler("cpu", enabled=False), {}) == []
    assert object_problems(object(), {}) == []


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (torch.optim.ASGD, "ax"),
        (torch.optim.Adagrad, "sum"),
        (torch.optim.Rprop, "prev"),
        (torch.optim.Rprop, "step_size"),
        (torch.optim.Adafactor, "variance"),
    ],
)
def test_whatever_an_optimizer_keeps_in_a_parameters_shape_must_have_it(kind, key):
    (parameter,) = parameters = [nn.Parameter(torch.ones(3))]
    parameter.grad = torch.ones(3)
    optimizer = kind(parameters)
    optimizer.step()
    other = kind([nn.Parameter(torch.ones(2))])
    (present,) = other.param_groups[0]["params"]
    problems = moment_problems(other, present, optimizer.state[parameter], "parameter 0")
    assert f"{key!r} of parameter 0 has shape [3], and the parameter has [2]" in problems
