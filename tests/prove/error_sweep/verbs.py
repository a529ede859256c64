"""What is done while something fails: each verb of a store, and how its answer is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore import Keep, Store
from tests.loading.trainings import Net, Training, frozen
from tests.prove.states import RUN, save

NET = "net"


@dataclass(frozen=True)
class Verb:
    """One thing a user does."""

    name: str
    do: Callable[[Store], Any]
    """Gives what can be compared: the same each time for a verb that reads."""
    before: Callable[[Store], Any] = lambda _: None
    """Done by the same process first, while nothing fails."""
    saves: bool = False
    """Whether it makes a version."""
    writes: bool = False
    retires: frozenset[int] = frozenset()
    """The versions that may be retired afterwards, or no longer be."""
    in_nothing: bool = False
    """Whether it begins where there is no store."""


def _package(store: Store) -> Any:
    return store.save_package(f"{RUN}@2", tags=["served"])


def _load(store: Store) -> Any:
    return frozen({ref: dict(store.get(ref).state("model")) for ref in (f"{RUN}@1", f"{RUN}@keep")})


def _load_best(store: Store) -> Any:
    return frozen(store.load_best(Net, run=NET, device="cpu").state_dict())


def _load_read(store: Store) -> Any:
    module = store.load_latest(Net, run=NET, device="cpu", mmap=False)
    return frozen(module.state_dict())


def _resume(store: Store) -> Any:
    training = Training(seed=7)
    before = _parts(training)
    try:
        resumed = training.resume(store, run=NET, rng=False)
    except BaseException:
        assert _parts(training) == before, "a resume that failed changed what it was given"
        raise
    return resumed.checkpoint.ref if resumed else "nothing", _parts(training)


def _parts(training: Training) -> Any:
    return frozen({name: part.state_dict() for name, part in training.parts().items()})


def _prune(store: Store) -> Any:
    return [str(each) for each in store.prune(Keep(last=1, best=0), run=RUN)]


def _undelete(store: Store) -> Any:
    return store.undelete(f"{RUN}@2").ref


def _verify(store: Store) -> Any:
    return [str(each) for each in store.verify(deep=False).findings]


def _history(store: Store) -> Any:
    found = store.history()
    return [(each.ref, each.epoch, sorted(each.tags)) for each in found], found.damaged


VERBS: Sequence[Verb] = (
    Verb("first save", lambda s: save(s, 9), saves=True, writes=True, in_nothing=True),
    Verb("save", lambda s: save(s, 9), saves=True, writes=True),
    Verb("save again", lambda s: save(s, 9), lambda s: save(s, 8), saves=True, writes=True),
    Verb("save with tags", lambda s: save(s, 9, tags=["a"]), saves=True, writes=True),
    Verb("package", _package, saves=True, writes=True),
    Verb("tag", lambda s: s.tag(f"{RUN}@2", "moved"), writes=True),
    Verb("untag", lambda s: s.untag("keep", run=RUN), writes=True),
    Verb("log", lambda s: s.get(f"{RUN}@1").log(test_acc=0.5), writes=True),
    Verb("note", lambda s: s.note(f"{RUN}@1", "odd"), writes=True),
    Verb("prune", _prune, writes=True, retires=frozenset({2})),
    Verb("undelete", _undelete, _prune, writes=True, retires=frozenset({2})),
    Verb("collect", lambda s: s.collect().deleted, _prune, writes=True),
    Verb("verify", _verify),
    Verb("load", _load),
    Verb("load_best", _load_best),
    Verb("load without mapping", _load_read),
    Verb("resume", _resume),
    Verb("history", _history),
    Verb("runs", lambda s: s.runs()),
)


def fill(store: Store) -> None:
    """Save what is there before anything fails: versions, a tag, another run."""
    save(store, 1, tags=["keep"])
    save(store, 2)
    save(store, 3)
    Training(seed=3).save(store, run=NET, epoch=1, val_loss=1.0, rng=False)
