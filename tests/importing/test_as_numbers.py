"""Numbers of a foreign checkpoint, however they were written."""

from __future__ import annotations

import numpy as np
import torch

from ckptstore.importing.as_numbers import numbers_in, real, unlike, whole


def test_numbers_of_every_kind_are_read():
    ones = (3, 3.0, torch.tensor(3), np.int64(3), "3", " 3\n", torch.tensor([3]), np.array([[3]]))
    assert [whole(x) for x in ones] == [3] * 8
    odd = (1.5, True, "3.5", "x", float("nan"), float("inf"), 2**70, None, np.array([3, 3]))
    assert [whole(x) for x in odd] == [None] * 9
    assert real("3") is None
    assert real(torch.tensor(0.5)) == real(np.array(0.5)) == real(0.5) == 0.5
    assert [real(x) for x in (torch.ones(2), True, 1j, "x", 10**400)] == [None] * 5


def test_numbers_have_their_paths_and_all_else_is_told():
    value = {"val": {"loss": 0.5, "note": "x"}, "acc": torch.tensor(1.0), "none": None}

    assert numbers_in(value) == ({"acc": 1.0, "val/loss": 0.5}, ["val/note"])


def test_only_other_numbers_are_unlike():
    nan = float("nan")

    assert unlike({"a": 1, "b": nan, "c": 2, "d": 3}, {"a": 1.0, "b": nan, "c": 5}) == ["c"]
    assert unlike({"a": nan}, {"a": 1.0}) == ["a"]
