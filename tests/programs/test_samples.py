"""What program= takes, and samples that are grown and cut."""

from __future__ import annotations

import pytest
import torch

from ckptstore.errors import ArgumentError
from ckptstore.programs.samples import Sample, copied, first_rows, grown, on, sample_of

X, Y = torch.ones(1, 3), torch.ones(4, 3)


def test_a_tensor_a_tuple_and_a_dict_are_samples():
    assert sample_of(X) == Sample((X,), {})
    assert sample_of((X, Y)) == Sample((X, Y), {})
    assert sample_of({"args": [X], "kwargs": {"y": Y}}) == Sample((X,), {"y": Y})
    assert sample_of({"kwargs": {"y": Y}, "dynamic_shapes": 3}) == Sample((), {"y": Y}, 3)


@pytest.mark.parametrize("given", ["x", [X], {"args": X}, {"kwargs": {}}, {"x": X}, {"args": ()}])
def test_anything_else_is_refused(given):
    with pytest.raises(ArgumentError, match="program= takes a sample tensor"):
        sample_of(given)


def test_one_tensor_passed_twice_is_two():
    sample = on(Sample((X, X), {}), torch.device("cpu"))
    assert sample.args[0] is not sample.args[1]
    assert sample.args[0].data_ptr() == X.data_ptr()


def test_a_copy_has_memory_of_its_own():
    sample = copied(Sample((X,), {"n": 3}))
    assert sample.args[0].data_ptr() != X.data_ptr()
    assert sample.kwargs == {"n": 3}


def test_one_row_becomes_two_and_the_first_is_taken():
    sample = grown(Sample((X, Y, torch.tensor(1.0)), {"batch": {"x": X, "n": 3}}))
    assert [leaf.shape for leaf in sample.args] == [(2, 3), (4, 3), ()]
    assert sample.kwargs["batch"]["x"].shape == (2, 3)
    cut = first_rows(sample, [True, False, False, False, False])
    assert [leaf.shape for leaf in cut.args] == [(1, 3), (4, 3), ()]
    assert len(cut.leaves()) == 5
