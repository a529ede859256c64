"""Loaders of torchdata, which make their iterator, and draw for it, when the loop begins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import (
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ckptstore.state.rng import forked

DRAWS_AT_ONCE = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers that draw an epoch's order when it begins, and keep nothing of how they drew it."""
MADE_WITH = "ckptstore_made_with"
"""Where a loader's state has what it was made with; torchdata passes over keys it doesn't know."""
SAID = {
    "sampler": "sampler",
    "samples": "a dataset of length",
    "batch_size": "batch_size",
    "drop_last": "drop_last",
}
"""What messages call it."""


def is_loader(part: object) -> bool:
    """Say whether something is torchdata's ``StatefulDataLoader``."""
    # There is none before this was imported, which not everybody has.
    torchdata = sys.modules.get("torchdata.stateful_dataloader")
    return torchdata is not None and isinstance(part, torchdata.StatefulDataLoader)


def loader_state(loader: Any) -> Any:
    """Return a loader's state, and beside it what it was made with."""
    state = loader.state_dict()
    return {**state, MADE_WITH: made_with(loader)} if isinstance(state, dict) else state


def made_with(loader: Any) -> dict[str, Any]:
    """Return what decides which sample comes when: a loader made otherwise can't go on exactly.

    Returns:
        ``sampler``: the class of what chooses the samples. ``samples``: how many the dataset has,
        None where it has no length or is iterated. ``batch_size`` and ``drop_last``.
    """
    # A batch sampler of the script's own is what chooses.
    own = loader.batch_size is None and loader.batch_sampler is not None
    inner = getattr(loader.batch_sampler, "sampler", None)
    samplers = [loader.batch_sampler, inner] if own else [loader.sampler]
    return {
        "sampler": " of ".join(_class_name(each) for each in samplers if each is not None),
        "samples": _length(loader.dataset),
        "batch_size": loader.batch_size,
        "drop_last": loader.drop_last,
    }


def loader_problems(loader: Any, state: Any) -> list[str]:
    """Say what keeps a loader from going on: other workers, another order, other samples.

    Between epochs it may have another length and size of batches: a new epoch begins.
    """
    try:
        workers = _workers(state)
        under_way = _is_under_way(state)
        saved = dict(state.get(MADE_WITH, {}))
    except (AttributeError, KeyError, TypeError, ValueError):
        return ["its state is not what a StatefulDataLoader was saved as"]
    problems = []
    if state and workers != loader.num_workers:
        was = f"saved by a loader with num_workers={workers!r:.40}"
        problems.append(
            f"{was}, and this has {loader.num_workers}: its state is that of its workers"
        )
    now = made_with(loader)
    compared = {"sampler"}
    if under_way:
        compared.add("samples")
        if workers or not _counts_samples(state):
            compared |= {"batch_size", "drop_last"}
    elif _is_shorter(now["samples"], saved.get("samples")):
        compared.add("samples")  # to where the epoch ended torchdata steps through it
    when = "in the middle of an epoch" if under_way else "between epochs"
    then = "would repeat or lose samples" if under_way else "can't begin an epoch from there"
    return problems + [
        f"saved {when} with {SAID[key]} {saved[key]!s:.80}, and this has {now[key]!s:.80}: it "
        f"{then}"
        for key in now
        if key in compared and key in saved and saved[key] != now[key]
    ]


def made_otherwise(
    states: Mapping[str, Any], parts: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Return the loaders among parts that can't go on from their saved state, and why."""
    problems = {
        name: tuple(loader_problems(part, states[name]))
        for name, part in parts.items()
        if is_loader(part)
    }
    return {name: each for name, each in problems.items() if each}


def redraws(state: Any) -> bool:
    """Say whether a loader's workers had drawn random numbers that nobody knows, or may have.

    That is, whether it was saved in the middle of an epoch, with workers. The state is one without
    :func:`loader_problems`.
    """
    return bool(_workers(state)) and _is_under_way(state)


def _workers(state: Any) -> Any:
    snapshot = state.get("_snapshot")
    return 0 if snapshot is None else snapshot["_main_snapshot"]["_num_workers"]


def _is_under_way(state: Any) -> bool:
    """Say whether an epoch was begun, and not ended."""
    if state.get("_iterator_finished", False):
        return False
    if state.get("_snapshot") is None:
        return bool(state.get("_num_yielded", 0) > 0)
    steps = state["_snapshot"].get("_snapshot_step", 0) + state.get("_steps_since_snapshot", 0)
    return bool(steps > 0)


def _counts_samples(state: Any) -> bool:
    """Say whether torchdata's batch sampler tells the samples that were seen, not the batches."""
    return state.get("_sampler_iter_state") is not None


def _is_shorter(now: Any, then: Any) -> bool:
    return type(now) is int and type(then) is int and now < then


def _class_name(sampler: object) -> str:
    # torch's and torchdata's have the same names; a script's own class is of __main__ in one
    # process and of its module in another.
    package = type(sampler).__module__.partition(".")[0]
    return f"{package}'s " * (package in {"torch", "torchdata"}) + type(sampler).__qualname__


def _length(dataset: Any) -> int | None:
    if isinstance(dataset, IterableDataset):
        return None
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):  # it has none
        return None


def load(loader: Any, state: Any) -> None:
    """Give a loader its state, so that it goes on as if its iterator had been there all along.

    The iterator of an epoch that was cut is made when the loop asks for it, and draws a seed for
    its workers then, as does whatever it passes over. In the training that was saved all that was
    drawn when the epoch began. So it is drawn from nowhere: else dropout, say, would go on with
    other numbers.

    A sampler that shares the loader's generator puts it back to before it drew the epoch's order,
    and draws that again; the seed, which is drawn next, is then drawn here.
    """
    own = isinstance(state, dict) and MADE_WITH in state
    loader.load_state_dict(
        {key: value for key, value in state.items() if key != MADE_WITH} if own else state
    )
    vars(loader).pop("_get_iterator", None)  # of a load before this one
    make = loader._get_iterator  # noqa: SLF001 - where torchdata makes it, and nowhere else

    def make_without_drawing() -> object:
        del loader._get_iterator  # noqa: SLF001 - once
        own, loader.generator = loader.generator, torch.Generator()
        before = None if own is None else own.get_state()
        try:
            with forked():
                made = make()
        finally:
            loader.generator = own
        if before is not None and not torch.equal(own.get_state(), before):
            torch.empty((), dtype=torch.int64).random_(generator=own)
        return made

    loader._get_iterator = make_without_drawing  # noqa: SLF001 - as above


def lost_orders(parts: Mapping[str, Any]) -> list[str]:
    """Return a warning for each loader whose order of samples can't be kept in mid-epoch."""
    found = []
    for name, part in parts.items():
        if not is_loader(part):
            continue
        samplers = [part.sampler, getattr(part.batch_sampler, "sampler", None)]
        kinds = [
            type(sampler).__qualname__
            for sampler in samplers
            if isinstance(sampler, DRAWS_AT_ONCE) and not hasattr(sampler, "state_dict")
        ]
        if kinds:
            found.append(
                f"part {name!r} can go on between epochs, not in the middle of one: torch's "
                f"{kinds[0]} keeps nothing of the order it drew. Take shuffle=True, or a sampler "
                "with state_dict(), such as torchdata.stateful_dataloader.sampler.RandomSampler"
            )
    return found
