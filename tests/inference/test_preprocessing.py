"""Statistics: refused while they can be mended, applied as NumPy applies them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptstore.errors import ArgumentError
from ckptstore.inference.preprocessing import check, sample_shape


def statistics(mean=(0.0, 0.0), std=(1.0, 1.0)):
    return {"mean": mean, "std": std}


@pytest.mark.parametrize(
    "make", [list, tuple, np.array, torch.tensor, lambda x: np.array(x, np.float32)]
)
def test_lists_arrays_and_tensors_become_float64(make):
    checked = check({"mean": make([1.5, 2.5]), "std": make([3.0, 4.0])})

    assert checked.mean.dtype == checked.std.dtype == np.float64
    assert checked.mean.tolist() == [1.5, 2.5]


def test_they_are_applied_in_float64_as_numpy_broadcasts():
    mean, std = np.random.default_rng(0).random((2, 3, 1, 1))
    batch = np.random.default_rng(1).random((5, 3, 4, 4))
    checked = check({"mean": mean, "std": std})

    assert (checked.apply(batch) == (batch - mean) / std).all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_std_that_is_not_positive_names_its_columns(value):
    std = [1.0, value, 1.0, value]
    with pytest.raises(ArgumentError, match=r"std is zero or negative in column\(s\) 1, 3: a cons"):
        check(statistics([0.0] * 4, std))


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")]
)
@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_that_are_not_finite_name_their_columns(name, value, what):
    given = statistics([0.0] * 3, [1.0] * 3)
    given[name][2] = value
    with pytest.raises(ArgumentError, match=rf"{name} is {what} in column\(s\) 2: look") as raised:
        check(given)
    assert ("NaN" in str(raised.value)) == (what == "NaN")
    assert "negative" not in str(raised.value)


def test_everything_wrong_is_said_at_once():
    with pytest.raises(ArgumentError) as raised:
        check(statistics([np.nan, 0.0, -np.inf, 0.0], [1.0, 0.0, np.nan, np.inf]))
    said = str(raised.value)
    for problem in (
        "mean is NaN in column(s) 0:",
        "mean is infinite in column(s) 2:",
        "std is NaN in column(s) 2:",
        "std is infinite in column(s) 3:",
        "std is zero or negative in column(s) 1:",
    ):
        assert problem in said


def test_columns_of_images_are_named_by_all_their_numbers():
    std = np.ones((2, 3))
    std[1, 2] = 0
    with pytest.raises(ArgumentError, match=r"column\(s\) \(1, 2\)"):
        check(statistics(np.zeros((2, 3)), std))


def test_many_columns_are_counted():
    with pytest.raises(ArgumentError, match=r"0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 54 more"):
        check(statistics(np.zeros(64), np.zeros(64)))


def test_a_scalar_std_of_zero_has_no_column():
    with pytest.raises(ArgumentError, match="std is zero or negative: "):
        check(statistics(0.0, 0.0))


@pytest.mark.parametrize(
    "given",
    [
        {"mean": [0.0]},
        {"mean": [0.0], "std": [1.0], "scale": 2},
        {"mean": [0.0], "sd": [1.0]},
        [0.0, 1.0],
        "standard",
        {},
        torch.nn.Identity(),
    ],
)
def test_anything_else_is_refused(given):
    with pytest.raises(ArgumentError, match=r'preprocessing= takes \{"mean": …, "std": …\}'):
        check(given)


@pytest.mark.parametrize("value", ["x", [[1.0], [1.0, 2.0]], None, {"a": 1}, 1j, np.array([1j])])
def test_values_that_are_no_numbers_are_refused(value):
    with pytest.raises(
        ArgumentError, match=r"preprocessing=: mean takes (real numbers|numbers of one shape)"
    ):
        check(statistics(value))


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ArgumentError, match=r"mean has shape \(2,\) and std \(3,\)"):
        check(statistics([0.0] * 2, [1.0] * 3))


# ------------------------------------------------------------ one sample's shape


def test_the_mean_fixes_what_one_sample_is():
    assert sample_shape(check(statistics()), None) == (2,)
    assert sample_shape(check(statistics(np.zeros(3), 1.0)), None) == (3,)
    assert sample_shape(check(statistics(0.0, np.ones((2, 2)))), None) == (2, 2)


def test_a_scalar_mean_fixes_nothing():
    assert sample_shape(check(statistics(0.0, 1.0)), None) is None
    assert sample_shape(None, None) is None


def test_a_sample_goes_before_the_mean():
    checked = check(statistics(np.zeros((3, 1, 1)), np.ones((3, 1, 1))))

    assert sample_shape(checked, np.zeros((3, 8, 8))) == (3, 8, 8)
    assert sample_shape(None, torch.zeros(2, 3, dtype=torch.bfloat16)) == (2, 3)
    assert sample_shape(None, [1, 2, 3]) == (3,)


def test_a_sample_that_does_not_go_with_the_statistics_is_refused():
    with pytest.raises(
        ArgumentError, match=r"sample= has shape \(3,\), and the statistics have \(2,\)"
    ):
        sample_shape(check(statistics()), [1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="sample= has shape"):
        sample_shape(check(statistics(np.zeros((2, 3)), np.ones((2, 3)))), np.zeros(3))


@pytest.mark.parametrize("sample", ["text", [[1], [1, 2]], {"a": 1}, [None], 1j])
def test_a_sample_that_is_no_array_of_numbers_is_refused(sample):
    with pytest.raises(ArgumentError, match="sample= takes "):
        sample_shape(None, sample)
