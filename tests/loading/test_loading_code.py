"""Loading code of a module's own: how lax it is asked to be, and what is made of what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.errors import MismatchError
from ckptstore.loading.fit import Leave, fit
from ckptstore.loading.loading_code import run_loading_code


def everything(_name):
    return True


def run(module, state, leave=None):
    found = fit(module, state, "a test", leave)
    return run_loading_code(module, state, found, "a test", assign=False)


def test_all_of_it_leaves_nothing():
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)

    assert not run(module, other.state_dict())
    assert torch.equal(module.weight, other.weight)


def test_what_may_be_left_is_reported_and_the_rest_loaded():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state = {"0.weight": torch.ones(2, 2), "1.bias": torch.ones(3), "2.bias": torch.ones(2)}
    report = run(module, state, Leave(everything, {"0.bias": None}, strict=False))

    assert report.left_out == ("0.bias",)
    assert report.missing == ("1.weight",)
    assert report.mismatched == ("1.bias",)
    assert report.unexpected == ("2.bias",)
    assert torch.equal(module[0].weight, torch.ones(2, 2))


def test_strictly_only_what_nobody_saved_is_left():
    module = nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2)}

    assert run(module, state, Leave(everything, {"bias": None})).left_out == ("bias",)
    with pytest.raises(MismatchError, match="'bias'"):
        run(module, state, Leave(everything))


def hooked(module):
    module.register_load_state_dict_pre_hook(lambda *_: None)
    return module


def test_what_code_of_its_own_passes_over_is_refused_or_reported():
    state = {"weight": torch.ones(2, 2), "more": torch.ones(1)}
    with pytest.raises(MismatchError) as caught:
        run(hooked(nn.Linear(2, 2)), dict(state), Leave(everything))
    assert len(caught.value.problems) == 2

    report = run(hooked(nn.Linear(2, 2)), dict(state), Leave(everything, strict=False))
    assert (report.missing, report.unexpected) == (("bias",), ("more",))


asked: list[dict[str, bool]] = []


class Lax(nn.Linear):
    """Says what it was asked."""

    def load_state_dict(self, state_dict, **options):
        asked.append(options)
        return super().load_state_dict(state_dict, strict=False)


class Plain(nn.Linear):
    """Can't be asked anything."""

    def load_state_dict(self, state_dict):
        asked.append({})
        return super().load_state_dict(state_dict, strict=False)


@pytest.mark.parametrize(("kind", "options"), [(Lax, {"strict": False}), (Plain, {})])
def test_an_override_is_asked_to_be_lax_if_it_can_be(kind, options):
    run(kind(2, 2), {"weight": torch.ones(2, 2)}, Leave(everything, {"bias": None}))
    assert asked.pop() == options


@pytest.mark.parametrize("kind", [Lax, Plain])
def test_an_override_decides_how_strict_it_is_where_nothing_may_be_left(kind):
    run(kind(2, 2), nn.Linear(2, 2).state_dict())
    assert asked.pop() == {}
