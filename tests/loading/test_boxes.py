"""Which bytes a slice of a tensor takes: the right ones, and few requests for them."""

from __future__ import annotations

import random
from math import prod

import pytest
import torch

from ckptstore.errors import ArgumentError
from ckptstore.loading.boxes import box_of, overlap, shape_of, spans, within

WHAT = "tensor 'w'"


def read(tensor: torch.Tensor, index, *, gap_bytes: int = 8, most_bytes: int = 64):
    """A slice as it would be read out of a file, and how many bytes in how many requests."""
    box, rest = box_of(index, tensor.shape, WHAT)
    out = torch.full(shape_of(box), -1, dtype=tensor.dtype)
    flat, count, asked = tensor.reshape(-1), 0, 0
    if prod(out.shape):
        for span in spans(
            box, tensor.shape, tensor.itemsize, gap_bytes=gap_bytes, most_bytes=most_bytes
        ):
            first, elements = span.start // tensor.itemsize, span.length // tensor.itemsize
            piece = flat[first : first + elements]
            out[within(span.box, [0] * tensor.dim(), box)] = piece.as_strided(
                shape_of(span.box), span.strides
            )
            count, asked = count + span.length, asked + 1
    return out[rest], count, asked


def some_index(draw: random.Random, shape: tuple[int, ...]):
    items: list[object] = []
    for size in shape[: draw.randint(0, len(shape))]:
        if size and draw.random() < 0.3:
            items.append(draw.randrange(-size, size))
        else:
            bounds = [draw.choice([None, draw.randint(-size - 2, size + 2)]) for _ in range(2)]
            items.append(slice(*bounds, draw.choice([None, 1, 2, 3])))
    if draw.random() < 0.3:
        items.insert(draw.randint(0, len(items)), Ellipsis)
    if draw.random() < 0.2:
        items.insert(draw.randint(0, len(items)), None)
    return tuple(items)


def test_any_slice_is_what_torch_makes_of_it():
    draw = random.Random(0)  # noqa: S311 - a test's own
    for _ in range(600):
        shape = tuple(draw.randint(0, 6) for _ in range(draw.randint(0, 4)))
        tensor = torch.arange(prod(shape), dtype=torch.int16).reshape(shape)
        index = some_index(draw, shape)
        gap, most = draw.choice([0, 4, 64]), draw.choice([2, 16, 10**6])
        try:
            wanted = tensor[index]
        except IndexError:  # an integer behind "..." that is too large for its dimension
            with pytest.raises(IndexError, match="out of range"):
                read(tensor, index)
            continue
        found, _, _ = read(tensor, index, gap_bytes=gap, most_bytes=most)

        assert torch.equal(found, wanted), (shape, index)


def test_rows_are_one_request_for_their_bytes_alone():
    tensor = torch.arange(1000, dtype=torch.int64).reshape(100, 10)
    assert read(tensor, slice(20, 50))[1:] == (30 * 80, 1)
    assert read(tensor, 7)[1:] == (80, 1)
    assert read(tensor, (7, 3))[1:] == (8, 1)
    assert read(tensor, ...)[1:] == (8000, 1)


def test_columns_that_lie_close_are_read_at_once_and_others_apart():
    tensor = torch.arange(40, dtype=torch.int64).reshape(4, 10)
    column = (slice(None), 2)

    assert read(tensor, column, gap_bytes=72, most_bytes=1000)[1:] == (3 * 80 + 8, 1)
    assert read(tensor, column, gap_bytes=71, most_bytes=1000)[1:] == (4 * 8, 4)
    assert read(tensor, column, gap_bytes=72, most_bytes=90)[1:] == (2 * 88, 2)


def test_nothing_is_read_for_nothing():
    assert read(torch.ones(4, 4), slice(3, 3))[1:] == (0, 0)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ([0, 1], "read it whole"),
        (torch.ones(4, dtype=torch.bool), "read it whole"),
        (True, "read it whole"),
        ("a", "read it whole"),
        ((0, 0, 0), "has 2 dimensions"),
        ((..., 0, ...), "has 2 dimensions"),
        (slice(None, None, -1), "step is at least 1"),
        (torch.tensor([1]), "read it whole"),
        (torch.tensor(True), "read it whole"),  # noqa: FBT003 - a mask of no dimension
        (torch.tensor(1, dtype=torch.uint8), "read it whole"),
    ],
)
def test_an_index_that_is_no_box_is_refused(index, words):
    with pytest.raises(ArgumentError, match=words):
        box_of(index, (4, 4), WHAT)


@pytest.mark.parametrize("place", [4, -5])
def test_an_integer_out_of_range_is_an_index_error_as_a_tensors(place):
    with pytest.raises(IndexError, match="out of range"):
        box_of(place, (4, 4), WHAT)


def test_steps_read_around_what_lies_between_unless_that_is_little():
    tensor = torch.arange(1000, dtype=torch.int64).reshape(100, 10)

    assert read(tensor, slice(None, None, 25), gap_bytes=100)[1:] == (4 * 80, 4)
    assert read(tensor, (3, slice(None, None, 4)), gap_bytes=23)[1:] == (3 * 8, 3)
    both = slice(None, None, 50), slice(1, None, 4)
    assert read(tensor, both, gap_bytes=24, most_bytes=1000)[1:] == (2 * 72, 2)
    rows = slice(None, None, 2)
    assert read(tensor, rows, gap_bytes=80, most_bytes=400)[1:] == (16 * 400 + 240, 17)


def test_what_a_chunk_has_of_a_box_is_counted_from_the_chunk():
    assert overlap((range(2, 6), range(4)), (4, 0), (4, 2)) == (range(2), range(2))
    assert overlap((range(2, 4), range(4)), (4, 0), (4, 2)) is None
    assert overlap((range(1, 20, 5),), (4,), (8,)) == (range(2, 8, 5),)
    assert overlap((range(1, 20, 5),), (7,), (4,)) is None
    assert overlap((range(5, 20, 5),), (4,), (8,)) == (range(1, 8, 5),)


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_chunks_have_all_of_a_box_between_them(step):
    for start in range(6):
        box = (range(start, 20, step), range(3))
        out = torch.full(shape_of(box), -1)
        tensor = torch.arange(60).reshape(20, 3)
        for first in range(0, 20, 4):
            common = overlap(box, (first, 0), (4, 3))
            if common is not None:
                rows = common[0]
                taken = tensor[first : first + 4][rows.start : rows.stop : rows.step]
                out[within(common, (first, 0), box)] = taken
        assert torch.equal(out, tensor[start::step])


@pytest.mark.parametrize("place", [torch.tensor(1), torch.tensor(-1, dtype=torch.int32)])
def test_a_tensor_of_one_integer_is_an_integer(place):
    tensor = torch.arange(6).reshape(2, 3)
    assert torch.equal(read(tensor, place)[0], tensor[place])
