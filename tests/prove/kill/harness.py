"""Kill a process at a point, and hold what it left against what it had promised."""

from __future__ import annotations

import contextlib
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.prove.independent import Found, TornError, orphans, read_store
from tests.prove.kill.forks import Answer, Forks
from tests.prove.kill.operations import Fact, Operation
from tests.prove.kill.places import (
    BucketPlace,
    FolderPlace,
    Place,
    s3_environment,
    s3_server,
)
from tests.prove.kill.points import AFTER, BEFORE, TORN
from tests.prove.kill.points import Operation as Seen

STORAGES = ("local", "s3")
CONTENT = "model"


@dataclass(frozen=True)
class Point:
    """A moment in the life of a process."""

    number: int
    when: str
    what: str

    def __str__(self) -> str:
        return f"{self.when} {self.number} ({self.what})"


@dataclass
class Result:
    """What the kills of one operation showed."""

    operation: str
    storage: str
    operations: int = 0
    """How many file, object and database operations it makes."""
    changing: int = 0
    """How many of them may change what is stored."""
    points: int = 0
    """At how many moments it was killed."""
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Start:
    """Where an operation begins."""

    store: dict[str, bytes]
    catalog: bytes | None
    facts: list[Fact]


class Rig:
    """A place for stores of one kind, and processes to be killed there.

    Args:
        storage: ``local`` or ``s3``.
        folder: For files; its own.
        forks: Makes the children.
        places: A store's place, and the one that is copied to.

    Attributes:
        fault: What to break in ckptstore first: see :mod:`tests.prove.kill.faults`.
    """

    def __init__(
        self,
        storage: str,
        folder: Path,
        forks: Forks,
        places: tuple[Place, Place],
    ) -> None:
        self.storage = storage
        self._folder = folder
        self._forks = forks
        self._place, self._other = places
        self._catalog = folder / "catalog.sqlite3"
        self._other_catalog = folder / "other.sqlite3"
        self.fault: str | None = None

    # ----------------------------------------------------------------------------------- its life

    def start(self, operation: Operation) -> Start:
        """Make the state that *operation* starts from."""
        self._empty()
        answer = self._ask(operation, "prepare")
        _raise(answer, f"{operation.name}: the state it starts from could not be made")
        catalog = self._catalog.read_bytes() if self._catalog.exists() else None
        return Start(self._place.files(), catalog, answer.facts)

    def points(self, operation: Operation, start: Start) -> list[Seen]:
        """Run it to its end and return the operations it makes.

        Raises:
            AssertionError: It changed something past the seams where operations are counted.
        """
        self._put(start)
        answer = self._ask(operation, "run", count=True)
        _raise(answer, f"{operation.name} failed without being killed")
        assert not answer.unseen, f"{operation.name}: not counted: {answer.unseen}"
        return [Seen(**each) for each in answer.points]

    def kill(self, operation: Operation, start: Start, point: Point) -> str:
        """Kill it there and look at what is left.

        Returns:
            What became of what it was to do: ``absent``, ``unsaid`` or ``said``.

        Raises:
            AssertionError: A promise was broken.
        """
        self._put(start)
        answer = self._ask(operation, "run", kill=(point.number, point.when))
        if answer.error:
            raise AssertionError(f"it failed before it was killed: {answer.error}")
        assert answer.was_killed, f"it was to be killed and ended with {answer.status}"
        facts = start.facts + answer.facts
        found = self._read(facts, collected=operation.in_months)
        outcome = "said" if answer.facts else "unsaid"
        if not answer.facts and found == self._unchanged(start):
            outcome = "absent"
        again = self._ask(operation, "recover")
        _raise(again, "what must work after the kill failed")
        self._check_end(facts + again.facts)
        return outcome

    # ------------------------------------------------------------------------------------- looking

    def _unchanged(self, start: Start) -> int:
        return _committed(start.store)

    def _read(self, facts: Sequence[Fact], *, collected: bool) -> int:
        for place, own in ((self._place, _own(facts)), (self._other, _there(facts))):
            found = read_store(place.copy(self._folder / "copy"), collected=collected)
            check(found, own, settled=False)
        return _committed(self._place.files()) + _committed(self._other.files())

    def _check_end(self, facts: Sequence[Fact]) -> None:
        for place, own in ((self._place, _own(facts)), (self._other, _there(facts))):
            folder = place.copy(self._folder / "copy")
            found = read_store(folder, collected=True)
            check(found, own, settled=True)
            left = orphans(folder, found) + place.uploads()
            assert not left, f"collection left {left}"

    # ------------------------------------------------------------------------------------ plumbing

    def _empty(self) -> None:
        self._place.fill({})
        self._other.fill({})
        for catalog in (self._catalog, self._other_catalog):
            for path in (catalog, catalog.with_name(f"{catalog.name}-journal")):
                path.unlink(missing_ok=True)

    def _put(self, start: Start) -> None:
        self._empty()
        self._place.fill(start.store)
        if start.catalog is not None:
            self._catalog.write_bytes(start.catalog)

    def _ask(self, operation: Operation, do: str, **more: Any) -> Answer:
        world = {
            "url": self._place.url,
            "catalog": f"sqlite:///{self._catalog}",
            "other_url": self._other.url,
            "other_catalog": f"sqlite:///{self._other_catalog}",
        }
        return self._forks.ask(
            operation=operation.name,
            world=world,
            do=do,
            folder=str(self._folder),
            fault=self.fault,
            **more,
        )


@contextlib.contextmanager
def rig(storage: str, folder: Path) -> Iterator[Rig]:
    """Set up a rig below *folder*."""
    with contextlib.ExitStack() as stack:
        if storage == "s3":
            endpoint, backend = stack.enter_context(s3_server())
            forks = stack.enter_context(Forks(folder, s3_environment(endpoint)))
            places: tuple[Place, Place] = (BucketPlace(backend), BucketPlace(backend))
        else:
            forks = stack.enter_context(Forks(folder))
            places = (FolderPlace(folder / "store"), FolderPlace(folder / "other"))
        yield Rig(storage, folder, forks, places)


def every_point(seen: Sequence[Seen]) -> list[Point]:
    """Before and after each operation, and in the middle of each that can be done by half."""
    return [
        Point(number, when, operation.name)
        for number, operation in enumerate(seen)
        for when in (BEFORE, TORN, AFTER)
        if when != TORN or operation.tears
    ]


def distinct_points(seen: Sequence[Seen]) -> list[Point]:
    """The moments that differ in what is stored: where operations come one after the other."""
    return [Point(0, BEFORE, seen[0].name)] + [
        Point(number, when, operation.name)
        for number, operation in enumerate(seen)
        for when in (TORN, AFTER)
        if operation.changes and (when != TORN or operation.tears)
    ]


def run(rig: Rig, operation: Operation, start: Start, points: Iterable[Point]) -> Result:
    """Kill an operation at each of *points*, once."""
    result, began = Result(operation.name, rig.storage), time.monotonic()
    for point in points:
        result.points += 1
        try:
            result.outcomes[rig.kill(operation, start, point)] += 1
        except (AssertionError, TornError) as error:
            result.violations.append(f"{point}: {error}")
    result.seconds = time.monotonic() - began
    return result


def check(found: Found, facts: Iterable[Fact], *, settled: bool) -> None:
    """Hold what is there against what was promised.

    Args:
        found: By the independent reader.
        facts: In the order in which they were acknowledged.
        settled: Whether nothing was under way any more: then the last word on a tag counts, and not
            just that it was said.

    Raises:
        AssertionError: A promise was broken.
    """
    last: dict[tuple[Any, ...], Fact] = {}
    for fact in facts:
        kind, run, *rest = fact
        if kind == "version":
            number, content = rest
            assert (run, number) in found.heads, f"{run}@{number} was saved and is gone"
            if (run, number) in found.states or not found.is_retired(run, number):
                weights = content_of(found.states[run, number])
                assert weights == {content}, f"{run}@{number} holds {weights}, not {content}"
        else:
            key = (kind, run, rest[0]) if kind in {"tag", "metric"} else ("life", run, rest[0])
            last[key] = fact
            assert _was_written(found, fact), f"{fact} was acknowledged and is nowhere"
    if settled:
        for fact in last.values():
            assert _holds(found, fact), f"{fact} was the last word and does not hold"


def content_of(states: dict[str, Any]) -> set[float]:
    """The values of the weights that an operation chose, from wherever a version keeps them."""
    data = states[CONTENT]["head"]["$tensor"]["data"]
    return {value for (value,) in struct.iter_unpack("<f", data)}


def _was_written(found: Found, fact: Fact) -> bool:
    kind, run, *rest = fact
    entries = found.journals.get(run, [])
    if kind == "tag":
        return any(
            each["kind"] == "tag" and [each["tag"], each["version"]] == rest for each in entries
        )
    if kind == "metric":
        number, name, value = rest
        return found.metric(run, number, name) == value
    if kind == "retired":
        return any(
            each["kind"] == "retire" and rest[0] in dict(each["versions"]) for each in entries
        )
    return any(each["kind"] == "undelete" and rest[0] in each["versions"] for each in entries)


def _holds(found: Found, fact: Fact) -> bool:
    kind, run, *rest = fact
    if kind == "tag":
        return found.tag(run, rest[0]) == rest[1]
    if kind == "metric":
        return bool(found.metric(run, *rest[:2]) == rest[2])
    return found.is_retired(run, rest[0]) is (kind == "retired")


def _own(facts: Iterable[Fact]) -> list[Fact]:
    return [fact for fact in facts if fact[0] != "there"]


def _there(facts: Iterable[Fact]) -> list[Fact]:
    return [fact[1:] for fact in facts if fact[0] == "there"]


def _committed(files: dict[str, bytes]) -> int:
    """How many manifests and journal entries there are: what others can see."""
    return sum(name.startswith("runs/") and "/.tmp-" not in name for name in files)


def _raise(answer: Answer, what: str) -> None:
    if answer.error or answer.status:
        raise AssertionError(f"{what}: {answer.error or answer.status}")
