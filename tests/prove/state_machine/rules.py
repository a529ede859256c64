"""The rules of the machine, and how hypothesis draws what is done."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.prove.state_machine import operations
from tests.prove.state_machine.machine import SECOND, Machine
from tests.prove.state_machine.model import CHECKPOINT, GRACE, RUNS, Model
from tests.prove.state_machine.operations import Operation
from tests.prove.state_machine.states import State

PAUSES = [SECOND, GRACE / 4, GRACE / 2 + SECOND, GRACE + SECOND]
TAGS = ("prod", "candidate")
MOST_VERSIONS = 14
MOST_OPERATIONS = 40
"""At which of its operations something is interrupted: later ones are drawn, and never reached."""

Drawn = tuple[str, int, int, int]
DRAWN = st.tuples(
    # Saves are what all else needs.
    st.sampled_from(
        [
            "save",
            "save",
            "save",
            "background",
            "background",
            "fork",
            "keep",
            "package",
            "prune",
            "prune",
            "tag",
            "untag",
            "log",
            "log-epoch",
            "note",
            "undelete",
            "undelete",
            "collect",
        ]
    ),
    st.integers(0, 7),
    st.integers(0, 2),
    st.integers(0, 3),
)


def made(  # noqa: C901, PLR0911, PLR0912 - a table of what can be drawn
    model: Model, drawn: Drawn, saved: int
) -> Operation:
    """Return what was drawn, about a version or run there is; a save where there is none.

    Args:
        model: What there is.
        drawn: The operation, and three numbers for its choices.
        saved: How often was saved before, so that no two saves are alike.
    """
    kind, first, second, third = drawn
    run = RUNS[first % len(RUNS)]
    live, retired = model.refs(live=True), model.refs(live=False)
    checkpoints = model.refs(live=True, kind=CHECKPOINT)
    full = sum(len(each.versions) for each in model.runs.values()) >= MOST_VERSIONS
    loss = None if third == 3 else third / 2  # one of four has none
    state = State(second, saved)
    if kind == "fork" and checkpoints and not full:
        parent = checkpoints[second % len(checkpoints)]
        return operations.save(run, state, loss, parent=parent, tag=TAGS[0] if third else None)
    if kind == "background" and not full:
        tag = TAGS[1] if first == 0 else None
        return operations.save(run, state, loss, tag=tag, background=True)
    if kind == "keep" and not full:
        return operations.save(run, state, loss, keep=1 + third)
    if kind == "package" and checkpoints and not full:
        source = checkpoints[second % len(checkpoints)]
        return operations.save_package(run, source, model.version(source).state)
    if kind == "prune" and model.runs[run].versions:
        return operations.prune(run, 1 + third)
    if kind == "tag" and live:
        return operations.tag(live[first % len(live)], TAGS[second % len(TAGS)])
    if kind == "untag" and model.runs[run].versions:
        return operations.untag(run, TAGS[second % len(TAGS)])
    if kind == "log" and live:
        return operations.log(live[first % len(live)], {"val_loss": third / 4, "acc": float(saved)})
    if kind == "log-epoch" and model.runs[run].versions:
        return operations.log_epoch(run, saved, third / 3)
    if kind == "note" and live:
        return operations.note(live[first % len(live)], "text" * third or None)
    if kind == "undelete" and retired:
        ref = retired[first % len(retired)]
        if operations.can_be_undeleted(model, ref):
            return operations.undelete(ref)
    if live and (full or kind == "collect"):
        return operations.collect()
    return operations.save(run, state, loss, tag=TAGS[1] if first == 0 else None)


class Stores(RuleBasedStateMachine):
    """A store in a folder."""

    figures: ClassVar[Counter[str]] = Counter()
    """Of all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="state-machine-"))
        self.url = self.place()
        self.machine = Machine(self.url, self.folder, self.figures)
        self.figures["stores"] += 1
        self.saved = 0

    def place(self) -> str:
        """Say where the store is."""
        return str(self.folder / "store")

    def made(self, drawn: Drawn) -> Operation:
        self.saved += 1
        return made(self.machine.model, drawn, self.saved)

    @rule(writer=st.sampled_from("ab"), drawn=DRAWN)
    def act(self, writer: str, drawn: Drawn) -> None:
        self.machine.act(writer, self.made(drawn))

    @rule(
        writer=st.sampled_from("ab"),
        drawn=DRAWN,
        at=st.integers(1, MOST_OPERATIONS),
        after=st.booleans(),
    )
    def crash(self, writer: str, drawn: Drawn, at: int, after: bool) -> None:  # noqa: FBT001 - drawn
        self.machine.crash(writer, self.made(drawn), at, after=after)

    @rule(
        writer=st.sampled_from("ab"),
        runs=st.lists(st.sampled_from(RUNS), min_size=1, max_size=3),
        at=st.none() | st.integers(1, 2 * MOST_OPERATIONS),
        after=st.booleans(),
    )
    def leave_pending(self, writer: str, runs: list[str], at: int | None, after: bool) -> None:  # noqa: FBT001 - drawn
        """Close a store, or crash, while saves are under way, and open it again."""
        if len(self.machine.model.refs()) + len(runs) > MOST_VERSIONS:
            return
        saves = []
        for run in runs:
            self.saved += 1
            saves.append((run, State(self.saved % 3, self.saved), self.saved / 8))
        operation = operations.leave_pending(saves)
        if at is None:
            self.machine.act(writer, operation)
            self.machine.reopen(writer)
        else:
            self.machine.crash(writer, operation, at, after=after)

    @rule(drawn=DRAWN, other=DRAWN, at=st.integers(1, MOST_OPERATIONS))
    def interleave(self, drawn: Drawn, other: Drawn, at: int) -> None:
        self.machine.interleave(self.made(drawn), self.made(other), at)

    @rule(
        writer=st.sampled_from("ab"),
        drawn=DRAWN,
        at=st.integers(1, MOST_OPERATIONS),
        pause=st.sampled_from(PAUSES),
    )
    def sleep(self, writer: str, drawn: Drawn, at: int, pause: timedelta) -> None:
        self.machine.sleep(writer, self.made(drawn), at, pause)

    @rule(pause=st.sampled_from(PAUSES))
    def wait(self, pause: timedelta) -> None:
        self.machine.wait(pause)

    @rule(writer=st.sampled_from("ab"), run=st.sampled_from(RUNS))
    def resume(self, writer: str, run: str) -> None:
        self.machine.resume(writer, run)

    @rule(writer=st.sampled_from("ab"))
    def reopen(self, writer: str) -> None:
        self.machine.reopen(writer)

    @rule(writer=st.sampled_from("ab"))
    def collect_all(self, writer: str) -> None:
        if self.machine.model.refs():
            self.machine.act(writer, operations.collect())
            self.machine.collected()

    @rule(
        writer=st.sampled_from("ab"),
        at=st.none() | st.integers(1, 2 * MOST_OPERATIONS),
        after=st.booleans(),
    )
    def copy_all(self, writer: str, at: int | None, after: bool) -> None:  # noqa: FBT001 - drawn
        if self.machine.model.refs(live=True):
            self.machine.copy_all(writer, at, after=after)

    @rule(writer=st.sampled_from("ab"))
    def look_after_the_store(self, writer: str) -> None:
        if self.machine.model.refs():
            self.machine.verify(writer)
            self.machine.reindex(writer)
            self.machine.refuses()

    @rule(writer=st.sampled_from("ab"), place=st.integers(0, 7))
    def undelete_too_late(self, writer: str, place: int) -> None:
        model = self.machine.model
        late = [r for r in model.refs(live=False) if not operations.can_be_undeleted(model, r)]
        if late:
            self.machine.cannot_undelete(writer, late[place % len(late)])

    @invariant()
    def all_promises_hold(self) -> None:
        self.machine.check()

    def teardown(self) -> None:
        self.machine.close()
        shutil.rmtree(self.folder)
        self.leave()

    def leave(self) -> None:
        """Take away what is not in the folder."""


class StoresInMemory(Stores):
    """A store on ``memory://``."""

    figures: ClassVar[Counter[str]] = Counter()

    def place(self) -> str:
        return f"memory://state-machine-{uuid.uuid4().hex}/store"

    def leave(self) -> None:
        memory: Any = fsspec.filesystem("memory")
        above = self.url.rpartition("/")[0]
        if memory.exists(above):
            memory.rm(above, recursive=True)


MACHINES = {"folder": Stores, "memory": StoresInMemory}
