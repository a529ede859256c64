# ruff: noqa: NPY002, S311 - the global generators are what must not move
from __future__ import annotations

import functools
import gc
import random
import re
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from ckptstore.errors import UsageError
from ckptstore.loading.construct import checked, construct_plainly, construct_skipping
from ckptstore.loading.skipping import Skipping
from tests.loading import architectures as arch

WHAT = "part 'model' of digits@7"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]

DRAWS = (
    r"it draws random numbers and keeps a tensor that is not saved \(torch.float32, shape \[{}\]\)"
)
MADE = r"a tensor that is not saved \(torch.float32, shape \[{}\]\) is made from random .*values"
ESCAPED = "its code depends on random initial values, through {}"

REASONS = {
    arch.RandomTable: DRAWS.format("4, 4"),
    arch.RandomAttribute: DRAWS.format("3"),
    arch.RandomNumber: ESCAPED.format("item"),
    arch.RandomNumberInside: ESCAPED.format("item"),
    arch.RandomTableForked: MADE.format("4, 4"),
    arch.RandomTableUnseen: DRAWS.format("4, 4"),
    arch.DerivedAttribute: MADE.format(""),
    arch.DerivedNumber: ESCAPED.format("__float__"),
    arch.DerivedBranch: ESCAPED.format("__bool__"),
    arch.DerivedByWriting: MADE.format("2, 4, 4"),
    arch.DerivedThroughNumpy: ESCAPED.format("numpy"),
    arch.ViewOfParameter: MADE.format("2, 4"),
    arch.HookedTable: DRAWS.format("4"),
    arch.HiddenModule: MADE.format("4(, 4)?"),
    arch.old_weight_norm: MADE.format("3, 4"),
    arch.old_spectral_norm: DRAWS.format("3, 4"),
    arch.orthogonal: ESCAPED.format("allclose"),
    arch.pruned: MADE.format("3, 4"),
}


def generators():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


# ------------------------------------------------------------ skipping


@pytest.mark.parametrize("make", REASONS, ids=lambda make: make.__name__)
def test_why_a_class_is_built_plainly_is_said(make):
    module, reason = construct_skipping(make)

    assert module is None
    assert re.fullmatch(REASONS[make], reason)


def test_every_class_that_is_built_plainly_has_its_reason_here():
    assert set(REASONS) == set(arch.PLAIN)


@pytest.mark.parametrize("make", arch.SKIPPED, ids=lambda make: make.__name__)
def test_other_classes_are_built_without_their_random_initialisation(make):
    module, reason = construct_skipping(make)

    assert reason is None
    assert isinstance(module, nn.Module)


def test_a_lazy_module_beside_skipped_ones_is_built_plainly():
    make = functools.partial(nn.Sequential, nn.Linear(2, 2), nn.LazyLinear(3))
    assert construct_skipping(make)[1] is None  # made beforehand: nothing was skipped

    module, reason = construct_skipping(lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)))

    assert (module, reason) == (None, "'1.weight' is lazy")


def test_a_lazy_tensor_beside_the_state_is_named_without_a_shape():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.later = [nn.LazyLinear(3, bias=False)]
            torch.rand(1)

    assert construct_skipping(Hidden)[1] == (
        "it draws random numbers and keeps a tensor that is not saved (lazy)"
    )


def test_what_the_class_raises_without_its_numbers_is_the_reason():
    class Checks(nn.Linear):
        def __init__(self):
            before = torch.get_rng_state()
            super().__init__(3, 3)
            if torch.equal(before, torch.get_rng_state()):
                raise LookupError("nothing was drawn")

    assert construct_skipping(Checks) == (
        None,
        "without its random initialisation it raised LookupError: nothing was drawn",
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_reason(stop):
    def make():
        raise stop

    before = generators()
    with pytest.raises(stop):
        construct_skipping(make)

    assert generators() == before


@pytest.mark.parametrize("make", [dict, lambda: (nn.Linear(2, 2),), lambda: nn.Linear])
def test_what_is_no_module_is_not_taken_for_one(make):
    assert construct_skipping(make) == (None, "it is no module")


def draws_everything():
    random.random(), np.random.rand(), torch.rand(1)
    return nn.Linear(2, 2)


def test_every_generator_is_where_it_was():
    before = generators()

    assert construct_skipping(draws_everything)[1] is None
    construct_skipping(arch.RandomTable)

    assert generators() == before


def test_what_was_not_skipped_is_as_a_plain_build_makes_it():
    """Without anything skipped, all that was drawn is what a plain build would draw."""

    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.randn(3)

    torch.manual_seed(5)
    module, reason = construct_skipping(Drawn)
    plain = construct_plainly(Drawn, WHAT)

    assert reason is None
    assert torch.equal(module.table, plain.table)


@pytest.mark.parametrize(
    "make",
    [arch.Gpt, arch.RandomTable, nn.Module],
    ids=["skipped", "plain", "empty"],
)
def test_nothing_of_a_module_that_is_not_kept_stays_alive(make):
    alive = []

    def watched():
        module = make()
        alive.append(weakref.ref(module))
        alive.extend(map(weakref.ref, module.parameters()))
        return module

    gc.collect()
    gc.disable()
    try:
        module, _ = construct_skipping(watched)
        assert module is None or alive[0]() is module
        del module
        assert [ref() for ref in alive if ref() is not None] == []
    finally:
        gc.enable()


def test_what_a_class_raised_keeps_no_half_built_module_alive():
    alive = []

    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)
            alive.append(weakref.ref(self.fc.weight))
            raise RuntimeError

    construct_skipping(Fragile)

    assert [ref() for ref in alive] == [None]


def test_a_parameter_that_something_else_keeps_is_not_left_uninitialised():
    @functools.lru_cache
    def shared():
        parameters = [nn.Parameter(torch.full((6, 6), 77.0)) for _ in range(4)]
        nn.init.normal_(parameters[0])
        nn.init.xavier_uniform_(parameters[1])
        nn.init.trunc_normal_(parameters[2])
        nn.init.kaiming_uniform_(parameters[3].data)
        return parameters

    class Borrows(nn.Linear):
        def __init__(self):
            super().__init__(3, 3)
            shared()

    assert construct_skipping(Borrows)[1] is None
    for parameter in shared():
        assert 0.01 < parameter.std() < 2
        assert parameter.abs().max() < 7


@pytest.mark.parametrize("outcome", ["raises", "no module", "doubtful"])
def test_what_others_keep_is_initialised_whatever_became_of_the_build(outcome):
    kept = []

    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((6, 6), 77.0))
            nn.init.uniform_(self.weight)
            kept.append(self.weight)
            if outcome == "raises":
                raise RuntimeError
            self.drawn = torch.rand(3)

    def make():
        module = Shares()
        return [module] if outcome == "no module" else module

    module, _ = construct_skipping(make)

    assert module is None
    assert kept[0].max() <= 1


def test_a_discarded_module_is_gone_before_what_others_keep_is_initialised(monkeypatch):
    """Or all of it would be initialised, only to be thrown away."""
    made, alive = [], []
    monkeypatch.setattr(
        Skipping, "fill_others", lambda *_: alive.extend(ref() is not None for ref in made)
    )

    def make():
        module = arch.RandomTable()
        made.append(weakref.ref(module.fc.weight))
        return module

    construct_skipping(make)

    assert alive == [False]


def test_after_a_build_initialisation_is_as_before():
    torch.manual_seed(4)
    expected = nn.Linear(3, 3).weight

    construct_skipping(arch.Gpt)

    torch.manual_seed(4)
    assert torch.equal(nn.Linear(3, 3).weight, expected)


# ------------------------------------------------------------ plainly


def test_a_plain_build_skips_nothing():
    torch.manual_seed(4)
    expected = nn.Linear(3, 3).weight

    torch.manual_seed(4)
    module = construct_plainly(lambda: nn.Linear(3, 3), WHAT)

    assert torch.equal(module.weight, expected)


def test_the_classes_own_error_is_the_cause_and_advice_is_given():
    def make():
        return nn.Linear(in_feature=3)

    with pytest.raises(
        UsageError,
        match=r"building the module for part 'model' of digits@7 raised TypeError: .*'in_feature'.*"
        r"model_config=\{\.\.\.\}",
    ) as caught:
        construct_plainly(make, WHAT)

    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(("value", "kind"), [({}, "dict"), (None, "NoneType"), (nn.Linear, "type")])
def test_a_callable_that_builds_no_module_is_refused(value, kind):
    with pytest.raises(
        UsageError, match=rf"digits@7 returned {kind}; it must return a torch\.nn\.Module"
    ):
        construct_plainly(lambda: value, WHAT)


def test_a_module_is_one():
    module = nn.Linear(2, 2)

    assert checked(module, WHAT) is module
