"""Every order of saves, undeletions, retirements, collections and pauses keeps what is live.

The collection and the undeletion are the real ones, stopped before each request for as long as the
test likes; the save is a model of what docs/explanation/clean-up.md asks of one. What took too long
is taken back in the same step: the page says what remains where it is not.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ckptstore.errors import IntegrityError, LateCommitError, RetiredError
from ckptstore.format.facts import LATE
from ckptstore.format.journal import Entry, UndeleteEntry
from ckptstore.format.layout import STORE_KEY
from ckptstore.upkeep import collection
from ckptstore.upkeep.collection import collect
from ckptstore.upkeep.undeletion import undelete
from tests.upkeep.actors import Actor
from tests.upkeep.histories import GRACE, RUN, History

SECOND = timedelta(seconds=1)
MOST_ACTORS = 5
PAUSES = [
    SECOND,
    GRACE / 4,
    GRACE / 2 - SECOND,
    GRACE / 2,
    GRACE / 2 + SECOND,
    GRACE - SECOND,
    GRACE + SECOND,
    2 * GRACE,
]


class Stores(RuleBasedStateMachine):
    """One store, several actors at work on it, and time passing in between."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.actors: list[Actor] = []
        self.patch = pytest.MonkeyPatch()
        clocks = SimpleNamespace(time=self.seconds, monotonic=self.seconds)
        self.patch.setattr("ckptstore.saving.moment.time", clocks)
        # The argument does not lean on looking again, nor may the model.
        self.patch.setattr(collection, "DELETE_BATCH", 1)
        self.patch.setattr(collection, "LOOK_S", float("inf"))
        self.history.save()

    def seconds(self) -> float:
        return self.history.storage.now.timestamp()

    def start(self, work) -> None:
        self.actors.append(Actor(self.history.storage, work))

    @rule(pause=st.sampled_from(PAUSES))
    def wait(self, pause: timedelta) -> None:
        self.history.wait(pause)

    @precondition(lambda self: len(self.actors) < MOST_ACTORS)
    @rule(reuses=st.booleans())
    def save(self, reuses: bool) -> None:  # noqa: FBT001 - drawn
        self.start(lambda storage: save(self.history.through(storage), reuses=reuses))

    @precondition(lambda self: len(self.actors) < MOST_ACTORS)
    @rule()
    def collect(self) -> None:
        known = self.history.known
        self.start(lambda storage: collect(storage, single_writer=False, known=known))

    @precondition(lambda self: len(self.actors) < MOST_ACTORS)
    @rule(place=st.integers(0, 7))
    def undelete(self, place: int) -> None:
        version = place % (self.history.next_version() - 1) + 1
        self.start(lambda storage: bring_back(self.history.through(storage), version))

    @rule(place=st.integers(0, 7))
    def retire(self, place: int) -> None:
        self.history.retire(place % (self.history.next_version() - 1) + 1)

    @precondition(lambda self: self.actors)
    @rule(place=st.integers(0, MOST_ACTORS), steps=st.integers(1, 4))
    def step(self, place: int, steps: int) -> None:
        actor = self.actors[place % len(self.actors)]
        for _ in range(steps):
            actor.step()
        self.look(actor)

    @precondition(lambda self: self.actors)
    @rule(place=st.integers(0, MOST_ACTORS))
    def step_until_it_deletes_or_commits(self, place: int) -> None:
        actor = self.actors[place % len(self.actors)]
        while not actor.is_done:
            actor.step()
            if actor.next and (actor.next[0] == "delete" or actor.next[1] == STORE_KEY):
                break
        self.look(actor)

    @precondition(lambda self: self.actors)
    @rule(place=st.integers(0, MOST_ACTORS))
    def finish(self, place: int) -> None:
        actor = self.actors[place % len(self.actors)]
        actor.finish()
        self.look(actor)

    def look(self, actor: Actor) -> None:
        if actor.is_done:
            self.actors.remove(actor)
            if actor.error is not None and not isinstance(actor.error, EXPECTED):
                raise actor.error

    @invariant()
    def nothing_live_is_lost(self) -> None:
        assert self.history.lost() == []

    def teardown(self) -> None:
        for actor in self.actors:
            actor.finish()
        lost = self.history.lost()
        self.patch.undo()
        assert lost == []


EXPECTED = (RetiredError, LateCommitError, IntegrityError)


def save(history: History, *, reuses: bool) -> None:
    """Save as a store does: look, write, look at the clock, commit, look at the clock again."""
    begun = history.storage.now
    live = history.live()
    reused = sorted(live[max(live)])[:3] if live and reuses else []
    own = history.pack()
    if is_late(history, begun):
        return
    history.storage.read(STORE_KEY)  # whatever happens between the check and the commit
    history.storage.actor.hurry()
    version = history.commit(own, *reused)
    if is_late(history, begun):
        history.retire(version, reason=f"{LATE}it took too long")


def is_late(history: History, begun: datetime) -> bool:
    return history.storage.now - begun > GRACE / 2


def bring_back(history: History, version: int) -> None:
    def append(decide) -> Entry | None:
        def decided(*told):
            entry = decide(*told)
            if isinstance(entry, UndeleteEntry):
                history.storage.read(STORE_KEY)  # whatever happens between the check and the entry
                history.storage.actor.hurry()
            return entry

        return history.append(decided)

    undelete(history.storage, RUN, version, append)


Stores.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStores = Stores.TestCase
