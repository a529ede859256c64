"""Filesystem objects: one a process, never shared, never carried over."""

from __future__ import annotations

import os
import sys
from multiprocessing.reduction import ForkingPickler

import fsspec
import pytest

from ckptstore.errors import ArgumentError
from ckptstore.storage.instances import Instances


def test_one_process_has_one_filesystem_and_no_other_store_has_it():
    instances = Instances("memory", {})

    assert instances.get() is instances.get()
    assert instances.get() is not Instances("memory", {}).get()


def test_another_process_makes_its_own_and_leaves_the_parents_alone(monkeypatch):
    instances = Instances("memory", {})
    parents = instances.get()
    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert instances.get() is not parents
    instances.drop()

    monkeypatch.undo()
    assert instances.get() is parents


def test_a_copy_for_another_process_brings_options_and_no_filesystem():
    instances = Instances("memory", {"some": "option"})
    instances.get()

    copied = ForkingPickler.loads(ForkingPickler.dumps(instances))

    assert copied._made == {}
    assert copied._options["some"] == "option"
    assert copied.get() is not instances.get()


def test_listings_are_not_cached_unless_asked_for():
    assert not Instances("memory", {}).get().dircache.use_listings_cache
    asked = Instances("memory", {"use_listings_cache": True})
    assert asked.get().dircache.use_listings_cache


class Strict(fsspec.AbstractFileSystem):
    """Takes one option, and fails on another for a reason of its own."""

    protocol = "strict"

    def __init__(self, *, endpoint_url=None, broken=None, **others):
        for name in ("skip_instance_cache", "use_listings_cache"):
            others.pop(name, None)
        if broken:
            raise TypeError("broken is of no use")
        if others:
            raise TypeError(f"__init__() got an unexpected keyword argument '{next(iter(others))}'")
        self.endpoint_url = endpoint_url
        super().__init__()


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "strict", Strict)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "hunter2"}, "no option 'endpoint'; did you mean 'endpoint_url'?"),
        ({"zzz": "hunter2"}, "no option 'zzz', so leave it out or mend its name"),
    ],
)
def test_an_option_that_a_filesystem_does_not_take_is_named_without_its_value(options, said):
    with pytest.raises(ArgumentError) as raised:
        Instances("strict", options).get()

    assert str(raised.value) == f"storage_options: strict:// takes {said}"
    assert raised.value.__cause__ is None


@pytest.mark.usefixtures("strict")
def test_another_mistake_is_shown_as_it_is():
    with pytest.raises(TypeError, match="broken is of no use") as raised:
        Instances("strict", {"broken": True}).get()
    assert not isinstance(raised.value, ArgumentError)
