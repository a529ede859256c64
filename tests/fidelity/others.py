"""What else has state in a training: gradient scalers, averages, generators, several optimizers."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils
from torch.optim.swa_utils import AveragedModel

from tests.fidelity.cases import Case
from tests.fidelity.optimizers import Net, training_of
from tests.fidelity.training import Training, goes_on


class Normed(Net):
    """With running statistics, which are buffers, an integer one among them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(x))


def _scaler(growth: int, _: int) -> Training:
    """A loss that is not finite in steps 1 and 4, so that the scale goes down and up."""
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=growth)

    def step(number: int) -> float:
        optimizer.zero_grad()
        loss = model.loss()
        scaled = scaler.scale(loss)
        (scaled * float("inf") if number in (1, 4) else scaled).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return Training({"model": model, "optimizer": optimizer, "scaler": scaler}, step)


def _average(make: Callable[[nn.Module], AveragedModel], _: int) -> Training:
    model = Normed()
    training = training_of(model, torch.optim.SGD(model.parameters(), lr=0.05))
    ema = make(model)

    def step(number: int) -> float:
        loss = training.step(number)
        if number:  # the first is left out, so the count is not the step
            ema.update_parameters(model)
        return loss

    return Training({**training.parts, "ema": ema}, step)


def _swa(_: int) -> Training:
    """Averaging from step 3 on, with a scheduler of its own after the usual one."""
    model = Normed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = training_of(model, optimizer)
    average = AveragedModel(model)
    usual = lr_scheduler.CosineAnnealingLR(optimizer, 3)
    slow = swa_utils.SWALR(optimizer, 0.02, anneal_epochs=2)

    def step(number: int) -> float:
        loss = training.step(number)
        if number >= 3:
            average.update_parameters(model)
            slow.step()
        else:
            usual.step()
        return loss

    parts = {**training.parts, "swa": average, "scheduler": usual, "swa_scheduler": slow}
    return Training(parts, step)


def _drawing(generator: Any, draw: Callable[[Any], Any], _: int) -> Training:
    """A training whose data come from a generator of its own."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    source = generator()

    def step(_: int) -> float:
        optimizer.zero_grad()
        loss = (model(torch.as_tensor(draw(source), dtype=torch.float32)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Training({"model": model, "optimizer": optimizer, "source": source}, step)


def _seeded_by_torch(kind: Any) -> Any:
    return lambda: np.random.Generator(kind(torch.randint(1 << 30, ()).item()))


def _torch_generator() -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))


def _drawn_by_numpy(source: np.random.Generator) -> Any:
    source.integers(256, dtype=np.uint8)  # leaves the rest of a word for the next
    return source.standard_normal((5, 4), dtype=np.float32)


def _spawned_by_numpy(source: np.random.Generator) -> Any:
    (child,) = source.spawn(1)  # from its seed sequence, which no draw moves
    return child.standard_normal((5, 4), dtype=np.float32)


def _random_state() -> Any:
    return np.random.RandomState(int(torch.randint(1 << 30, ())))


def _python_generator() -> Any:
    return random.Random(int(torch.randint(1 << 30, ())))  # noqa: S311 - no secret


def _odd_normals(source: Any) -> Any:
    """Draw 20 numbers and one that is made in pairs, whose other half is kept."""
    draw = source.gauss if isinstance(source, random.Random) else source.normal
    return torch.tensor([draw(0, 1) for _ in range(21)][:20]).reshape(5, 4)


def _legacy(generator: Any) -> Callable[[Path], list[str]]:
    return partial(_check, partial(_drawing, generator, _odd_normals))


def _adversaries(_: int) -> Training:
    """Two models, each with an optimizer and a schedule, that take turns."""
    one, other = Net(), Net()
    first = training_of(one, torch.optim.AdamW(one.parameters(), amsgrad=True))
    second = training_of(other, torch.optim.RMSprop(other.parameters(), momentum=0.9))
    schedule = lr_scheduler.ExponentialLR(first.parts["optimizer"], 0.9)
    plateau = lr_scheduler.ReduceLROnPlateau(second.parts["optimizer"], patience=0)

    def step(number: int) -> float:
        if number % 2:
            loss = second.step(number)
            plateau.step(loss)
        else:
            loss = first.step(number)
            schedule.step()
        return loss

    parts = {
        "generator": one,
        "critic": other,
        "generator_optimizer": first.parts["optimizer"],
        "critic_optimizer": second.parts["optimizer"],
        "generator_schedule": schedule,
        "critic_schedule": plateau,
    }
    return Training(parts, step)


def _check_scaler(folder: Path) -> list[str]:
    return goes_on(
        folder, partial(_scaler, 2), partial(_scaler, 3), {"scaler/growth_interval": (3, 2)}
    )


def _check(build: Callable[[int], Training], folder: Path) -> list[str]:
    return goes_on(folder, build)


_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_AVERAGES: dict[str, Callable[[nn.Module], AveragedModel]] = {
    "of weights alone": AveragedModel,
    "use_buffers=True": lambda model: AveragedModel(model, use_buffers=True),
    "exponential, avg_fn": lambda model: AveragedModel(model, avg_fn=swa_utils.get_ema_avg_fn(0.9)),
    "exponential, multi_avg_fn, use_buffers=True": lambda model: AveragedModel(
        model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    ),
}

CASES = [
    Case("other", "GradScaler", "growing and backing off", _check_scaler),
    *(
        Case("other", "AveragedModel", option, partial(_check, partial(_average, make)))
        for option, make in _AVERAGES.items()
    ),
    Case("other", "AveragedModel", "SWALR from step 3 on", partial(_check, _swa)),
    Case(
        "other",
        "torch.Generator",
        "",
        partial(
            _check,
            partial(_drawing, _torch_generator, lambda source: torch.randn(5, 4, generator=source)),
        ),
    ),
    *(
        Case(
            "other",
            "numpy.random.Generator",
            kind,
            partial(
                _check,
                partial(_drawing, _seeded_by_torch(getattr(np.random, kind)), _drawn_by_numpy),
            ),
        )
        for kind in _BIT_GENERATORS
    ),
    Case(
        "other",
        "numpy.random.Generator",
        "children spawned",
        partial(
            _check,
            partial(_drawing, _seeded_by_torch(np.random.PCG64), _spawned_by_numpy),
        ),
    ),
    Case("other", "numpy.random.RandomState", "", _legacy(_random_state)),
    Case("other", "random.Random", "", _legacy(_python_generator)),
    Case("other", "several optimizers", "two models taking turns", partial(_check, _adversaries)),
]
