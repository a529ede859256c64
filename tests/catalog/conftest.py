from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.migrate import migrate
from ckptstore.catalog.tables import Base
from tests.catalog.places import DictStorage, found_store
from tests.postgres import server


@pytest.fixture
def storage() -> DictStorage:
    place = DictStorage()
    found_store(place)
    return place


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A server of this process's own (with xdist: one a worker), whose database has our tables."""
    with server() as url:
        migrate(url)
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A database in PostgreSQL that holds nothing yet."""
    engine = create_engine(postgres_server)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):  # faster than TRUNCATE where so few are
            connection.execute(table.delete())
    engine.dispose()
    return postgres_server


@pytest.fixture(params=["file", "memory", "postgresql"])
def catalog_url(request, tmp_path) -> str:
    """Every kind of database that a catalog lives in, empty."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/index.sqlite3" if request.param == "file" else "sqlite://"


@pytest.fixture
def catalog(catalog_url, storage):
    opened = Catalog(catalog_url, storage)
    yield opened
    opened.close()
