"""What became known later, told again where its versions were copied to."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore.errors import CopyWarning
from ckptstore.format.facts import Settings
from ckptstore.saving import journaling
from ckptstore.upkeep.retelling import KINDS
from tests.upkeep.copies import is_indexed_rightly


@pytest.fixture
def here(tmp_path):
    store = Store(tmp_path / "here", monitor="acc", mode="max")
    for epoch in range(3):
        store.save({"w": torch.ones(3) * epoch}, run="r", epoch=epoch, acc=epoch / 10, rng=False)
    return store


@pytest.fixture
def there(tmp_path):
    return Store(tmp_path / "there")


def decide(store, monitor):
    """Give the run another monitor."""
    wanted = Settings(monitor, "min")
    store._writer("r").append(journaling.set_settings(lambda _: wanted))


def journal(store):
    store._catalog.sync("r")
    return [entry for _, entry in store._catalog.journal("r", KINDS)]


def test_tags_metrics_notes_epochs_and_settings_come_along(here, there):
    here.tag("r@1", "prod")
    here.tag("r@2", "prod")
    here.get("r@1").log(test=0.5)
    here.get("r@1").log(test=0.75, other=1)
    here.run("r").log(epoch=7, acc=0.0)
    here.note("r@3", "odd")
    copied = here.copy_to(there)
    assert there.get("r@prod").ref == "r@2"
    assert there.get("r@1").metrics == {"acc": 0.0, "test": 0.75, "other": 1}
    assert there.get("r@3").head.epoch == 2
    assert there._catalog.version_facts("r", 3).note == "odd"
    assert there._catalog.settings("r") == here._catalog.settings("r")
    assert there._catalog.logged(["r"]) == here._catalog.logged(["r"])
    assert there.best(run="r").ref == "r@3"
    assert copied.entries == 6
    assert is_indexed_rightly(there)


def test_an_entry_keeps_its_time_and_who_wrote_it(here, there):
    here.tag("r@2", "prod")
    here.copy_to(there)
    assert journal(there) == journal(here)


def test_told_once_it_is_not_told_again_not_even_back(here, there):
    here.tag("r@2", "prod")
    here.get("r@1").log(test=0.5)
    here.copy_to(there)
    before = journal(there)
    assert here.copy_to(there).entries == 0
    assert there.copy_to(here).entries == 0
    assert journal(there) == before


def test_what_comes_later_follows(here, there):
    here.tag("r@1", "prod")
    here.copy_to(there)
    here.tag("r@3", "prod")
    here.get("r@1").log(test=0.5)
    assert here.copy_to(there).entries == 2
    assert there.get("r@prod").ref == "r@3"
    here.untag("prod", run="r")
    here.copy_to(there)
    assert there._catalog.facts("r").tags == {}


def test_versions_have_their_numbers_there(here, there):
    there.save({"w": torch.zeros(1)}, run="r", rng=False)
    here.tag("r@2", "prod")
    here.get("r@2").log(test=0.5)
    here.copy_to(there)
    assert there.get("r@prod").ref == "r@3"
    assert there.get("r@3").metrics["test"] == 0.5


def test_with_some_versions_only_what_is_said_of_them_comes_along(here, there):
    here.tag("r@1", "old")
    here.tag("r@2", "prod")
    here.get("r@1").log(test=0.5)
    here.run("r").log(epoch=7, acc=0.0)
    here.copy_to(there, ref="r@2")
    assert there._catalog.facts("r").tags == {"prod": 1}
    assert there.get("r@1").metrics == {"acc": 0.1}
    assert there._catalog.logged(["r"]) == []
    assert there._catalog.settings("r").monitor == "acc"


def test_what_the_other_store_decided_itself_stays_and_is_said(here, there):
    here.copy_to(there)
    there.tag("r@1", "prod")
    there.note("r@2", "theirs")
    decide(there, "test")
    here.tag("r@3", "prod")
    here.note("r@2", "ours")
    decide(here, "other")
    with pytest.warns(CopyWarning) as caught:
        copied = here.copy_to(there)
    assert sorted(copied.left) == [
        "r@2 keeps its own note",
        "run 'r' keeps its own settings",
        "tag 'prod' of run 'r' stays on r@1, where it was put there",
    ]
    assert len(caught) == 3
    assert there.get("r@prod").ref == "r@1"
    assert there._catalog.settings("r").monitor == "test"


def test_a_tag_is_not_set_on_what_is_retired_there(here, there):
    here.copy_to(there)
    there.prune(Keep(last=1), run="r")
    here.tag("r@1", "old")
    with pytest.warns(CopyWarning, match=r"tag 'old' was not set, as r@1 is retired there"):
        here.copy_to(there)
    assert there._catalog.facts("r").tags == {}


def test_the_same_tag_set_there_is_no_trouble(here, there):
    here.copy_to(there)
    here.tag("r@2", "prod")
    there.tag("r@2", "prod")
    copied = here.copy_to(there)
    assert (copied.entries, copied.left) == (0, ())


def test_a_run_of_epochs_alone_comes_along(here, there):
    here.run("logged").log(epoch=1, acc=0.5)
    here.copy_to(there)
    assert there._catalog.logged(["logged"]) == here._catalog.logged(["logged"])
