"""What writers do, and what the store may look like afterwards.

An operation that returned has happened. One that was interrupted, by a crash or by an error that
says so, may have happened to any point: those are all its outcomes, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


@dataclass
class Operation:
    """Something a writer does."""

    name: str
    work: Callable[[Writer], Any]
    steps: Callable[[Model, Shown], Iterator[Model]]
    """Gives the model after each step that can be seen, from the first to the last."""
    tolerates: tuple[type[BaseException], ...] = ()
    """What the store may say of it when somebody else was faster."""

    def outcomes(self, model: Model, seen: Shown, *, whole: bool) -> list[Model]:
        """Return what may be the case afterwards.

        Args:
            model: What was the case before.
            seen: What a reader sees now, where the store has a choice.
            whole: Whether the operation returned.
        """
        after = list(self.steps(model, seen))
        if not whole:
            return [model, *after]
        return after[-1:] or [model]


def save(
    run: str,
    state: State,
    loss: float | None,
    *,
    parent: tuple[str, int] | None = None,
    tag: str | None = None,
    keep: int | None = None,
) -> Operation:
    """Save a checkpoint; with *keep*, what to keep of the run is recorded first."""

    def work(writer: Writer) -> Any:
        settings = {} if keep is None else {"keep": Keep(last=keep)}
        return writer.store.run(run, **settings).save(
            state.model(),
            box=Box(state),
            epoch=state.head,
            val_loss=loss,
            rng=False,
            parent=None if parent is None else f"{parent[0]}@{parent[1]}",
            tags=[] if tag is None else [tag],
        )

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        if parent is not None and parent[0] != run:
            model = model.copy()
            model.announced.add(parent)
        metrics = {} if loss is None else {"val_loss": loss}
        yield from _committed(
            model, seen, run, Version(CHECKPOINT, state, state.head, metrics), tag, keep
        )

    return Operation(f"save into {run}", work, steps, (RetiredError,))


def save_package(run: str, source: tuple[str, int], state: State) -> Operation:
    """Make a package of a checkpoint."""

    def work(writer: Writer) -> Any:
        return writer.store.save_package(f"{source[0]}@{source[1]}", run=run)

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        model = model.copy()
        model.announced.add(source)
        made = model.version(source)
        version = Version(PACKAGE, state, made.epoch, dict(made.metrics))
        yield from _committed(model, seen, run, version, None, None)

    return Operation(f"save a package into {run}", work, steps, (RetiredError,))


def _committed(  # noqa: PLR0917 - made in two places
    model: Model, seen: Shown, run: str, version: Version, tag: str | None, keep: int | None
) -> Iterator[Model]:
    """Yield what a save makes visible: the version, the settings, the tag, the pruning."""
    model = model.copy()
    number = len(model.runs[run].versions) + 1
    model.runs[run].versions[number] = version
    yield model
    if keep is not None and model.runs[run].keep != keep:
        model = model.copy()
        model.runs[run].keep = keep
        yield model
    if tag is not None:
        model = model.copy()
        model.runs[run].tags[tag] = number
        yield model
    last = model.runs[run].keep
    if last is not None:
        # Whether this process knows yet that the run keeps so many is its own matter.
        yield from _pruned(model, seen, run, last, None)


def prune(run: str, last: int) -> Operation:
    """Retire what is not kept."""

    def work(writer: Writer) -> Any:
        resumed.update(number for path, number in writer.resumed if path == run)
        return writer.store.prune(Keep(last=last), run=run)

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        yield from _pruned(model, seen, run, last, resumed)

    resumed: set[int] = set()
    return Operation(f"prune {run} to {last}", work, steps)


def _pruned(
    model: Model, seen: Shown, run: str, last: int, resumed: set[int] | None
) -> Iterator[Model]:
    """Yield the model as pruned, if what is seen to be retired is what may be.

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
        model = model.copy()
        for number in gone:
            model.runs[run].versions[number].retired_at = model.now
        yield model


def tag(ref: tuple[str, int], name: str) -> Operation:
    """Point a tag at a version that is live, unless somebody retires it meanwhile."""
    run, number = ref

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        model = model.copy()
        model.runs[run].tags[name] = number
        yield model

    return Operation(
        f"tag {run}@{number} {name}",
        lambda writer: writer.store.tag(f"{run}@{number}", name),
        steps,
        (RetiredError,),
    )


def untag(run: str, name: str) -> Operation:
    """Take a tag away."""

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        model = model.copy()
        model.runs[run].tags.pop(name, None)
        yield model

    return Operation(f"untag {run} {name}", lambda writer: writer.store.untag(name, run=run), steps)


def log(ref: tuple[str, int], metrics: Mapping[str, float]) -> Operation:
    """Record a version's metrics later."""
    run, number = ref

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        model = model.copy()
        model.version(ref).metrics.update(metrics)
        yield model

    return Operation(
        f"log of {run}@{number}",
        lambda writer: writer.store.log(f"{run}@{number}", dict(metrics)),
        steps,
    )


def log_epoch(run: str, epoch: int, loss: float) -> Operation:
    """Record the metrics of an epoch without weights."""

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        model = model.copy()
        model.runs[run].logged.append((epoch, loss))
        yield model

    return Operation(
        f"log of an epoch of {run}",
        lambda writer: writer.store.run(run).log(epoch=epoch, train_loss=loss),
        steps,
    )


def note(ref: tuple[str, int], text: str | None) -> Operation:
    """Note something about a version."""
    run, number = ref

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        model = model.copy()
        model.version(ref).note = text
        yield model

    return Operation(
        f"note of {run}@{number}",
        lambda writer: writer.store.note(f"{run}@{number}", text),
        steps,
    )


def undelete(ref: tuple[str, int]) -> Operation:
    """Bring a version back; what happens meanwhile may make it too late."""
    run, number = ref

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        model = model.copy()
        model.version(ref).retired_at = None
        yield model

    return Operation(
        f"undelete {run}@{number}",
        lambda writer: writer.store.undelete(f"{run}@{number}"),
        steps,
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

    def steps(model: Model, seen: Shown) -> Iterator[Model]:
        del seen
        yield model

    return Operation("collect", lambda writer: writer.store.collect(), steps)
