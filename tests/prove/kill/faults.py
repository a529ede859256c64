"""What a worse ckptstore would do: each must be caught, or the harness proves nothing."""

from __future__ import annotations

import dataclasses
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
    from ckptstore.saving.run_writer import RunWriter
    from ckptstore.storage.local_writer import LocalWriter

    finish, commit = LocalWriter.__exit__, RunWriter.commit
    late: list[Callable[[], None]] = []

    def put_off(writer: Any, *error: Any) -> None:
        late.append(lambda: finish(writer, *error))

    def first_commit(writer: Any, *args: Any, **options: Any) -> Any:
        done = commit(writer, *args, **options)
        while late:
            late.pop()()
        return done

    LocalWriter.__exit__, RunWriter.commit = put_off, first_commit


def rows_forgotten() -> None:
    """Index a version that was just saved without its metrics."""
    from ckptstore.catalog import index

    read = index.from_head
    index.from_head = lambda *args: dataclasses.replace(read(*args), metrics={})


FAULTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        manifests_in_place,
        acknowledged_before_the_commit,
        manifest_before_its_packs,
        rows_forgotten,
    )
}
