"""Loaders, samplers and metrics: the same batches in the same order, the same figures."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler, StatefulDistributedSampler

from tests.fidelity.cases import Case
from tests.fidelity.training import Training, goes_on

SAMPLES = 11
BATCH = 4
BATCHES = 3
"""How many batches an epoch has; six steps are two epochs."""


class Samples(Dataset[torch.Tensor]):
    """Rows of four, the same at every look; or with noise, drawn at every look."""

    def __init__(self, *, noise: bool = False) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        row = torch.linspace(-1, 1, 4) * (index + 1) / SAMPLES
        return row + torch.rand(4) * random.random() if self.noise else row  # noqa: S311 - no secret


class Stream(IterableDataset[torch.Tensor]):
    """Rows that are drawn from a generator of its own; it keeps how far it is."""

    def __init__(self) -> None:
        self.drawn = 0
        self.goes_on = False
        self.generator = random.Random(3)  # noqa: S311 - no secret

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = torch.utils.data.get_worker_info()
        share = SAMPLES if worker is None else (SAMPLES + 1) // worker.num_workers
        if not self.goes_on:  # a new epoch
            self.drawn = 0
        self.goes_on = False
        return self.rows(share)

    def rows(self, share: int) -> Iterator[torch.Tensor]:
        while self.drawn < share:
            self.drawn += 1
            yield torch.tensor([self.generator.random() for _ in range(4)])

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "generator": self.generator.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn, self.goes_on = state["drawn"], True
        self.generator.setstate(state["generator"])


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 3))


class Loop:
    """A training that takes a batch a step, epoch after epoch, from a loader that is saved with it.

    Args:
        loader: The loader.
        epoch: The epoch to begin in.
    """

    def __init__(self, loader: Any, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch
        self.model = net()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.batches: Iterator[torch.Tensor] | None = None

    def step(self, _number: int) -> float:
        loss = self.model(self.batch()).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def batch(self) -> torch.Tensor:
        if self.batches is None:
            self.begin()
        assert self.batches is not None
        try:
            return next(self.batches)
        except StopIteration:
            self.epoch += 1
            self.begin()
            return next(self.batches)

    def begin(self) -> None:
        sampler = self.loader.sampler
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(self.epoch)
        self.batches = iter(self.loader)


def in_mid_epoch(name: str, option: str, make: Callable[[], Any], batches: int = BATCHES) -> Case:
    """Return the case of a loader that is saved after any of its batches.

    Args:
        name: Of the row.
        option: Of the row.
        make: Builds the loader.
        batches: How many an epoch has.
    """

    def build(done: int) -> Training:
        loop = Loop(make(), max(0, done - 1) // batches)
        parts = {"model": loop.model, "optimizer": loop.optimizer, "loader": loop.loader}
        if isinstance(loop.loader.sampler, DistributedSampler):
            # Its state is asked for before the loop begins, here and in the test.
            loop.loader.sampler.set_epoch(loop.epoch)
        return Training(parts, loop.step)

    def run(folder: Path) -> list[str]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata calls it
            return [*goes_on(folder, build), "order of samples"]

    return Case("data", name, option, run)


def between_epochs(
    name: str, option: str, make: Callable[[torch.Generator], Any], *, own: bool
) -> Case:
    """Return the case of a loader without state, where each step is an epoch.

    Args:
        name: Of the row.
        option: Of the row.
        make: Builds the loader with a generator, which is saved.
        own: Whether the loader draws from that one.
    """

    def build(done: int) -> Training:
        generator = torch.Generator().manual_seed(7)
        loop = Loop(make(generator), done)

        def epoch(number: int) -> float:
            loop.epoch = number
            loop.begin()
            return sum(loop.step(number) for _ in range(len(loop.loader)))

        parts = {"model": loop.model, "optimizer": loop.optimizer}
        return Training(parts | ({"order": generator} if own else {}), epoch)

    return Case("data", name, option, lambda folder: [*goes_on(folder, build), "order of samples"])


def measured(name: str, make: Callable[[], Any], option: str = "", *, binary: bool = False) -> Case:
    """Return the case of a metric whose figures go on."""

    def build(_done: int) -> Training:
        model, metric = net(), make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(_number: int) -> float:
            x, y = torch.randn(12, 4), torch.randint(3, (12,))
            output = model(x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(output, y).backward()
            optimizer.step()
            seen = (output.detach().softmax(1), y) if not binary else (output.detach()[:, 0],)
            batch = metric(*seen)
            metric.update(*seen)
            return _total(batch) + _total(metric.compute())

        return Training({"model": model, "optimizer": optimizer, "scores": metric}, step)

    def run(folder: Path) -> list[str]:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "No .* samples in targets"
            )  # a small batch may lack one
            return [*goes_on(folder, build), "metric of each batch and of all"]

    return Case("data", name, option, run)


def _total(value: Any) -> float:
    """Return a number that depends on every figure of a metric's result."""
    if isinstance(value, dict):
        return sum(map(_total, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_total, value))
    return float(value.double().sum())


def stateful(dataset: Any, batch_size: int = BATCH, **options: Any) -> StatefulDataLoader[Any]:
    return StatefulDataLoader(dataset, batch_size=batch_size, **options)


def classes(kind: Any, **options: Any) -> Any:
    return kind(num_classes=3, **options)


CASES: list[Case] = [
    in_mid_epoch("StatefulDataLoader", "", lambda: stateful(Samples())),
    in_mid_epoch("StatefulDataLoader", "shuffle=True", lambda: stateful(Samples(), shuffle=True)),
    in_mid_epoch(
        "StatefulDataLoader",
        "shuffle=True, generator=",
        lambda: stateful(
            Samples(), shuffle=True, generator=torch.Generator().manual_seed(random.getrandbits(9))
        ),
    ),
    in_mid_epoch(
        "StatefulDataLoader",
        "shuffle=True, samples drawn with noise",
        lambda: stateful(Samples(noise=True), shuffle=True),
    ),
    in_mid_epoch(
        "StatefulDataLoader",
        "shuffle=True, num_workers=2",
        lambda: stateful(Samples(), shuffle=True, num_workers=2),
    ),
    in_mid_epoch(
        "StatefulDataLoader",
        "shuffle=True, num_workers=2, persistent_workers",
        lambda: stateful(Samples(), shuffle=True, num_workers=2, persistent_workers=True),
    ),
    in_mid_epoch("StatefulDataLoader", "iterable with state", lambda: stateful(Stream())),
    in_mid_epoch(
        "StatefulDataLoader",
        "iterable with state, num_workers=2",
        lambda: stateful(Stream(), 3, num_workers=2),
        batches=4,
    ),
    in_mid_epoch(
        "StatefulDataLoader",
        "sampler=torchdata's RandomSampler",
        lambda: stateful(Samples(), sampler=RandomSampler(Samples())),
    ),
    in_mid_epoch(
        "StatefulDataLoader",
        "sampler=DistributedSampler, set_epoch",
        lambda: stateful(Samples(), sampler=DistributedSampler(Samples(), num_replicas=1, rank=0)),
    ),
    in_mid_epoch(
        "StatefulDataLoader",
        "sampler=StatefulDistributedSampler, set_epoch, num_workers=2",
        lambda: stateful(
            Samples(),
            sampler=StatefulDistributedSampler(Samples(), num_replicas=1, rank=0),
            num_workers=2,
        ),
    ),
    between_epochs(
        "DataLoader",
        "shuffle=True, between epochs",
        lambda _: DataLoader(Samples(noise=True), batch_size=BATCH, shuffle=True),
        own=False,
    ),
    between_epochs(
        "DataLoader",
        "shuffle=True, num_workers=2, samples drawn with noise, between epochs",
        lambda _: DataLoader(Samples(noise=True), batch_size=BATCH, shuffle=True, num_workers=2),
        own=False,
    ),
    between_epochs(
        "DataLoader",
        "shuffle=True, generator= as a part, between epochs",
        lambda own: DataLoader(Samples(), batch_size=BATCH, shuffle=True, generator=own),
        own=True,
    ),
    between_epochs(
        "DataLoader",
        "sampler=RandomSampler(generator=), that as a part, between epochs",
        lambda own: DataLoader(
            Samples(),
            batch_size=BATCH,
            sampler=torch.utils.data.RandomSampler(Samples(), generator=own),
        ),
        own=True,
    ),
    between_epochs(
        "DataLoader",
        "sampler=DistributedSampler, set_epoch, between epochs",
        lambda _: DataLoader(
            Samples(),
            batch_size=BATCH,
            sampler=DistributedSampler(Samples(), num_replicas=2, rank=1),
        ),
        own=False,
    ),
    measured("MeanMetric", torchmetrics.MeanMetric, binary=True),
    measured("MaxMetric", torchmetrics.MaxMetric, binary=True),
    measured("CatMetric", torchmetrics.CatMetric, "list of tensors", binary=True),
    measured("Accuracy", lambda: classes(torchmetrics.classification.MulticlassAccuracy)),
    measured(
        "ConfusionMatrix", lambda: classes(torchmetrics.classification.MulticlassConfusionMatrix)
    ),
    measured(
        "AUROC", lambda: classes(torchmetrics.classification.MulticlassAUROC), "lists of tensors"
    ),
    measured(
        "AUROC",
        lambda: classes(torchmetrics.classification.MulticlassAUROC, thresholds=5),
        "thresholds=5: a buffer that is not persistent",
    ),
    measured(
        "MetricCollection",
        lambda: torchmetrics.MetricCollection(
            {
                "accuracy": classes(torchmetrics.classification.MulticlassAccuracy),
                "recall": classes(torchmetrics.classification.MulticlassRecall),
                "auroc": classes(torchmetrics.classification.MulticlassAUROC),
            },
            prefix="val_",
        ),
        "compute groups",
    ),
    measured(
        "Running", lambda: torchmetrics.wrappers.Running(torchmetrics.SumMetric(), 4), binary=True
    ),
    measured(
        "MinMaxMetric",
        lambda: torchmetrics.wrappers.MinMaxMetric(
            classes(torchmetrics.classification.MulticlassAccuracy)
        ),
    ),
    measured(
        "BootStrapper",
        lambda: torchmetrics.wrappers.BootStrapper(
            classes(torchmetrics.classification.MulticlassAccuracy), num_bootstraps=3
        ),
    ),
]
