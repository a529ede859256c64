"""Filesystem objects: one a process, never shared, never carried over."""

from __future__ import annotations

import os
from multiprocessing.reduction import ForkingPickler

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
