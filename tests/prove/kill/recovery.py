"""What must still be possible once a process was killed: the same again, a right catalog, order."""

from __future__ import annotations

from ckptstore import Store
from ckptstore.catalog.index import Catalog
from tests.catalog.places import rows
from tests.prove.kill.operations import Operation, World, months_later


def recover(operation: Operation, world: World) -> None:
    """Run the operation again; hold the catalog against the storage; collect what nobody needs.

    Raises:
        AssertionError: The catalog says something else than one made anew.
        CkptStoreError: Something that must work didn't.
    """
    if operation.in_months:
        with months_later():
            operation.run(world)
    else:
        operation.run(world)
    for open_store in (world.store, *([world.other_store] if operation.copies else [])):
        with open_store() as store:
            check_catalog(store)
            with months_later():
                store.collect()


def check_catalog(store: Store) -> None:
    """Hold a store's catalog, once synced, against one that is made from nothing."""
    store._catalog.discover()
    anew = Catalog("sqlite://", store._storage)
    anew.discover()
    found, wanted = rows(store._catalog), rows(anew)
    assert found == wanted, f"the catalog has {found}, made anew it has {wanted}"
    anew.close()
