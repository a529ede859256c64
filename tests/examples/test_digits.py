"""The data and the functions that every example stands on."""

from __future__ import annotations

import numpy as np
import torch

from examples import digits


def test_three_constant_pixels_are_divided_by_one():
    data = digits.load()

    constant = data.train.pixels.std(axis=0) == 0

    assert constant.sum() == 3
    assert (data.std[constant] == 1).all()
    assert (data.std > 0).all()


def test_no_image_is_in_two_splits():
    data = digits.load()
    splits = [data.train, data.val, data.held_out]

    assert [len(split.labels) for split in splits] == [1257, 270, 270]
    assert len(np.unique(np.concatenate([split.pixels for split in splits]), axis=0)) == 1797


def test_splits_are_the_same_each_time():
    first = digits.load()
    again = digits.load.__wrapped__()

    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.held_out.labels, again.held_out.labels)


def test_labels_of_chosen_classes_start_from_zero():
    chosen = digits.load().val.only(5, 9)

    assert sorted(set(chosen.labels.tolist())) == [0, 1, 2, 3, 4]
    assert len(chosen.pixels) == len(chosen.images) == len(chosen.labels)


def test_one_flipped_bit_changes_the_digest():
    model = digits.SimpleNN(hidden=4)
    before = digits.digest(model)

    with torch.no_grad():
        model.head.bias.view(torch.int32)[0] ^= 1

    assert digits.digest(model) != before
