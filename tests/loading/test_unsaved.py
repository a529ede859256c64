from __future__ import annotations

import functools
import types
import weakref

import pytest
import torch
from torch import nn

from ckptstore.loading.unsaved import unsaved_tensors

GLOBAL = torch.ones(1)


def found(module):
    """Return what is found beside the module's state, by identity."""
    saved = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    return list(unsaved_tensors(module, saved))


def holding(value):
    module = nn.Linear(2, 2)
    module.held = value
    return module


def same(tensors, *expected):
    return sorted(map(id, tensors)) == sorted(map(id, expected))


class Slotted:
    __slots__ = ("__weakref__", "inner", "unset")

    def __init__(self, inner):
        self.inner = inner


class SlottedChild(Slotted):
    __slots__ = ("own",)


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def method(self):
        return self


def closing_over(tensor):
    return lambda: tensor


def with_defaults(tensor, other):
    def function(a=tensor, *, b=other):
        return a, b

    return function


def with_attribute(tensor):
    def function():
        return None

    function.table = tensor
    return function


def a_generator(tensor):
    yield 1
    yield tensor


def started(tensor):
    generator = a_generator(tensor)
    next(generator)
    return generator


WAYS = {
    "itself": lambda t: t,
    "list": lambda t: [1, [t]],
    "tuple": lambda t: ((t,), "x"),
    "dict": lambda t: {"deep": {"er": t}},
    "key": lambda t: {t: None},
    "set": lambda t: {t},
    "object": lambda t: Plain(a=Plain(b=t)),
    "slots": Slotted,
    "inherited slots": SlottedChild,
    "namespace": lambda t: types.SimpleNamespace(t=t),
    "closure": closing_over,
    "default": lambda t: with_defaults(t, None),
    "keyword default": lambda t: with_defaults(None, t),
    "attribute of a function": with_attribute,
    "partial": lambda t: functools.partial(print, t),
    "partial's keyword": lambda t: functools.partial(print, end=t),
    "partial's function": lambda t: functools.partial(closing_over(t)),
    "method": lambda t: Plain(t=t).method,
    "generator": started,
    "iterator": lambda t: iter([t]),
    "cache": lambda t: functools.lru_cache(closing_over(t)),
    "hidden module": lambda t: [holding(t)],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_tensor_is_found_wherever_a_module_holds_it(way):
    tensor = torch.zeros(3)

    assert any(each is tensor for each in found(holding(way(tensor))))


def test_nothing_is_found_in_a_module_that_holds_nothing_else():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.LSTM(2, 2))

    assert found(module) == []


def test_buffers_that_are_not_saved_are_found_and_saved_ones_are_not():
    module = nn.Module()
    module.register_buffer("kept", torch.ones(1))
    module.register_buffer("table", torch.ones(2), persistent=False)
    module.register_buffer("none", None, persistent=False)

    assert same(found(module), module.table)


def test_what_submodules_hold_is_found():
    module = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    module[0][0].table = torch.ones(2)

    assert same(found(module), module[0][0].table)


def test_what_hooks_close_over_is_found():
    module, noise = nn.Linear(2, 2), torch.ones(2)
    module.register_forward_hook(lambda _module, _args, output: output + noise)

    assert same(found(module), noise)


def test_a_saved_tensor_held_a_second_time_is_saved():
    module = nn.Linear(2, 2)
    module.by_hand = [module.weight, {"bias": module.bias}]

    assert found(module) == []


def test_a_view_of_a_saved_tensor_is_another_tensor():
    module = nn.Linear(2, 2)
    module.view = module.weight.data[:1]

    assert same(found(module), module.view)


def test_each_tensor_is_found_once():
    tensor = torch.zeros(3)

    assert same(found(holding([tensor, (tensor,), {"again": tensor}])), tensor)


def test_what_a_hidden_module_has_is_found_though_it_would_be_its_own_state():
    target = nn.Linear(2, 2)

    assert same(found(holding([target])), target.weight, target.bias)


def test_cycles_end():
    one, other, tensor = Plain(), Plain(), torch.zeros(1)
    one.other, other.one, other.tensor = other, one, tensor
    one.me = [one]
    module = holding(one)
    one.owner = module
    nested = []
    nested.append(nested)
    module.nested = nested

    assert same(found(module), tensor)


def test_no_recursion_limit_is_met():
    deep = torch.zeros(1)
    value = deep
    for _ in range(20_000):
        value = [value]

    assert same(found(holding(value)), deep)


def test_globals_classes_and_weak_references_are_not_the_modules_own():
    class WithTable(nn.Module):
        table = torch.ones(3)

        def forward(self):
            return GLOBAL

    module = WithTable()
    kept = torch.zeros(2)
    module.reference = weakref.ref(kept)
    module.function = lambda: GLOBAL
    module.kind = WithTable
    module.library = torch

    assert found(module) == []


def test_a_cell_that_is_not_filled_holds_nothing():
    def outer():
        def inner():
            return late

        module = holding(inner)
        nothing = found(module)
        late = torch.zeros(1)
        return nothing, found(module), late

    before, after, late = outer()

    assert before == []
    assert same(after, late)


def test_what_getters_make_on_the_way_hides_nothing():
    """An id is used again as soon as its object is gone: here the arguments of many partials."""

    class Fresh(functools.partial):
        args = property(lambda self: (self.kept,))

    def fresh(tensor):
        partial = Fresh(print)
        partial.kept = tensor
        return partial

    tensors = [torch.zeros(1) for _ in range(50)]

    assert same(found(holding([fresh(tensor) for tensor in tensors])), *tensors)


def test_what_hangs_on_a_tensor_is_found():
    module = nn.Linear(2, 2)
    module.weight.noise = torch.ones(2)
    mask, other = torch.ones(2, 2), torch.ones(2)
    module.weight.register_hook(lambda grad: grad * mask)
    module.bias.register_post_accumulate_grad_hook(lambda parameter: parameter.add_(other))

    assert same(found(module), module.weight.noise, mask, other)
