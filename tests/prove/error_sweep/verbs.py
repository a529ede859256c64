"""What is done while something fails: each verb of a store, and how its answer is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptstore import Keep, Store
from ckptstore.format.layout import FILES_FOLDER, PACKS_FOLDER, pack_key
from ckptstore.storage.s3 import S3Storage
from tests.faults import store_on
from tests.loading.trainings import Net, Training, frozen
from tests.prove.error_sweep.bucket import storage_in
from tests.prove.kill.operations import months_later
from tests.prove.states import RUN, entries, is_right, opened, save, state_of, tags_of
from tests.upkeep.copies import is_indexed_rightly

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
    in_months: bool = False
    """Whether all that is there is older than the grace period when it is done."""
    tells: Callable[[Any], bool] = lambda _: False
    """Says of another answer than ever whether it tells of what failed."""
    after: Callable[[Store], Any] = lambda _: None
    """Done when nothing fails any more: it raises where the verb left what it must not leave."""


def do(verb: Verb, store: Store) -> Any:
    """Do a verb, at its time."""
    with months_later() if verb.in_months else nullcontext():
        return verb.do(store)


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


def _rerun_of_collect_finishes(store: Store) -> None:
    """All that nobody names is gone then, and nothing else."""
    with months_later():
        store.collect()
    there = {
        each.key for kind in (PACKS_FOLDER, FILES_FOLDER) for each in store._storage.walk(kind)
    }
    live = [each for each in store.history() if each.retired is None]
    named = {pack_key(pack.save_id, pack.number) for each in live for pack in each.head.packs}
    assert there == named, f"{there - named} stay, and {named - there} are gone"
    assert not list(store._storage.leftovers())


def beside(store: Store) -> Store:
    """Open the store that is copied to: another folder, or prefix of the same bucket."""
    storage = store._storage
    if isinstance(storage, S3Storage):
        return store_on(storage_in(storage.client.request, "beside"))
    return opened(Path(store.url).with_name("beside"))


def _copy(store: Store) -> Any:
    with beside(store) as other:
        return store.copy_to(other).copied


def _rerun_of_copy_completes(store: Store) -> None:
    """Each version is there once then, bit for bit, with its tags."""
    with beside(store) as other:
        left = store.copy_to(other).left
        assert not left, f"left out: {left}"
        found, damaged = entries(other)
        assert not damaged, f"visible in the copy and not whole: {damaged}"
        assert all(map(is_right, found)), "the copy holds something else"
        assert sorted(each.epoch for each in found) == [1, 2, 3], "not once each in the copy"
        tags = _tagged_epochs(entries(store)[0])
        assert _tagged_epochs(found) == tags, f"tags of the copy: {tags_of(found)}"


def _tagged_epochs(found: list[Any]) -> dict[str, int]:
    """Where tags point, by what was saved: what could not be read at first has a later number."""
    return {tag: each.epoch for each in found for tag in each.tags}


def _index_is_right(store: Store) -> None:
    assert is_indexed_rightly(store), "an index built anew says something else"


def _verify(store: Store) -> Any:
    return [str(each) for each in store.verify(deep=False).findings]


def _of_a_failing_disk(findings: Any) -> bool:
    """Say whether a check found only what a sector that can't be read looks like."""
    return all("(EIO)" in each or "is cut short" in each for each in findings)


def _save_in_background(store: Store) -> Any:
    pending = store.save_async(state_of(9), run=RUN, epoch=9, val_loss=0.1, rng=False)
    return pending.result()


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
    Verb(
        "collect",
        lambda s: s.collect(),
        _prune,
        writes=True,
        in_months=True,
        after=_rerun_of_collect_finishes,
    ),
    Verb("collect, too early", lambda s: s.collect().deleted, _prune, writes=True),
    Verb("copy_to", _copy, after=_rerun_of_copy_completes),
    Verb("reindex", lambda s: s.reindex(), after=_index_is_right),
    Verb("verify", _verify, tells=_of_a_failing_disk),
    Verb("load", _load),
    Verb("load_best", _load_best),
    Verb("load without mapping", _load_read),
    Verb("resume", _resume),
    Verb("history", _history),
    Verb("runs", lambda s: s.runs()),
    Verb("save in the background", _save_in_background, saves=True, writes=True),
)


def fill(store: Store) -> None:
    """Save what is there before anything fails: versions, a tag, another run."""
    save(store, 1, tags=["keep"])
    save(store, 2)
    save(store, 3)
    Training(seed=3).save(store, run=NET, epoch=1, val_loss=1.0, rng=False)
