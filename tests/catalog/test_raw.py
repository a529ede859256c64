from __future__ import annotations

from ckptstore.catalog.index import Catalog
from ckptstore.storage.local import LocalStorage
from tests.catalog.places import commit, found_store, make_head, note, tag_entry


def test_rows_are_given_by_table_and_key_and_nothing_is_synced(tmp_path):
    storage = LocalStorage(tmp_path)
    found_store(storage)
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, tag_entry("prod", 1))
    commit(storage, make_head("other", 1))
    catalog = Catalog(None, storage)
    assert catalog.rows("digits") == {}
    assert catalog.indexed() == []
    assert not (tmp_path / "catalog.sqlite3").exists()

    catalog.discover()
    commit(storage, make_head("digits", 2))
    rows = catalog.rows("digits")

    assert catalog.indexed() == ["digits", "other"]
    assert set(rows["versions"]) == {(1,)}
    assert rows["versions"][1,]["epoch"] == 1
    assert rows["metrics"]["val_loss", 1]["value"] == 1.0
    assert rows["tags"]["prod",]["version"] == 1
    assert rows["runs"][()]["name"] == "digits"
    assert "stores" not in rows
    catalog.close()
