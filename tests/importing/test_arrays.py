from __future__ import annotations

import numpy as np
import pytest

from ckptstore.importing.arrays import UnusualError, plain_array, plain_dtype


def again(dtype):
    _, args, state = np.dtype(dtype).__reduce__()
    return plain_dtype(args, state)


@pytest.mark.parametrize(
    "code", ["?", "i1", "<i8", ">i8", "u2", "f2", ">f4", "f8", "c8", "c16", "U3", ">U3", "S5"]
)
def test_plain_arrays_come_back_in_either_order(code):
    array = np.ones((2, 3), np.dtype(code), order="F")
    assert again(code) == array.dtype
    found = plain_array(again(code), (2, 3), array.tobytes("F"), fortran=True)
    assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())


@pytest.mark.parametrize("code", ["O", "V8", "M8[s]", "i4,f4", "g", "(3,)f4"])
def test_dtypes_that_are_not_plain_are_refused(code):
    with pytest.raises(UnusualError):
        again(code)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("f8", (3, "<", (np.dtype("O"), (1,)), None, None, 8, 1, 0)),
        ("S4", (3, "<", None, None, None, -8, 1, 0)),
        ("U4", (3, "<", None, None, None, 7, 4, 8)),
        ("f8", (3, "<", None, None, None, 8, 8, 63)),
        ("f8", (3, "x", None, None, None, -1, -1, 0)),
        ("f8", (3, "<")),
    ],
)
def test_dtypes_that_contradict_themselves_are_refused(code, state):
    with pytest.raises(ValueError, match="dtype"):
        plain_dtype((code, False, True), state)


@pytest.mark.parametrize(
    ("code", "shape", "data"),
    [
        ("f8", (2,), b"12345678"),
        ("f8", (10**12,), b""),
        ("f8", (-1,), b""),
        ("S0", (10**12,), b""),
        ("U1", (1,), b"\xff\xff\xff\x7f"),
        ("f8", 1, b"12345678"),
        ("f8", (1,), [1.0]),
    ],
)
def test_arrays_that_are_not_as_long_as_their_bytes_are_refused(code, shape, data):
    with pytest.raises(ValueError, match="array"):
        plain_array(np.dtype(code), shape, data, fortran=False)
