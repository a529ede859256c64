"""The golden journal of format 1: every kind of entry, written once and read ever after.

``tests/data/make_format_1_journal.py`` says what is in it, and made it.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from blake3 import blake3

from ckptstore import Store
from ckptstore.errors import FallbackWarning
from ckptstore.format.facts import Retired, Settings
from ckptstore.format.journal import KINDS, decode_entry
from tests.data.make_format_1_journal import entries, signed

GOLDEN = Path(__file__).parent / "data" / "format-1-journal"
BLAKE3 = "a5f2b7399c8b3493a796375a9ede0f08acea8b3baf1180d84d3c9a10022d2fba"


@pytest.fixture
def store() -> Store:
    return Store(GOLDEN, catalog="sqlite://")


def test_nobody_changed_it():
    files = sorted(file for file in GOLDEN.rglob("*") if file.is_file())
    listed = [
        f"{blake3(file.read_bytes()).hexdigest()}  {file.relative_to(GOLDEN).as_posix()}\n"
        for file in files
    ]
    assert blake3("".join(listed).encode()).hexdigest() == BLAKE3


def test_every_kind_of_entry_is_in_it_and_read():
    files = sorted((GOLDEN / "runs" / "digits" / "_journal").iterdir())
    found = [decode_entry(file.read_bytes(), str(file)) for file in files]

    assert found == entries()
    assert {type(entry) for entry in found} == set(KINDS)


def test_it_adds_up_to_what_it_says(store):
    third = store.get("digits@prod")
    assert (third.version, third.note, third.metrics["test_acc"]) == (3, "größer ☃", 0.5)
    ((version, (child,)),) = store._catalog.children("digits").items()
    assert (version, child.run, child.save_id) == (3, "Fine/tuned", UUID(int=77))
    assert store.tags() == {"prod": "digits@3"}
    assert store.get(1).retired == Retired(signed(9)[0], "not kept: last=3", 9)
    assert store.get(2).retired is None
    assert store.get(4).damage == "a pack is cut short"
    assert store.latest().version == 5
    with pytest.warns(FallbackWarning, match="without digits@4"):
        assert store.best().version == 5
    (epoch,) = store.history().logged
    assert (epoch.epoch, epoch.step, epoch.metrics) == (9, 90, {"train_loss": 0.25})
    settings = store._catalog.settings("digits")
    assert settings == Settings("acc", "max", {"lr": 0.1}, {"last": 3})
