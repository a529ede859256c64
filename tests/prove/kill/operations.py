"""What is killed: each operation, what must be there before it, and what it acknowledges.

An operation runs in a child. As soon as a verb of ckptstore returned, it says what that verb
promised, as a fact that the independent reader then holds against the storage:

    ("version", run, number, content)   a version of that run, its weights all equal to *content*
    ("tag", run, tag, number)           where a tag points; None: it was taken away
    ("metric", run, number, name, value)
    ("retired", run, number)            its data may go
    ("live", run, number)               it was undeleted
    ("there", *fact)                    the same of the other store
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest import mock

import torch

from ckptstore import Keep, Store
from ckptstore.catalog import revisions
from ckptstore.format.layout import CLOCK_FOLDER
from ckptstore.saving import checkpoint as saving
from ckptstore.saving.files import NewFile
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.remote import RemoteStorage

RUN = "digits"
Fact = tuple[Any, ...]


@dataclass(frozen=True)
class World:
    """Where an operation works, and whom it tells."""

    url: str
    catalog: str
    other_url: str
    other_catalog: str
    acknowledge: Callable[[Fact], None]

    def store(self) -> Store:
        """Open the store, as a process that knows nothing of it."""
        return Store(self.url, catalog=self.catalog, run=RUN)

    def other_store(self) -> Store:
        """Open the store that is copied to."""
        return Store(self.other_url, catalog=self.other_catalog, run=RUN)

    def saved(self, entry: Any, content: float) -> Any:
        """Say that a version is there."""
        self.acknowledge(("version", entry.run, entry.version, content))
        return entry


@dataclass(frozen=True)
class Operation:
    """One operation and the state it starts from.

    Attributes:
        prepare: Makes that state; nothing is killed there.
        run: The operation. Run again after it was killed it must succeed.
        in_months: It runs when everything that is there is older than the grace period.
        copies: It fills the other store too.
    """

    name: str
    prepare: Callable[[World], None]
    run: Callable[[World], None]
    in_months: bool = False
    copies: bool = False


class Net(torch.nn.Module):
    """A backbone that stays what it is, and a head whose weights all equal *content*."""

    def __init__(self, content: float) -> None:
        super().__init__()
        self.backbone = torch.nn.Parameter(torch.full((8, 4), 7.0), requires_grad=False)
        self.head = torch.nn.Parameter(torch.full((4,), content))


def save(world: World, store: Store, content: float, *, run: str = RUN, **options: Any) -> Any:
    """Save a checkpoint whose weights and momentum are *content*."""
    model = Net(content)
    optimizer = torch.optim.SGD([model.head], lr=0.0, momentum=0.9)
    model.head.grad = torch.full((4,), content)
    optimizer.step()
    options = {"run": run, "epoch": int(content), "val_loss": 1 / content, **options}
    return world.saved(store.save(model, optimizer, rng=False, **options), content)


def nothing(_: World) -> None:
    """Start where nothing is."""


def saved(*contents: float) -> Callable[[World], None]:
    """Start from versions with these contents."""

    def prepare(world: World) -> None:
        with world.store() as store:
            for content in contents:
                save(world, store, content)

    return prepare


def saved_in_turn(*contents: float) -> Callable[[World], None]:
    """Start from versions by processes that knew nothing of one another: none is a parent."""

    def prepare(world: World) -> None:
        for content in contents:
            saved(content)(world)

    return prepare


# ------------------------------------------------------------------------------------- the verbs


def save_one(world: World) -> None:
    with world.store() as store:
        save(world, store, 5.0)


def save_two_in_the_background(world: World) -> None:
    with world.store() as store:
        for content in (5.0, 6.0):
            pending = store.save_async(Net(content), epoch=int(content), val_loss=1.0, rng=False)
            world.saved(pending.result(), content)


def resume_and_save_two(world: World) -> None:
    """The next versions of a training: what did not change is reused."""
    with world.store() as store:
        model = Net(0.0)
        optimizer = torch.optim.SGD([model.head], lr=0.0, momentum=0.9)
        store.resume(model, optimizer, rng=False)
        for content in (5.0, 6.0):
            save(world, store, content)


def save_a_child(world: World) -> None:
    """The first version of a run that goes on from another run's."""
    with world.store() as store:
        parent = store.get(f"{RUN}@1")
        save(world, store, 5.0, run="tuned", parent=parent)


def save_with_settings_and_tags(world: World) -> None:
    with world.store() as store:
        run = store.run(RUN, config={"lr": 0.1}, monitor="val_acc", mode="max")
        model = Net(5.0)
        entry = run.save(model, val_acc=0.5, tags=["new", "prod"], rng=False)
        world.saved(entry, 5.0)
        world.acknowledge(("tag", RUN, "new", entry.version))
        world.acknowledge(("tag", RUN, "prod", entry.version))


def save_package(world: World) -> None:
    with world.store() as store:
        package = store.save_package(
            f"{RUN}@1",
            preprocessing={"mean": [0.5] * 4, "std": [2.0] * 4},
            class_names=["cat", "dog", "cow", "hen"],
            tags=["prod"],
        )
        world.saved(package, 1.0)
        world.acknowledge(("tag", RUN, "prod", package.version))


PROGRAM = NewFile("program", "model", [b"what a model computes" * 500])


@contextmanager
def traced() -> Iterator[None]:
    """Have a program at once: tracing one takes a second in each child, and touches no storage."""
    with mock.patch.object(saving, "program_file", return_value=PROGRAM):
        yield


def save_a_program(world: World) -> None:
    """A version with a file, then one that shares it."""
    with world.store() as store, traced():
        for content in (5.0, 6.0):
            save(world, store, content, program=torch.ones(1))


def saved_with_a_program(world: World) -> None:
    with world.store() as store, traced():
        save(world, store, 1.0, program=torch.ones(1))


def save_a_package_of_a_program(world: World) -> None:
    """A package that takes its checkpoint's file along."""
    with world.store() as store:
        world.saved(store.save_package(f"{RUN}@1"), 1.0)


def copy_a_program(world: World) -> None:
    with world.store() as store, world.other_store() as other:
        store.copy_to(other)
        world.acknowledge(("there", "version", RUN, 1, 1.0))


def saved_and_pruned_programs(world: World) -> None:
    """A program that only a retired version names, and one that a live version names too."""
    with world.store() as store:
        with traced():
            save(world, store, 1.0, program=torch.ones(1))
        other = NewFile("program", "model", [b"another"])
        with mock.patch.object(saving, "program_file", return_value=other):
            for content in (2.0, 3.0):
                save(world, store, content, program=torch.ones(1))
        for pruned in store.prune(Keep(last=1), run=RUN):
            for number in pruned.retired:
                world.acknowledge(("retired", RUN, number))


def tag(world: World) -> None:
    with world.store() as store:
        store.tag(f"{RUN}@2", "prod")
        world.acknowledge(("tag", RUN, "prod", 2))
        store.untag("old", run=RUN)
        world.acknowledge(("tag", RUN, "old", None))


def log(world: World) -> None:
    """Later facts: about a version, and about an epoch that has none."""
    with world.store() as store:
        store.get(f"{RUN}@1").log(test_acc=0.5)
        world.acknowledge(("metric", RUN, 1, "test_acc", 0.5))
        store.run(RUN).log(epoch=7, train_loss=0.25)
        store.note(f"{RUN}@2", "looks good")
        store.get(f"{RUN}@2").log(test_acc=0.75)
        world.acknowledge(("metric", RUN, 2, "test_acc", 0.75))


def prune(world: World) -> None:
    with world.store() as store:
        for pruned in store.prune(Keep(last=1), run=RUN):
            for number in pruned.retired:
                world.acknowledge(("retired", RUN, number))


def save_and_keep_few(world: World) -> None:
    """A save into a run that says what it keeps: it is pruned at once."""
    with world.store() as store:
        model = Net(5.0)
        entry = store.run(RUN, keep=Keep(last=1)).save(model, val_loss=0.5, rng=False)
        world.saved(entry, 5.0)


def saved_and_pruned(world: World) -> None:
    saved_in_turn(1.0, 2.0, 3.0)(world)
    prune(world)


def undelete(world: World) -> None:
    with world.store() as store:
        store.undelete(f"{RUN}@1")
        world.acknowledge(("live", RUN, 1))


def collect(world: World) -> None:
    with world.store() as store:
        store.collect()


def saved_twice_and_tagged(world: World) -> None:
    with world.store() as store:
        for content in (1.0, 2.0):
            save(world, store, content)
        for name in ("prod", "old"):
            store.tag(f"{RUN}@1", name)
            world.acknowledge(("tag", RUN, name, 1))


def copy_to(world: World) -> None:
    with world.store() as store, world.other_store() as other:
        store.copy_to(other)
        for number, content in ((1, 1.0), (2, 2.0)):
            world.acknowledge(("there", "version", RUN, number, content))
        for name in ("prod", "old"):
            world.acknowledge(("there", "tag", RUN, name, 1))


def saved_before_an_upgrade(world: World) -> None:
    """Versions and tags, and a catalog as the first ckptstore made it."""
    from alembic import command
    from sqlalchemy import create_engine

    saved_twice_and_tagged(world)
    config, engine = revisions._config(), create_engine(world.catalog)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()


def migrate(world: World) -> None:
    from ckptstore.catalog.migrate import migrate as bring_up_to_date

    bring_up_to_date(world.catalog)


def reindex(world: World) -> None:
    with world.store() as store:
        store.reindex()


OPERATIONS = {
    each.name: each
    for each in (
        Operation("save, the first", nothing, save_one),
        Operation("save, a new process", saved(1.0), save_one),
        Operation("save, in the background", saved(1.0), save_two_in_the_background),
        Operation("resume, save two", saved(1.0, 2.0), resume_and_save_two),
        Operation("save, a child of another run", saved(1.0), save_a_child),
        Operation("save, settings and tags", saved(1.0), save_with_settings_and_tags),
        Operation("save_package", saved(1.0), save_package),
        Operation("save, a program", saved(1.0), save_a_program),
        Operation("save_package, a program", saved_with_a_program, save_a_package_of_a_program),
        Operation("copy_to, a program", saved_with_a_program, copy_a_program, copies=True),
        Operation("collect, programs", saved_and_pruned_programs, collect, in_months=True),
        Operation("tag", saved_twice_and_tagged, tag),
        Operation("log", saved(1.0, 2.0), log),
        Operation("prune", saved_in_turn(1.0, 2.0, 3.0), prune),
        Operation("save, a run that keeps few", saved_in_turn(1.0, 2.0, 3.0), save_and_keep_few),
        Operation("undelete", saved_and_pruned, undelete),
        Operation("collect", saved_and_pruned, collect, in_months=True),
        Operation("copy_to", saved_twice_and_tagged, copy_to, copies=True),
        Operation("migrate", saved_before_an_upgrade, migrate),
        Operation("reindex", saved_twice_and_tagged, reindex),
    )
}


@contextmanager
def months_later() -> Iterator[None]:
    """Have the storage's clock show a time long after everything that is there was written.

    Collection reads that clock off an object it writes, and nowhere else.
    """
    kinds: list[Any] = [
        kind
        for kind in (LocalStorage, RemoteStorage, *RemoteStorage.__subclasses__())
        if "written_at" in vars(kind)
    ]
    real = [kind.written_at for kind in kinds]

    def shifted(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
        def written_at(storage: Any, key: str) -> Any:
            time = read(storage, key)
            return time + timedelta(days=90) if key.startswith(f"{CLOCK_FOLDER}/") else time

        return written_at

    for kind, read in zip(kinds, real, strict=True):
        kind.written_at = shifted(read)
    try:
        yield
    finally:
        for kind, read in zip(kinds, real, strict=True):
            kind.written_at = read
