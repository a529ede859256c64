"""One call to the operating system fails, or all from there on: what must hold afterwards."""

from __future__ import annotations

import gc
import shutil
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

from ckptstore import Store
from ckptstore.errors import CkptStoreError, DurabilityError, OutcomeUnknownError
from tests.prove.calls import Call, Calls
from tests.prove.error_sweep.faults import Do, Failing, Fault
from tests.prove.error_sweep.verbs import Verb, do, fill
from tests.prove.save_ids import ACTING, PREPARING, in_folders_from
from tests.prove.states import (
    entries,
    is_right,
    open_files,
    opened,
    quietly,
    save,
    tags_of,
    threads,
    unsynced,
)

LATER = 77
"""The epoch that is saved after the fault, to show that everything still works."""
PATIENCE_S = 60
Known = tuple[dict[int, int], dict[str, int]]
"""The epoch of each live version, and the version of each tag."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    error: str
    """The class of what was raised, or ``success``."""
    visible: bool
    """Whether a version that raised is there all the same."""


@dataclass(frozen=True)
class Without:
    """What a verb does when nothing fails."""

    count: int
    """How many calls of it the fault can hit."""
    answer: Any
    known: Known

    def check(self, verb: Verb, answer: Any, known: Known) -> None:
        """Compare it with what a verb did that says it succeeded though something failed."""
        assert known == self.known, f"it succeeded, and left {known} instead of {self.known}"
        if not verb.writes:
            same = answer == self.answer or verb.tells(answer)
            assert same, "it succeeded, and answered otherwise than ever"


class Place:
    """A folder with a store that cases begin from, each in a copy of its own.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.template = folder / "template"
        self.work = folder / "work"
        self._without: dict[str, tuple[list[Call], Without]] = {}
        with quietly(), unsynced(), in_folders_from(PREPARING), opened(self.template) as store:
            fill(store)

    def fresh(self, verb: Verb) -> Path:
        """Return the folder of a store for one case."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if not verb.in_nothing:
            shutil.copytree(self.template, self.work / "store")
        return self.work / "store"

    def calls(self, verb: Verb, fault: Fault) -> Without:
        """Do a verb once, and count the calls that the fault can hit."""
        if verb.name not in self._without:
            folder, seen = self.fresh(verb), []

            def around(call: Call, make: Do) -> Any:
                seen.append(call)
                return make()

            with quietly(), unsynced(), in_folders_from(ACTING), opened(folder) as store:
                verb.before(store)
                with Calls(self.work, around):
                    answer = do(verb, store)
                self._without[verb.name] = seen, Without(0, answer, _known(folder))
        seen, without = self._without[verb.name]
        return replace(without, count=sum(map(fault.hits, seen)))


def sweep(
    place: Place, verb: Verb, fault: Fault, *, always: bool, every: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Fail each call in turn (or every n-th), and yield how it ended."""
    without = place.calls(verb, fault)
    for at in range(1, without.count + 1, every):
        yield at, case(place, verb, fault, at, always=always, without=without)


def case(
    place: Place, verb: Verb, fault: Fault, at: int, *, always: bool, without: Without
) -> Outcome:
    """Do a verb while the call number *at* fails, and check what is left.

    Raises:
        AssertionError: It says what does not hold.
    """
    folder, failing = place.fresh(verb), Failing(fault, at, always=always)
    with quietly(), unsynced(), in_folders_from(ACTING), opened(folder) as store:
        verb.before(store)
        known = _known(folder)
        error, got = None, None
        with Calls(place.work, failing):
            try:
                got = do(verb, store)
            except BaseException as caught:  # noqa: BLE001 - whatever it is, it is judged below
                error = caught
        check_error(error, fault)
        if error is not None:  # its frames hold what was being loaded
            traceback.clear_frames(error.__traceback__)
        assert not threads(), f"threads go on: {threads()}"
        check_open(place.work)
        _check_files(place.work, failing)
        found = _known(folder)
        check_versions(known, found, verb, error)
        if error is None:
            without.check(verb, got, found)
        verb.after(store)
        check_goes_on(store, found)
    return Outcome(
        "success" if error is None else type(error).__name__,
        error is not None and len(found[0]) > len(known[0]),
    )


def check_open(folder: Path) -> None:
    """No file below *folder* stays open; what was loaded and dropped may be in a cycle still."""
    if open_files(folder):
        gc.collect()
    assert not open_files(folder), f"left open: {open_files(folder)}"


def check_error(error: BaseException | None, fault: Any) -> None:
    """Refuse what is no typed error."""
    if error is None or isinstance(error, CkptStoreError):
        return
    raised_as_it_is = fault.raises is MemoryError and isinstance(error, MemoryError)
    assert raised_as_it_is, f"raised {error!r} {raised_at(error)}"


def raised_at(error: BaseException) -> str:
    """Return the lines of ckptstore that an error came through, the innermost first."""
    frames = [
        f"{Path(frame.filename).name}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "/ckptstore/" in frame.filename
    ]
    return "in " + " < ".join(frames[: -4 - 1 : -1])


def check_versions(
    known: Known,
    found: Known,
    verb: Verb,
    error: BaseException | None,
) -> None:
    """Compare versions and tags before and after: nothing lost, nothing claimed that is not so."""
    versions, tags = known
    lost = {each for each in versions.items() - found[0].items() if each[0] not in verb.retires}
    assert not lost, f"lost: had {versions}, has {found[0]}"
    more = found[0].keys() - versions.keys() - verb.retires
    if error is None:
        assert len(more) == int(verb.saves), f"it succeeded, and made versions {sorted(more)}"
    elif more:
        notes = " ".join(getattr(error, "__notes__", []))
        honest = isinstance(error, (DurabilityError, OutcomeUnknownError))
        told = any(words in notes for words in ("is saved", "was committed", "outcome unknown"))
        assert honest or told, (
            f"version {sorted(more)} is there, and the error doesn't say so: {error!r} "
            f"{raised_at(error)}"
        )
    if not verb.writes:
        assert found == known, f"reading changed {known} to {found}"
    elif verb.name != "untag":
        assert tags.items() <= found[1].items(), f"tags were {tags}, and are {found[1]}"


def check_goes_on(store: Store, found: Known) -> None:
    """Save once more from another thread: no lock is held, and the store works."""
    with ThreadPoolExecutor(1) as other:
        made = other.submit(save, store, LATER).result(PATIENCE_S)
    assert made.version == max(found[0], default=0) + 1, f"saved {made.ref} after {found[0]}"
    assert is_right(store.get(made.ref)), f"{made.ref}, saved afterwards, is not right"


def _known(folder: Path) -> Known:
    """Return the versions with their epochs, each loaded and compared, and the tags."""
    with opened(folder) as store:
        found, damaged = entries(store)
        assert not damaged, f"visible and not whole: {damaged}"
        for each in found:
            assert is_right(each), f"{each.ref} is not what was saved as epoch {each.epoch}"
        return {each.version: each.epoch for each in found}, tags_of(found)


def _check_files(folder: Path, failing: Failing) -> None:
    """No temporary file, and no file that is cut short; what could not be removed stays."""
    kept = {Path(call.path).name for call in failing.hit if call.name == "unlink"}
    left = [each.name for each in folder.rglob(".tmp-*") if each.name not in kept]
    assert not left, f"temporary files are left: {left}"
    for pack in folder.glob("*/packs/*/*"):
        if pack.name not in kept:
            try:
                deserialize(pack.read_bytes())
            except SafetensorError as error:
                raise AssertionError(f"{pack.name} is left half written: {error}") from error
