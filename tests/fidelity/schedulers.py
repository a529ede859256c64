"""Every learning rate scheduler of torch, with what changes its state or its arithmetic."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as of
from torch.optim import swa_utils
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

from tests.fidelity.cases import Case
from tests.fidelity.optimizers import Net, training_of
from tests.fidelity.training import Training, goes_on

Make = Callable[[torch.optim.Optimizer], LRScheduler]
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
ADAM = partial(torch.optim.Adam, lr=0.1)


class Warmth:
    """A callable object: torch keeps its attributes, those that change too."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.calls = 0

    def __call__(self, epoch: float) -> float:
        self.calls += 1
        return min(1.0, (epoch + self.calls % 2 + 1) / self.steps)


class Counted(Warmth):
    """One whose method is called, which no scheduler's state has: it is a part of its own."""

    def rate(self, epoch: int) -> float:
        return self(epoch)

    def state_dict(self) -> dict[str, int]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        vars(self).update(state)


class Powers:
    """An object without state."""

    def rate(self, epoch: int) -> float:
        return 0.9**epoch


class OwnSchedule(LRScheduler):
    """One's own: an argument, and a count."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int = 3) -> None:
        self.warmup = warmup
        self.turns: list[int] = []
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        self.turns.append(self.last_epoch)
        return [base * min(1.0, len(self.turns) / self.warmup) for base in self.base_lrs]


def found() -> dict[str, type[LRScheduler]]:
    """The schedulers that this torch has."""
    return {
        name: kind
        for name, kind in sorted({**vars(of), **vars(swa_utils)}.items())
        if isinstance(kind, type)
        and issubclass(kind, LRScheduler)
        and kind not in (LRScheduler, of._LRScheduler)
    }


@functools.lru_cache
def remembered(epoch: int) -> float:
    return 0.9**epoch


def powers(epoch: int) -> Any:
    return np.float64(0.9) ** epoch


def halved(_: int) -> float:
    return 0.5


def scaled(factor: float, epoch: int) -> float:
    return factor**epoch


def _sequence(optimizer: torch.optim.Optimizer, at: int = 2, gamma: float = 0.5) -> LRScheduler:
    return of.SequentialLR(
        optimizer,
        [of.LinearLR(optimizer, 0.1, total_iters=2), of.StepLR(optimizer, 2, gamma)],
        [at],
    )


def _nested(optimizer: torch.optim.Optimizer) -> LRScheduler:
    inner = of.SequentialLR(
        optimizer,
        [of.ConstantLR(optimizer, 0.5, total_iters=2), of.ExponentialLR(optimizer, 0.8)],
        [2],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it steps the inner one, and tells itself not to
        return of.SequentialLR(optimizer, [inner, of.CosineAnnealingLR(optimizer, 4)], [4])


def _chain(optimizer: torch.optim.Optimizer, gamma: float = 0.8) -> LRScheduler:
    return of.ChainedScheduler(
        [of.ConstantLR(optimizer, 0.5, total_iters=3), of.ExponentialLR(optimizer, gamma)],
        optimizer=optimizer,
    )


def _chain_of_sequence(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return of.ChainedScheduler([_sequence(optimizer), of.ExponentialLR(optimizer, 0.9)])


_cyclic = partial(of.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2)
_one_cycle = partial(of.OneCycleLR, max_lr=0.2, total_steps=9)
_plateau = partial(of.ReduceLROnPlateau, patience=0, factor=0.5)

# name, option, the scheduler, the same by a script with other hyperparameters, and what the audit
# is to say of those: name -> (script, checkpoint), below "scheduler/" where no part is named.
SCHEDULERS: list[tuple[str, str, Make, Make | None, dict[str, tuple[Any, Any]]]] = [
    ("LambdaLR", "a lambda", lambda o: of.LambdaLR(o, lambda epoch: 0.9**epoch), None, {}),
    (
        "LambdaLR",
        "a callable object",
        lambda o: of.LambdaLR(o, Warmth(4)),
        lambda o: of.LambdaLR(o, Warmth(5)),
        {"lr_lambdas/0/steps": (5, 4)},
    ),
    (
        "LambdaLR",
        "a bound method of an object without state",
        lambda o: of.LambdaLR(o, Powers().rate),
        None,
        {},
    ),
    (
        "LambdaLR",
        "a partial function of numbers",
        lambda o: of.LambdaLR(o, partial(scaled, 0.9)),
        None,
        {},
    ),
    ("LambdaLR", "NumPy numbers", lambda o: of.LambdaLR(o, powers), None, {}),
    ("LambdaLR", "a cached function", lambda o: of.LambdaLR(o, remembered), None, {}),
    ("MultiplicativeLR", "a function", lambda o: of.MultiplicativeLR(o, halved), None, {}),
    (
        "MultiplicativeLR",
        "a callable object",
        lambda o: of.MultiplicativeLR(o, Warmth(4)),
        lambda o: of.MultiplicativeLR(o, Warmth(5)),
        {"lr_lambdas/0/steps": (5, 4)},
    ),
    (
        "StepLR",
        "step_size=2, gamma=0.5",
        lambda o: of.StepLR(o, 2, 0.5),
        lambda o: of.StepLR(o, 3, 0.4),
        {"step_size": (3, 2), "gamma": (0.4, 0.5)},
    ),
    (
        "MultiStepLR",
        "milestones=[1, 2, 2, 4]",
        lambda o: of.MultiStepLR(o, [1, 2, 2, 4]),
        lambda o: of.MultiStepLR(o, [1, 2]),
        {"milestones": ({1: 1, 2: 1}, {1: 1, 2: 2, 4: 1})},
    ),
    (
        "ConstantLR",
        "factor=0.5, total_iters=3",
        lambda o: of.ConstantLR(o, 0.5, 3),
        lambda o: of.ConstantLR(o, 0.25, 2),
        {"factor": (0.25, 0.5), "total_iters": (2, 3)},
    ),
    (
        "LinearLR",
        "start_factor=0.1, end_factor=0.9, total_iters=4",
        lambda o: of.LinearLR(o, 0.1, 0.9, 4),
        lambda o: of.LinearLR(o, 0.2, 0.8, 3),
        {"start_factor": (0.2, 0.1), "end_factor": (0.8, 0.9), "total_iters": (3, 4)},
    ),
    (
        "ExponentialLR",
        "gamma=0.9",
        lambda o: of.ExponentialLR(o, 0.9),
        lambda o: of.ExponentialLR(o, 0.8),
        {"gamma": (0.8, 0.9)},
    ),
    (
        "CosineAnnealingLR",
        "T_max=4, eta_min=0.01",
        lambda o: of.CosineAnnealingLR(o, 4, 0.01),
        lambda o: of.CosineAnnealingLR(o, 5, 0.02),
        {"T_max": (5, 4), "eta_min": (0.02, 0.01)},
    ),
    (
        "CosineAnnealingWarmRestarts",
        "T_0=2, T_mult=2",
        lambda o: of.CosineAnnealingWarmRestarts(o, 2, 2),
        lambda o: of.CosineAnnealingWarmRestarts(o, 3, 1),
        {"T_0": (3, 2), "T_mult": (1, 2)},
    ),
    (
        "PolynomialLR",
        "total_iters=4, power=2",
        lambda o: of.PolynomialLR(o, 4, 2.0),
        lambda o: of.PolynomialLR(o, 5, 1.0),
        {"total_iters": (5, 4), "power": (1.0, 2.0)},
    ),
    (
        "ReduceLROnPlateau",
        "patience=0, factor=0.5",
        _plateau,
        partial(of.ReduceLROnPlateau, patience=2, factor=0.5),
        {"patience": (2, 0)},
    ),
    (
        "ReduceLROnPlateau",
        "mode='max', threshold_mode='abs', cooldown=1, min_lr=[0.03]",
        partial(_plateau, mode="max", threshold_mode="abs", cooldown=1, min_lr=[0.03]),
        partial(_plateau, min_lr=[0.02]),
        {
            "mode": ("min", "max"),
            "threshold_mode": ("rel", "abs"),
            "cooldown": (0, 1),
            "min_lrs": ([0.02], [0.03]),
        },
    ),
    (
        "CyclicLR",
        "momentum cycled",
        _cyclic,
        partial(of.CyclicLR, base_lr=0.02, max_lr=0.3, step_size_up=3, base_momentum=0.7),
        {
            "optimizer/param_groups/0/initial_lr": (0.02, 0.01),
            "optimizer/param_groups/0/base_momentum": (0.7, 0.8),
            "max_lrs": ([0.3], [0.1]),
            "total_size": (6.0, 4.0),
            "base_momentums": ([0.7], [0.8]),
        },
    ),
    ("CyclicLR", "cycle_momentum=False", partial(_cyclic, cycle_momentum=False), None, {}),
    (
        "CyclicLR",
        "mode='exp_range'",
        partial(_cyclic, mode="exp_range", gamma=0.9),
        partial(_cyclic, mode="exp_range", gamma=0.8),
        {"gamma": (0.8, 0.9)},
    ),
    (
        "CyclicLR",
        "mode='triangular2'",
        partial(_cyclic, mode="triangular2"),
        _cyclic,
        {"mode": ("triangular", "triangular2")},
    ),
    ("CyclicLR", "scale_fn a lambda", partial(_cyclic, scale_fn=lambda x: 1 / x), None, {}),
    (
        "CyclicLR",
        "scale_fn a callable object",
        lambda o: _cyclic(o, scale_fn=Warmth(4), scale_mode="iterations"),
        None,
        {},
    ),
    (
        "OneCycleLR",
        "total_steps=9",
        _one_cycle,
        partial(of.OneCycleLR, max_lr=0.3, total_steps=10),
        {
            "optimizer/param_groups/0/initial_lr": (0.3 / 25, 0.2 / 25),
            "optimizer/param_groups/0/max_lr": (0.3, 0.2),
            "optimizer/param_groups/0/min_lr": (0.3 / 25 / 1e4, 0.2 / 25 / 1e4),
            "total_steps": (10, 9),
        },
    ),
    (
        "OneCycleLR",
        "epochs=3, steps_per_epoch=3, three_phase=True",
        partial(of.OneCycleLR, max_lr=0.2, epochs=3, steps_per_epoch=3, three_phase=True),
        None,
        {},
    ),
    (
        "OneCycleLR",
        "anneal_strategy='linear', cycle_momentum=False",
        partial(_one_cycle, anneal_strategy="linear", cycle_momentum=False),
        partial(_one_cycle, cycle_momentum=False),
        {"_anneal_func_type": ("cos", "linear")},
    ),
    (
        "SequentialLR",
        "warmup, then steps",
        _sequence,
        partial(_sequence, at=3, gamma=0.4),
        {"_milestones": ([3], [2]), "_schedulers/1/gamma": (0.4, 0.5)},
    ),
    ("SequentialLR", "in a SequentialLR", _nested, None, {}),
    (
        "ChainedScheduler",
        "constant and exponential",
        _chain,
        partial(_chain, gamma=0.7),
        {"_schedulers/1/gamma": (0.7, 0.8)},
    ),
    ("ChainedScheduler", "of a SequentialLR", _chain_of_sequence, None, {}),
    (
        "SWALR",
        "anneal_epochs=3",
        lambda o: SWALR(o, 0.05, 3),
        lambda o: SWALR(o, 0.04, 4),
        {"optimizer/param_groups/0/swa_lr": (0.04, 0.05), "anneal_epochs": (4, 3)},
    ),
    (
        "SWALR",
        "anneal_strategy='linear'",
        lambda o: SWALR(o, 0.05, 3, "linear"),
        lambda o: SWALR(o, 0.05, 3),
        {"_anneal_strategy": ("cos", "linear")},
    ),
    (
        "one's own",
        "an argument and a count",
        OwnSchedule,
        partial(OwnSchedule, warmup=4),
        {"warmup": (4, 3)},
    ),
]


def cases() -> list[Case]:
    """A case for each row, and for what a scheduler can be given."""
    rows = [
        Case("scheduler", name, option, partial(_check, make, other, said))
        for name, option, make, other, said in SCHEDULERS
    ]
    return [
        *rows,
        Case(
            "scheduler",
            "LambdaLR",
            "a bound method of an object that is a part",
            partial(goes_on, build=_counted),
        ),
        Case("scheduler", "CyclicLR", "betas cycled", partial(_check_with, ADAM, _cyclic)),
        Case("scheduler", "OneCycleLR", "betas cycled", partial(_check_with, ADAM, _one_cycle)),
        Case("scheduler", "StepLR", "lr a tensor", partial(_check_with, _tensor_rate, _step)),
        Case(
            "scheduler",
            "SequentialLR",
            "lr a tensor",
            partial(_check_with, _tensor_rate, _sequence),
        ),
        Case(
            "scheduler", "OneCycleLR", "lr a tensor", partial(_check_with, _tensor_rate, _one_cycle)
        ),
        Case(
            "scheduler",
            "LambdaLR",
            "two groups, a lambda each",
            partial(_check_with, _two_groups, _lambdas),
        ),
        Case(
            "scheduler",
            "ReduceLROnPlateau",
            "a group added before step 3",
            partial(_check_grown, _plateau),
        ),
        Case(
            "scheduler",
            "StepLR",
            "a group and its base rate added before step 3",
            partial(_check_grown, _step),
        ),
        Case("scheduler", "StepLR", "another lr in the script", _check_other_rate),
    ]


def _step(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return of.StepLR(optimizer, 2, 0.5)


def _lambdas(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return of.LambdaLR(optimizer, [lambda epoch: 0.9**epoch, Warmth(3)])


def _tensor_rate(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=torch.tensor(0.1))


def _two_groups(parameters: Any) -> torch.optim.Optimizer:
    one, *others = parameters
    return SGD([{"params": [one]}, {"params": others, "lr": 0.3}])


def _check(
    make: Make, other: Make | None, said: Mapping[str, tuple[Any, Any]], folder: Path
) -> list[str]:
    named = {
        name if name.startswith("optimizer/") else f"scheduler/{name}": both
        for name, both in said.items()
    }
    return goes_on(
        folder, partial(_scheduled, SGD, make), other and partial(_scheduled, SGD, other), named
    )


def _check_with(optimizer: Any, make: Make, folder: Path) -> list[str]:
    return goes_on(folder, partial(_scheduled, optimizer, make))


def _check_other_rate(folder: Path) -> list[str]:
    return goes_on(
        folder,
        partial(_scheduled, SGD, _step),
        partial(_scheduled, partial(SGD, lr=0.7), _step),
        {"optimizer/param_groups/0/initial_lr": (0.7, 0.1)},
    )


def _check_grown(make: Make, folder: Path) -> list[str]:
    return goes_on(folder, partial(_grown, make))


def _grown(make: Make, done: int) -> Training:
    model = Net()
    optimizer = SGD([model.fc.weight])
    scheduler: Any = make(optimizer)
    training = training_of(model, optimizer)

    def add() -> None:
        optimizer.add_param_group({"params": [model.fc.bias], "lr": 0.2, "initial_lr": 0.2})

    if done > 3:  # so the script knows that it was added, and that its rate is in the state
        add()

    def step(number: int) -> float:
        if number == 3:
            add()
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs.append(0.2)
        loss = training.step(number)
        scheduler.step(*([loss] if isinstance(scheduler, of.ReduceLROnPlateau) else []))
        return loss

    return Training({**training.parts, "scheduler": scheduler}, step)


def _counted(_: int) -> Training:
    counted = Counted(9)
    training = _scheduled(SGD, lambda optimizer: of.LambdaLR(optimizer, counted.rate), 0)
    return Training({**training.parts, "counted": counted}, training.step)


def _scheduled(make_optimizer: Any, make: Make, _: int) -> Training:
    model = Net()
    optimizer = make_optimizer(model.parameters())
    scheduler: Any = make(optimizer)
    training = training_of(model, optimizer)

    def step(number: int) -> float:
        loss = training.step(number)
        if isinstance(scheduler, of.ReduceLROnPlateau):
            scheduler.step(loss)
        else:
            scheduler.step()
        return loss

    return Training({**training.parts, "scheduler": scheduler}, step)


CASES = cases()
