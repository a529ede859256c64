"""Loaders of torchdata, which make their iterator, and draw for it, when the loop begins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from ckptstore.state.rng import forked

DRAWS_AT_ONCE = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers that draw an epoch's order when it begins, and keep nothing of how they drew it."""


def is_loader(part: object) -> bool:
    """Say whether something is torchdata's ``StatefulDataLoader``."""
    # There is none before this was imported, which not everybody has.
    torchdata = sys.modules.get("torchdata.stateful_dataloader")
    return torchdata is not None and isinstance(part, torchdata.StatefulDataLoader)


def loader_problems(loader: Any, state: Any) -> list[str]:
    """Say what keeps a loader from going on: torchdata's state is that of its workers."""
    try:
        snapshot = state.get("_snapshot")
        workers = 0 if snapshot is None else snapshot["_main_snapshot"]["_num_workers"]
    except (AttributeError, KeyError, TypeError):
        return ["its state is not what a StatefulDataLoader was saved as"]
    if state and workers != loader.num_workers:
        saved = f"saved by a loader with num_workers={workers!r:.40}"
        return [f"{saved}, and this has {loader.num_workers}: its state is that of its workers"]
    return []


def load(loader: Any, state: Any) -> None:
    """Give a loader its state, so that it goes on as if its iterator had been there all along.

    The iterator of an epoch that was cut is made when the loop asks for it, and draws a seed for
    its workers then, as does whatever it passes over. In the training that was saved all that was
    drawn when the epoch began. So it is drawn from nowhere: else dropout, say, would go on with
    other numbers.

    A sampler that shares the loader's generator puts it back to before it drew the epoch's order,
    and draws that again; the seed, which is drawn next, is then drawn here.
    """
    loader.load_state_dict(state)
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
