"""What is a slip of another name, and what is a name of its own."""

from __future__ import annotations

import pytest

from ckptstore.state.slips import close_to

NAMES = frozenset({"epoch", "model", "rng", "val_loss"})


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("epochs", "epoch"), ("modle", "model"), ("vall_loss", "val_loss"), ("eopch", "epoch")],
)
def test_a_letter_too_many_or_two_swapped_is_a_slip(slip, meant):
    assert close_to(slip, NAMES) == meant


@pytest.mark.parametrize("name", ["nrg", "loss", "teacher", ""])
def test_a_short_or_another_name_is_none(name):
    assert close_to(name, NAMES) is None
