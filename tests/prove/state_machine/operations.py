"""What writers do, and what the store may look like afterwards.

An operation that returned has happened. One that was interrupted, by a crash or by an error that
says so, may have happened to any point: those are all its outcomes, and no other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckptstore import Keep, Store
from ckptstore.errors import RetiredError
from tests.prove.state_machine.model import CHECKPOINT, GRACE, PACKAGE, Model, Version
from tests.prove.state_machine.states import Box, State

Shown = Mapping[str, Any]


@dataclass
class Writer:
    """A store as one process has it open."""

    name: str
    store: Store
    resumed: set[tuple[str, int]] = field(default_factory=set)


Step = Callable[[Model, Shown], None]
"""Changes the model as one step of an operation changes what can be seen."""


@dataclass
class Operation:
    """Something a writer does."""

    name: str
    work: Callable[[Writer], Any]
    steps: Sequence[Step]
    """What can be seen of it, one after another: somebody else may do something in between."""
    tolerates: tuple[type[BaseException], ...] = ()
    """What the store may say of it when somebody else was faster."""


Done = tuple[Operation, bool]
"""An operation, and whether it returned."""


def outcomes(model: Model, done: Sequence[Done], seen: Shown, *, within: bool) -> list[Model]:
    """Return what may be the case afterwards.

    Args:
        model: What was the case before.
        done: One operation or two.
        seen: What a reader sees now, where the store has a choice.
        within: Whether the second was done somewhere within the first, and not after it.
    """
    (first, first_whole), *others = done
    made = []
    for steps in _prefixes(first, whole=first_whole):
        for rest in _prefixes(others[0][0], whole=others[0][1]) if others else [()]:
            places = range(len(steps) + 1) if within else [len(steps)]
            made += [_taken(model, [*steps[:at], *rest, *steps[at:]], seen) for at in places]
    return made


def _prefixes(operation: Operation, *, whole: bool) -> list[Sequence[Step]]:
    steps = operation.steps
    return [steps] if whole else [steps[:count] for count in range(len(steps) + 1)]


def _taken(model: Model, steps: Sequence[Step], seen: Shown) -> Model:
    made = model.copy()
    for step in steps:
        step(made, seen)
    return made


def save(
    run: str,
    state: State,
    loss: float | None,
    *,
    parent: tuple[str, int] | None = None,
    tag: str | None = None,
    keep: int | None = None,
    background: bool = False,
) -> Operation:
    """Save a checkpoint; with *keep*, what to keep of the run is recorded first."""

    def work(writer: Writer) -> Any:
        settings = {} if keep is None else {"keep": Keep(last=keep)}
        to = writer.store.run(run, **settings)
        what = {
            "box": Box(state),
            "epoch": state.head,
            "val_loss": loss,
            "rng": False,
            "parent": None if parent is None else f"{parent[0]}@{parent[1]}",
            "tags": [] if tag is None else [tag],
        }
        if not background:
            return to.save(state.model(), **what)
        model = state.model()
        pending = to.save_async(model, **what)
        for tensor in model.values():
            tensor.zero_()  # as a training that goes on
        return pending.result()

    metrics = {} if loss is None else {"val_loss": loss}
    told = [] if parent is None else [_told(parent)]
    version = Version(CHECKPOINT, state, state.head, metrics)
    steps = [*told, *_committed(run, lambda _: version, tag, keep)]
    return Operation(f"save into {run}", work, steps, (RetiredError,))


def leave_pending(saves: Sequence[tuple[str, State, float | None]]) -> Operation:
    """Begin saves in the background, one on the heels of another, and close the store."""

    def work(writer: Writer) -> Any:
        for run, state, loss in saves:
            writer.store.save_async(
                state.model(),
                run=run,
                box=Box(state),
                epoch=state.head,
                val_loss=loss,
                rng=False,
            )
        writer.store.close()

    steps: list[Step] = []
    for run, state, loss in saves:
        version = Version(CHECKPOINT, state, state.head, {} if loss is None else {"val_loss": loss})
        steps += _committed(run, lambda _, version=version: version, None, None)
    return Operation("save in the background and close", work, steps)


def save_package(run: str, source: tuple[str, int], state: State) -> Operation:
    """Make a package of a checkpoint."""

    def work(writer: Writer) -> Any:
        return writer.store.save_package(f"{source[0]}@{source[1]}", run=run)

    def made(model: Model) -> Version:
        found = model.version(source)
        return Version(PACKAGE, state, found.epoch, dict(found.metrics))

    steps = [_told(source), *_committed(run, made, None, None)]
    return Operation(f"save a package into {run}", work, steps, (RetiredError,))


def _told(parent: tuple[str, int]) -> Step:
    def step(model: Model, seen: Shown) -> None:
        del seen
        model.announced.add(parent)

    return step


def _committed(
    run: str, version: Callable[[Model], Version], tag: str | None, keep: int | None
) -> Iterator[Step]:
    """Yield what a save makes visible: the version, the settings, the tag, the pruning."""
    numbers: dict[int, int] = {}

    def commit(model: Model, seen: Shown) -> None:
        del seen
        numbers[id(model)] = len(model.runs[run].versions) + 1
        model.runs[run].versions[numbers[id(model)]] = copy.deepcopy(version(model))

    def settle(model: Model, seen: Shown) -> None:
        del seen
        model.runs[run].keep = keep

    def point(model: Model, seen: Shown) -> None:
        del seen
        assert tag is not None
        model.runs[run].tags[tag] = numbers[id(model)]

    def tidy(model: Model, seen: Shown) -> None:
        last = model.runs[run].keep
        if last is not None:
            # Whether this process knows yet that the run keeps so many is its own matter.
            _prune(model, seen, run, last, None)

    yield commit
    if keep is not None:
        yield settle
    if tag is not None:
        yield point
    yield tidy


def prune(run: str, last: int) -> Operation:
    """Retire what is not kept."""

    def work(writer: Writer) -> Any:
        resumed.update(number for path, number in writer.resumed if path == run)
        return writer.store.prune(Keep(last=last), run=run)

    def step(model: Model, seen: Shown) -> None:
        _prune(model, seen, run, last, resumed)

    resumed: set[int] = set()
    return Operation(f"prune {run} to {last}", work, [step])


def _prune(model: Model, seen: Shown, run: str, last: int, resumed: set[int] | None) -> None:
    """Retire in the model what is seen to be retired, if that is what may be.

    Args:
        model: As it was before.
        seen: What a reader sees.
        run: The run.
        last: How many are kept.
        resumed: What the process that prunes resumed from; None: that is not known, and nor is
            whether it pruned.
    """
    versions = seen.get(run, {}).get("versions", {})
    live = set(model.runs[run].live())
    gone = {number for number in live if versions.get(number, [""] * 5)[4] == "retired"}
    must_stay = model.must_stay(run, last, resumed or ())
    may_stay = model.may_stay(run, last, live if resumed is None else resumed)
    if not gone & must_stay and live - gone <= may_stay:
        for number in gone:
            model.runs[run].versions[number].retired_at = model.now


def tag(ref: tuple[str, int], name: str) -> Operation:
    """Point a tag at a version that is live, unless somebody retires it meanwhile."""
    run, number = ref

    def step(model: Model, seen: Shown) -> None:
        del seen
        model.runs[run].tags[name] = number

    return Operation(
        f"tag {run}@{number} {name}",
        lambda writer: writer.store.tag(f"{run}@{number}", name),
        [step],
        (RetiredError,),
    )


def untag(run: str, name: str) -> Operation:
    """Take a tag away."""

    def step(model: Model, seen: Shown) -> None:
        del seen
        model.runs[run].tags.pop(name, None)

    return Operation(
        f"untag {run} {name}", lambda writer: writer.store.untag(name, run=run), [step]
    )


def log(ref: tuple[str, int], metrics: Mapping[str, float]) -> Operation:
    """Record a version's metrics later."""
    run, number = ref

    def step(model: Model, seen: Shown) -> None:
        del seen
        model.version(ref).metrics.update(metrics)

    return Operation(
        f"log of {run}@{number}",
        lambda writer: writer.store.log(f"{run}@{number}", dict(metrics)),
        [step],
    )


def log_epoch(run: str, epoch: int, loss: float) -> Operation:
    """Record the metrics of an epoch without weights."""

    def step(model: Model, seen: Shown) -> None:
        del seen
        model.runs[run].logged.append((epoch, loss))

    return Operation(
        f"log of an epoch of {run}",
        lambda writer: writer.store.run(run).log(epoch=epoch, train_loss=loss),
        [step],
    )


def note(ref: tuple[str, int], text: str | None) -> Operation:
    """Note something about a version."""
    run, number = ref

    def step(model: Model, seen: Shown) -> None:
        del seen
        model.version(ref).note = text

    return Operation(
        f"note of {run}@{number}",
        lambda writer: writer.store.note(f"{run}@{number}", text),
        [step],
    )


def undelete(ref: tuple[str, int]) -> Operation:
    """Bring a version back; what happens meanwhile may make it too late."""
    run, number = ref

    def step(model: Model, seen: Shown) -> None:
        del seen
        model.version(ref).retired_at = None

    return Operation(
        f"undelete {run}@{number}",
        lambda writer: writer.store.undelete(f"{run}@{number}"),
        [step],
        (RetiredError,),
    )


def can_be_undeleted(model: Model, ref: tuple[str, int]) -> bool:
    """Say whether a retired version must come back when it is asked for."""
    version = model.version(ref)
    if version.retired_at is None:
        return True
    return not version.final and model.now - version.retired_at <= GRACE / 2


def collect() -> Operation:
    """Delete what nobody needs: nobody sees a difference."""

    return Operation("collect", lambda writer: writer.store.collect(), [])
