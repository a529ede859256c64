"""What must hold of a store whatever a power loss left of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from ckptstore import Checkpoint, Store
from ckptstore.errors import IntegrityError
from ckptstore.format.layout import STORE_KEY
from ckptstore.format.store_facts import decode_store
from ckptstore.storage import durable
from tests.prove.independent import orphans, read_store
from tests.prove.kill.operations import months_later
from tests.prove.lost_writes.disk import Disk, Tree
from tests.prove.lost_writes.recording import STORE, Known, Recorded
from tests.prove.states import (
    RUN,
    entries,
    is_right,
    opened,
    quietly,
    save,
    tags_of,
    unsynced,
)

NEXT_EPOCH = 1000


@dataclass
class Figures:
    """How much was looked at."""

    operations: int = 0
    states: int = 0
    loads: int = 0

    def add(self, other: Figures) -> None:
        self.operations += other.operations
        self.states += other.states
        self.loads += other.loads


class ViolationError(AssertionError):
    """A store that a power loss left doesn't keep what was promised."""


def check_states(
    recorded: Recorded,
    folder: Path,
    *,
    limit: int,
    counts: Callable[[int], bool] = lambda _: True,
    collects: bool = False,
) -> Figures:
    """Build every state that a power loss may leave, and check it.

    Args:
        recorded: The operations.
        folder: An empty folder to build in.
        limit: How many states of each prefix are built at most.
        counts: Whether the state after so many operations is looked at.
        collects: As for `check`.

    Raises:
        ViolationError: It says after which operation, and what was left.
    """
    disk, figures = Disk(), Figures()
    for count in range(len(recorded.operations) + 1):
        if count:
            disk.do(recorded.operations[count - 1])
        if not counts(count):
            continue
        figures.operations += 1
        before, after = recorded.at(count)
        for tree in disk.states(limit):
            figures.states += 1
            build(tree, folder)
            try:
                figures.loads += check(
                    folder / STORE,
                    before,
                    after,
                    failed=recorded.failed > 0,
                    in_place=recorded.in_place,
                    collects=collects,
                )
            except Exception as error:
                last = recorded.operations[count - 1] if count else "nothing"
                raise ViolationError(_report(str(last), tree, error)) from error
    return figures


def check(
    folder: Path,
    before: Known,
    after: Known,
    *,
    failed: bool = False,
    in_place: bool = False,
    collects: bool = False,
) -> int:
    """Check one store.

    Args:
        folder: The store's.
        before: What was known before the step that was under way.
        after: What that step makes it.
        failed: Whether an earlier step failed, so that more may be there than was acknowledged.
        in_place: Whether files are created in place, where one that is not whole is no version.
        collects: Whether a collection months later is checked as well.

    Returns:
        How many loads were compared bit by bit.
    """
    with quietly(), unsynced(), opened(folder) as store:
        if in_place and not before.versions and _is_torn(folder / STORE_KEY):
            _clear_torn_founding(store, folder / STORE_KEY)
        found, damaged = entries(store)
        # Torn in place is damage where its end is there: never loaded, and its number is spent.
        assert in_place or not damaged, f"visible though it is not whole: {damaged}"
        epochs = {each.version: each.epoch for each in found}
        lost = {
            each
            for each in before.versions.items() - epochs.items()
            if each[0] not in after.retired  # being retired by the step under way
        }
        assert not lost, f"lost (version, epoch): {sorted(lost)}"
        more = epochs.keys() - before.versions.keys() - after.versions.keys()
        assert failed or not more, f"nobody saved, or undeleted, versions {sorted(more)}"
        for each in found:
            assert is_right(each), f"{each.ref} is not what was saved as epoch {each.epoch}"
        tags = tags_of(found)
        for tag, version in before.tags.items():
            allowed = {version, after.tags.get(tag, version)}
            assert tags.get(tag) in allowed or (failed and tag in tags), f"tag {tag!r}: {tags}"
        checkpoints = [each.version for each in found if isinstance(each, Checkpoint)]
        if checkpoints or not damaged:
            resumed = store.resume(run=RUN, rng=False)
            newest = resumed.checkpoint.version if resumed.checkpoint else 0
            assert newest == max(checkpoints, default=0), f"resumed {newest} of {checkpoints}"
        made = save(store, NEXT_EPOCH)
        assert made.version > max(epochs, default=0), f"{made.ref} is saved a second time"
        assert is_right(store.get(made.ref)), f"{made.ref}, saved after the loss, is not right"
        if not collects:
            return len(found) + 1
        _check_collection(store, folder)
    return 2 * (len(found) + 1)


def _check_collection(store: Store, folder: Path) -> None:
    """Collect what came back: nothing that a live version names goes, and nothing else stays."""
    with months_later():
        store.collect()
    found, _ = entries(store)
    assert all(map(is_right, found)), "a collection after the loss took a live version's data"
    left = orphans(folder, read_store(folder, collected=True))
    assert not left, f"a collection after the loss left {left}"


def _is_torn(path: Path) -> bool:
    """Say whether a file is there and not whole, as creation in place may leave it."""
    if not path.exists():
        return False
    try:
        decode_store(path.read_bytes(), str(path))
    except IntegrityError:
        return True
    return False


def _clear_torn_founding(store: Store, path: Path) -> None:
    """Do what a person has to where the very first file was torn in place: it holds nothing."""
    said = ""
    try:
        save(store, NEXT_EPOCH)
    except IntegrityError as error:
        said = str(error)
    assert str(path) in said, f"a torn {path.name}, and all that is said is {said!r}"
    path.unlink()


def build(tree: Tree, folder: Path) -> None:
    """Make what is left of a disk, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, data in tree.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)


PUBLISHING: Sequence[str] = ("link", "rename", "in place")


@contextmanager
def publishing(how: str) -> Iterator[None]:
    """Be on a filesystem that publishes files like that."""

    def rename(source: Path, target: Path) -> bool:
        # As renameat2 does, by a call that is recorded.
        if how != "rename":
            return False
        if target.exists():
            raise FileExistsError(target)
        source.rename(target)
        return True

    with ExitStack() as stack:
        if how != "link":
            stack.enter_context(mock.patch.object(durable, "link", return_value=False))
            stack.enter_context(mock.patch.object(durable, "rename_without_replacing", rename))
        yield


def _report(last: str, tree: Tree, error: Exception) -> str:
    left = "".join(
        f"\n  {path}{'/' if data is None else f' ({len(data)} bytes)'}"
        for path, data in tree.items()
    )
    return f"after {last[:200]}: {error}\nleft:{left}"


def out(text: str = "") -> None:
    """Print a line at once: a long form is watched."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
