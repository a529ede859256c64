"""An empty place, a store copied in part and a newer one's are told apart."""

from __future__ import annotations

import pytest

from ckptstore.catalog.stores import missing, store_facts
from ckptstore.errors import IntegrityError, NewerFormatError, NotAStoreError
from ckptstore.format.layout import STORE_KEY, STORE_KEY_NEWER, version_key
from tests.catalog.places import DictStorage, found_store


@pytest.mark.parametrize(
    ("key", "kind", "said"),
    [
        (None, NotAStoreError, "holds no store"),
        ("notes.txt", NotAStoreError, "holds no store"),
        (version_key("digits", 1), IntegrityError, "copied in part"),
        (STORE_KEY_NEWER, NewerFormatError, "newer ckptstore"),
    ],
)
def test_it_says_why_there_is_no_file(key, kind, said):
    storage = DictStorage()
    if key is not None:
        storage.create(key, b"")

    why = missing(storage)

    assert type(why) is kind
    assert said in str(why)
    assert storage.url in str(why)


def test_a_store_that_was_founded_since_it_was_looked_for_is_not_damaged():
    storage = DictStorage()
    storage.create(STORE_KEY, b"{}")
    storage.create(version_key("digits", 1), b"")

    assert type(missing(storage)) is NotAStoreError


def test_what_the_file_says_is_returned_or_why_there_is_none():
    storage = DictStorage()
    with pytest.raises(NotAStoreError):
        store_facts(storage)
    found_store(storage, 7)
    assert store_facts(storage).store_id.int == 7
    storage.objects[STORE_KEY] = b"{}"
    with pytest.raises(IntegrityError, match=f"{storage.url}/{STORE_KEY}"):
        store_facts(storage)
