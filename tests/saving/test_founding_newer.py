"""A place where a later format's store is: nothing is founded there, and nothing is touched."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import NewerFormatError
from ckptstore.format.layout import STORE_KEY_NEWER
from ckptstore.saving.founding import found
from ckptstore.storage.local import LocalStorage


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "store"
    place.mkdir()
    (place / STORE_KEY_NEWER).write_bytes(b"whatever a later ckptstore writes")
    return place


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NAMED = rf"store was made by a newer ckptstore .*{STORE_KEY_NEWER}.*upgrade.*nothing was changed"


def test_no_store_is_made_beside_one_of_a_later_format(folder):
    before = files(folder)

    with pytest.raises(NewerFormatError, match=NAMED):
        found(LocalStorage(folder), single_writer=False)

    assert files(folder) == before


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.save({"w": torch.ones(2)}, epoch=1),
        lambda store: store.resume(torch.nn.Linear(2, 2)),
        lambda store: store.history(),
        lambda store: store.get("digits"),
    ],
    ids=["save", "resume", "history", "get"],
)
def test_every_verb_says_that_the_store_is_a_newer_ones_and_touches_nothing(folder, ask):
    before = files(folder)

    with Store(folder) as store, pytest.raises(NewerFormatError, match=NAMED):
        ask(store)

    assert files(folder) == before


def test_a_store_of_ours_is_used_whatever_lies_beside_it(folder):
    facts_beside = folder / STORE_KEY_NEWER
    facts_beside.unlink()
    found(LocalStorage(folder), single_writer=False)
    facts_beside.write_bytes(b"whatever a later ckptstore writes")

    assert Store(folder).save({"w": torch.ones(2)}, epoch=1).version == 1
