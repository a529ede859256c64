"""``ckptstore.json`` comes back as it was written; that no damage passes is in ``test_journal``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptstore.format.store_facts import StoreFacts, decode_store, encode_store

stores = st.builds(StoreFacts, st.uuids(), st.integers(0, 2**40), st.booleans())


@given(stores)
def test_what_a_store_is_comes_back_equal(facts):
    assert decode_store(encode_store(facts), "ckptstore.json") == facts
