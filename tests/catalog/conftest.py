from __future__ import annotations

import pytest

from ckptstore.catalog.index import Catalog
from tests.catalog.places import DictStorage, found_store


@pytest.fixture
def storage() -> DictStorage:
    place = DictStorage()
    found_store(place)
    return place


@pytest.fixture(params=["file", "memory"])
def catalog(request, storage, tmp_path):
    url = f"sqlite:///{tmp_path}/index.sqlite3" if request.param == "file" else "sqlite://"
    opened = Catalog(url, storage)
    yield opened
    opened.close()
