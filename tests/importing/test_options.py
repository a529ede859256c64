from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from ckptstore.errors import ArgumentError
from ckptstore.importing.options import ImportOptions, Told, told_of


def test_what_is_said_is_what_counts():
    told = told_of({"rename": {"a.": ""}, "again": True}, epoch=3)
    assert told == Told(epoch=3, rename={"a.": ""}, again=True)


def test_every_option_is_one_of_told():
    fields = {field.name for field in dataclasses.fields(Told)}
    assert fields == {*ImportOptions.__annotations__, "epoch", "step", "metrics"}


@pytest.mark.parametrize(
    "options",
    [
        {"trust": True},
        {"trust_pickle": 1},
        {"trust_pickle": None},
        {"keys": ["a"]},
        {"keys": {1: "model"}},
        {"keys": {"a": 1}},
        {"rename": {"a": None}},
        {"ties": {"a": 1}},
        {"config": 5},
        {"timeout": 60},
        {"timeout": timedelta(0)},
    ],
)
def test_anything_else_is_refused(options):
    with pytest.raises(ArgumentError):
        told_of(options)
