"""Operators are known by name, and nothing else that a file may name is ever called."""

from __future__ import annotations

import operator
import re

import pytest
import torch

from ckptstore.errors import IntegrityError, MismatchError
from ckptstore.programs.operators import CHECKED, NUMBERS, name_of, namespace, resolve


@torch.library.custom_op("ckptstore_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    """Return twice a tensor, by an operator that is not torch's own."""
    return x * 2


@twice.register_fake
def _(x):
    return torch.empty_like(x)


def test_operators_are_found_by_the_name_they_have():
    operation = torch.ops.aten.add.Tensor
    assert name_of(operation) == "aten.add.Tensor"
    assert resolve("aten.add.Tensor", (), "a program") is operation


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (operator.getitem, "item"),
        (operator.floordiv, "number.floordiv"),
        (torch.sym_max, "number.sym_max"),
        (torch.sym_float, "number.sym_float"),
        (torch.ops.higher_order.cond, "cond"),
        (torch.ops.higher_order.while_loop, None),
        (torch.nn.functional.relu, None),
        (print, None),
        (operator.attrgetter, None),
    ],
)
def test_what_a_graph_calls_has_a_name_or_none(target, name):
    assert name_of(target) == name


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_numbers_are_computed_from_numbers_alone(name):
    function = resolve(f"number.{name}", (), "a program")
    with pytest.raises(IntegrityError, match=r"number\..* of a str in a program"):
        function("text")


@pytest.mark.parametrize(
    ("name", "operands", "expected"),
    [
        ("add", (2, 3), 5),
        ("floordiv", (7, 2), 3),
        ("sym_max", (2, 3), 3),
        ("sym_sum", ([1, 2, 3],), 6),
        ("sym_sum", (1, 2), 3),
        ("ceil", (1.5,), 2),
        ("not_", (True,), False),
    ],
)
def test_numbers_come_out_as_python_has_them(name, operands, expected):
    assert resolve(f"number.{name}", (), "a program")(*operands) == expected


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "print",
        "number.__class__",
        "number.pow",
        "",
        "aten.add",
        "aten.add.Tensor.x",
        "aten.add.Tensor; import os",
        "aten.from_file.default",
        "aten.save.default",
        "aten.manual_seed.default",
        "aten._print.default",
        "aten.warn.default",
        "export.access_subclass_inner_tensor.default",
    ],
)
def test_what_is_no_operator_on_tensors_is_refused(name):
    with pytest.raises((IntegrityError, MismatchError)):
        resolve(name, (), "a program")


def aten():
    """Return the names of all overloads of torch's own operators that are there."""
    schemas = torch._C._jit_get_all_schemas()
    return sorted(
        f"aten.{each.name[6:]}.{each.overload_name or 'default'}"
        for each in schemas
        if each.name.startswith("aten::")
    )


UNSAFE = re.compile(
    r"aten\.(_sparse.*_unsafe|.*nested.*|.*resize.*|.*backward.*|_?set_.*|requires_grad_|retain_grad"
    r"|record_stream|.*pin_memory|from_file|data|_test.*|_copy_from.*)\..*|.*[._]out"
)


def test_no_operator_that_is_unsafe_or_does_something_else_is_ever_called():
    unsafe = [name for name in aten() if UNSAFE.fullmatch(name)]
    assert len(unsafe) > 500
    for name in ["aten._sparse_coo_tensor_unsafe.default", "aten.set_data.default", *unsafe]:
        with pytest.raises((IntegrityError, MismatchError)):
            resolve(name, (), "a program")


@pytest.mark.parametrize("name", sorted(CHECKED))
def test_operators_that_check_what_they_are_given_are_called_whatever_they_are_named(name):
    overload = "default" if hasattr(getattr(torch.ops.aten, name), "default") else "Tensor"
    assert resolve(f"aten.{name}.{overload}", (), "a program") is not None


def test_files_are_never_touched_whatever_is_allowed():
    with pytest.raises(IntegrityError, match="no operator that a program may call"):
        resolve("aten.from_file.default", ["aten"], "a program")


@pytest.mark.parametrize("name", ["aten.nothing.default", "aten.add.nothing", "aten.__class__.x"])
def test_an_operator_that_is_not_there_is_named(name):
    with pytest.raises(MismatchError, match="unknown to torch"):
        resolve(name, (), "a program")


def test_operators_of_others_have_to_be_allowed():
    assert namespace("ckptstore_tests.twice.default") == "ckptstore_tests"
    with pytest.raises(MismatchError, match=r"pass operators=\['ckptstore_tests'\]"):
        resolve("ckptstore_tests.twice.default", (), "a program")
    found = resolve("ckptstore_tests.twice.default", ["ckptstore_tests"], "a program")
    assert torch.equal(found(torch.ones(2)), torch.full((2,), 2.0))


def test_items_are_taken_out_of_results_alone():
    item = resolve("item", (), "a program")
    assert item((1, 2), 1) == 2
    for values, place in (({"a": 1}, "a"), ((1, 2), True), ("text", 0)):
        with pytest.raises(IntegrityError, match="in a program"):
            item(values, place)


def test_gradients_and_autocast_end_with_their_part():
    x = torch.ones(2, 2, requires_grad=True)
    enabled = False
    (off,) = resolve("grad", (), "a program")(enabled, lambda x: (x * 2,), x)
    assert not off.requires_grad
    assert torch.is_grad_enabled()
    autocast = resolve("autocast", (), "a program")
    where = (torch.device("cpu"), torch.bfloat16, not enabled, None)
    (half,) = autocast(*where, lambda x: (x @ x,), x)
    assert half.dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
