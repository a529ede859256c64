from __future__ import annotations

import shutil
import sqlite3

from ckptstore import Store
from tests.catalog.places import rows_of_file
from tests.upkeep.checking import check, filled


def test_reindex_makes_the_catalog_anew_and_lists_the_runs(typed, tmp_path):
    store = filled(tmp_path / "store")
    store.tag("digits@2", "prod")
    store.save({"w": 1}, run="Sweep/a", rng=False)
    store.close()
    catalog = tmp_path / "store" / "catalog.sqlite3"
    right = rows_of_file(catalog)
    with sqlite3.connect(catalog) as connection:
        connection.execute("UPDATE versions SET epoch = 77")
    connection.close()

    done = typed("reindex", tmp_path / "store")

    assert (done.exit_code, done.stdout) == (0, "digits\nSweep/a\n")
    assert done.stderr == "Indexed 2 runs.\n"
    assert rows_of_file(catalog) == right


def test_from_nothing_a_store_and_its_copy_get_the_same_rows(typed, tmp_path):
    store = filled(tmp_path / "store")
    store.tag("digits@1", "prod")
    store.tag("digits@3", "prod")
    store.close()
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    whole = tmp_path / "whole.sqlite3"
    for name in ("store", "copy"):
        assert typed("reindex", tmp_path / name, "--catalog", f"sqlite:///{whole}").exit_code == 0

    rows = rows_of_file(whole)
    (one, _, store_id), (other, _, copied_id) = rows.pop("stores")
    assert (one == other, store_id == copied_id) == (False, True)
    for table, found in rows.items():
        of = {key: [row[1:] for row in found if row[0] == key] for key in (one, other)}
        assert of[one] == of[other], table
    for name in ("store", "copy"):
        assert check(Store(tmp_path / name)).findings == ()


def test_a_place_without_a_store_is_a_message(typed, tmp_path):
    done = typed("reindex", tmp_path / "nothing")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "holds no store" in done.stderr
    assert not (tmp_path / "nothing").exists()
