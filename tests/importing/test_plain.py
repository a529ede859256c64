from __future__ import annotations

import enum
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ckptstore.errors import ImportRefusedError
from ckptstore.importing import plain as module
from ckptstore.importing.plain import Held, to_plain

Point = namedtuple("Point", "x y")  # noqa: PYI024 - as users write it


class Level(enum.IntEnum):
    HIGH = 2


class Settings:
    def __init__(self):
        self.rate = 0.1
        self.inner = SimpleNamespace(depth=2)


class Words(dict):
    pass


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 1.5, 1j, "a", b"b", bytearray(b"c"), [1], (1,), {1}, frozenset({1}),
        deque([1], 3), {"a": 1, 2: "b", (1, None): 3}, OrderedDict(a=1), Counter("aa"),
        defaultdict(list, a=[1]), torch.Size([1]), torch.float16, torch.device("cpu"),
        torch.strided, np.float32(1), np.dtype("<f4"),
    ],
)  # fmt: skip
def test_what_a_tree_holds_stays_as_it_is(value):
    found = to_plain(value, "it")
    assert found.value == value
    assert type(found.value) is type(value)
    assert found.notes == []


def test_tensors_and_arrays_are_the_very_same_objects():
    tensor, array = torch.ones(2), np.ones(2)
    found = to_plain({"t": tensor, "again": tensor, "a": array}, "it").value
    assert found["t"] is found["again"] is tensor
    assert found["a"] is array


def test_metadata_of_a_state_dict_stays():
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert to_plain(state, "it").value._metadata == state._metadata


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (Level.HIGH, 2),
        (Words(a=1), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (np.array([1, "a"], dtype=object), [1, "a"]),
        (Settings(), {"rate": 0.1, "inner": {"depth": 2}}),
        (Settings, f"{__name__}.Settings"),
        (defaultdict(lambda: 1, a=2), {"a": 2}),
        ({Level.HIGH: 1}, {f"{Level.HIGH!r}": 1}),
    ],
)
def test_other_classes_become_what_they_hold_and_that_is_said(value, plain):
    found = to_plain({"x": value}, "it")
    assert found.value == {"x": plain}
    assert len(found.notes) >= 1
    assert all(note.startswith("x") for note in found.notes)


def test_paths_and_namespaces_are_nothing_to_speak_of():
    found = to_plain({"p": Path("/a"), "n": SimpleNamespace(b=1)}, "it")
    assert (found.value, found.notes) == ({"p": "/a", "n": {"b": 1}}, [])


def test_objects_are_kept_as_their_state():
    def state(value):
        return ({"w": 1}, Held("module", "a.B")) if isinstance(value, Settings) else None

    found = to_plain({"model": Settings()}, "it", state)
    assert found.value == {"model": {"w": 1}}
    assert found.held == {"model": Held("module", "a.B")}


def test_a_list_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(ImportRefusedError, match="60 levels"):
        to_plain(loop, "it")


def test_a_list_that_is_far_longer_than_its_file_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_VALUES", 10_000)
    value = [1]
    for _ in range(20):
        value = [value, value]
    with pytest.raises(ImportRefusedError, match="10000 values"):
        to_plain(value, "it")


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, [{"a": ("\udfff",)}]])
def test_a_lone_surrogate_is_no_text(value):
    with pytest.raises(ImportRefusedError, match="lone surrogate"):
        to_plain(value, "it")


def test_text_that_no_line_has_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 10)
    with pytest.raises(ImportRefusedError, match="at most 10"):
        to_plain({"x": "a" * 11}, "it")


def test_what_is_said_of_a_file_is_not_far_longer_than_it():
    long = "k" * 100_000
    found = to_plain({long: [Level.HIGH] * 3000}, "it")
    assert found.value == {long: [2] * 3000}
    assert len(found.notes) == module.MAX_NOTES + 1
    assert found.notes[-1].endswith("and so were more")
    assert max(map(len, found.notes)) < module.MAX_PATH + 200
