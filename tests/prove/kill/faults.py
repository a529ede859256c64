"""What a worse ckptstore would do: each must be caught, or the harness proves nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def manifests_in_place() -> None:
    """Create objects under their names at once, so that a kill leaves half of one."""
    from ckptstore.storage import local
    from ckptstore.storage.publishing import create_in_place

    def create(storage: Any, key: str, data: bytes) -> None:
        path = storage._path(key)
        storage._make_folders(path.parent)
        create_in_place(path, data)

    local.LocalStorage.create = create


def acknowledged_before_the_commit() -> None:
    """Say that a version is saved before its manifest is there."""
    from tests.prove.kill import operations

    save = operations.save

    def eager(world: Any, store: Any, content: float, *, run: str = operations.RUN, **options: Any):
        number = len(store.history(run)) + 1 if os.path.exists(world.url) else 1  # noqa: PTH110 - or a URL
        world.acknowledge(("version", run, number, content))
        return save(world, store, content, run=run, **options)

    operations.save = eager


def manifest_before_its_packs() -> None:
    """Commit a version before its tensors are there."""
    from ckptstore.saving import packing
    from ckptstore.storage.local_writer import LocalWriter

    write = LocalWriter.__exit__
    late: list[Callable[[], None]] = []

    def put_off(writer: Any, *error: Any) -> None:
        late.append(lambda: write(writer, *error))

    LocalWriter.__exit__ = put_off
    from ckptstore.saving.run_writer import RunWriter

    commit = RunWriter.commit

    def first_commit(writer: Any, *args: Any) -> Any:
        done = commit(writer, *args)
        while late:
            late.pop()()
        return done

    RunWriter.commit = first_commit
    assert packing


def rows_forgotten() -> None:
    """Index a version without its metrics."""
    from ckptstore.catalog import rows

    real = rows.from_head

    def without(head: Any, *args: Any) -> Any:
        from dataclasses import replace

        return replace(real(head, *args), metrics={})

    from ckptstore.catalog import index

    index.from_head = without


FAULTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        manifests_in_place,
        acknowledged_before_the_commit,
        manifest_before_its_packs,
        rows_forgotten,
    )
}
