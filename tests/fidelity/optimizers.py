"""Every optimizer of ``torch.optim``, with each of its options, and ways to hand it parameters."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.func import functional_call

from tests.fidelity.cases import Case
from tests.fidelity.training import Training, goes_on

Make = Callable[[Iterable[Any]], torch.optim.Optimizer]


class Net(nn.Module):
    """A layer of four to three, and dropout, which draws."""

    def __init__(self, dtype: torch.dtype = torch.float32, *, bias: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3, bias=bias, dtype=dtype)
        self.drop = nn.Dropout(0.2)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x.to(self.dtype))
        return self.drop(y.abs() if self.dtype.is_complex else y)

    def loss(self) -> torch.Tensor:
        return (self(torch.randn(5, 4)) - 1).square().mean()


class Rows(nn.Module):
    """A table whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 3, sparse=True)

    def loss(self) -> torch.Tensor:
        return (self.table(torch.randint(7, (4,))) - 1).square().mean()


class OwnMoments(torch.optim.Optimizer):
    """One's own: float32 weights and moments beside bfloat16 parameters, lists and text."""

    def __init__(self, params: Iterable[Any], lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor]) -> torch.Tensor:  # type: ignore[override] # always given
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["master"] = parameter.float()
                    state["moments"] = [torch.zeros_like(state["master"]), 0]
                    state["phase"] = "warm"
                moment, count = state["moments"]
                moment.mul_(0.9).add_(parameter.grad.float())
                state["moments"][1] = count + 1
                rate = group["lr"] / (10 if state["phase"] == "warm" else 1)
                state["phase"] = "warm" if count < 2 else "hot"
                state["master"].sub_(moment, alpha=rate)
                parameter.copy_(state["master"])
        return loss


def found() -> dict[str, type[torch.optim.Optimizer]]:
    """The optimizers that this torch has."""
    return {
        name: kind
        for name, kind in sorted(vars(torch.optim).items())
        if isinstance(kind, type)
        and issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
    }


# A value for every argument that any of them has, other than its default everywhere.
VALUES: dict[str, Any] = {
    "adjust_lr_fn": "match_rms_adamw",
    "alpha": 0.6,
    "amsgrad": True,
    "beta2_decay": -0.6,
    "betas": (0.5, 0.7),
    "capturable": True,
    "centered": True,
    "d": 2.0,
    "dampening": 0.3,
    "decoupled_weight_decay": True,
    "differentiable": True,
    "eps": 1e-3,
    "etas": (0.4, 1.3),
    "foreach": True,
    "fused": True,
    "history_size": 2,
    "initial_accumulator_value": 0.1,
    "lambd": 0.01,
    "line_search_fn": "strong_wolfe",
    "lr": 0.03,
    "lr_decay": 0.1,
    "max_eval": 7,
    "max_iter": 3,
    "maximize": True,
    "momentum": 0.8,
    "momentum_decay": 0.01,
    "nesterov": True,
    "ns_coefficients": (3.0, -4.0, 2.0),
    "ns_steps": 3,
    "rho": 0.7,
    "step_sizes": (1e-5, 1.0),
    "t0": 2.0,
    "tolerance_change": 1e-4,
    "tolerance_grad": 1e-3,
    "weight_decay": 0.1,
}
# What an option needs beside it, or means where its name means something else.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("Adafactor", "eps"): {"eps": (1e-20, 1e-2)},
    ("Muon", "nesterov"): {"nesterov": False},
    ("Muon", "weight_decay"): {"weight_decay": 0.3},
    ("NAdam", "decoupled_weight_decay"): {"weight_decay": 0.1},
    ("Adam", "decoupled_weight_decay"): {"weight_decay": 0.1},
    ("RAdam", "decoupled_weight_decay"): {"weight_decay": 0.1},
    ("RMSprop", "centered"): {"momentum": 0.5},
    ("SGD", "dampening"): {"momentum": 0.8},
    ("SGD", "fused"): {"momentum": 0.8},
    ("SGD", "foreach"): {"momentum": 0.8},
    ("SGD", "nesterov"): {"momentum": 0.8},
}
SPARSE = frozenset({"SparseAdam"})
MATRICES_ONLY = frozenset({"Muon"})
ONE_GROUP = frozenset({"LBFGS"})
# torch refuses complex parameters there.
NO_COMPLEX = frozenset({"Adafactor", "Muon", "SparseAdam"})
CAPTURABLE = "_get_capturable_supported_devices"
TENSOR_BETAS = frozenset({"Adam", "AdamW"})


def chosen(name: str, argument: str) -> dict[str, Any]:
    """What an optimizer is given to have a case of one of its arguments."""
    return {argument: VALUES[argument], **BESIDE.get((name, argument), {})}


def cases() -> list[Case]:
    """A case for each option of each optimizer, and for each way to hand it parameters."""
    return [*_options(), *_forms(), *_others()]


def _options() -> Iterator[Case]:
    for name, kind in found().items():
        yield _case(name, "", partial(_check_options, kind, {}))
        arguments = [each for each in inspect.signature(kind).parameters if each != "params"]
        for argument in arguments:
            options = chosen(name, argument)
            yield _case(name, _written(options), partial(_check_options, kind, options))
        tensors = {"lr": torch.tensor(0.03)}
        yield _case(name, "lr a tensor", partial(_check_options, kind, tensors))
        if name in TENSOR_BETAS:
            betas = {"betas": (torch.tensor(0.5), torch.tensor(0.7))}
            yield _case(name, "betas tensors", partial(_check_options, kind, betas))


def _forms() -> Iterator[Case]:
    for name, kind in found().items():
        if name not in ONE_GROUP | MATRICES_ONLY | SPARSE:
            yield _case(name, "two groups of named parameters", partial(_check_groups, kind))
            yield _case(name, "a group added before step 3", partial(_check, kind, _added_group))
        if name not in MATRICES_ONLY | SPARSE:
            yield _case(name, "a parameter frozen until step 3", partial(_check, kind, _thawed))
        if name not in SPARSE:
            yield _case(name, "bfloat16 parameters", partial(_check, kind, _bfloat16))
        if name not in NO_COMPLEX:
            yield _case(name, "complex parameters", partial(_check, kind, _complex))


def _others() -> Iterator[Case]:
    yield _case("Adagrad", "sparse gradients", partial(_check, torch.optim.Adagrad, _rows))
    yield _case("SGD", "sparse gradients", partial(_check, torch.optim.SGD, _rows))
    shared = torch.optim.AdamW
    yield _case("AdamW", "one tensor as lr of two groups", partial(_check, shared, _shared_rate))
    yield _case(
        "one's own", "float32 state of bfloat16 parameters", partial(_check, OwnMoments, _bfloat16)
    )


def _case(name: str, option: str, run: Callable[[Path], list[str]]) -> Case:
    return Case("optimizer", name, option, run)


def _written(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


# ------------------------------------------------------------ checks


def _check(
    kind: type[torch.optim.Optimizer], form: Callable[[Make, int], Training], folder: Path
) -> list[str]:
    return goes_on(folder, partial(form, kind))


def _check_options(
    kind: type[torch.optim.Optimizer], options: dict[str, Any], folder: Path
) -> list[str]:
    plain, chosen = _group(kind), _group(kind, **options)
    # torch lets capturable steps run on accelerators only, which alone have graphs to capture;
    # their arithmetic needs none.
    with ExitStack() as capturable:
        for base in inspect.getmro(kind):
            module = sys.modules[base.__module__]
            if hasattr(module, CAPTURABLE):
                capturable.enter_context(patch.object(module, CAPTURABLE, _cpu))
        return goes_on(
            folder,
            partial(_plain, partial(kind, **options)),
            partial(_plain, kind),
            {
                f"optimizer/param_groups/0/{key}": (value, chosen[key])
                for key, value in plain.items()
                if key != "params" and value != chosen[key]
            },
        )


def _cpu(**_: Any) -> list[str]:
    return ["cpu"]


def _group(kind: type[torch.optim.Optimizer], **options: Any) -> dict[str, Any]:
    return kind([nn.Parameter(torch.ones(2, 2))], **options).param_groups[0]


def _check_groups(kind: type[torch.optim.Optimizer], folder: Path) -> list[str]:
    return goes_on(
        folder,
        partial(_named_groups, kind, 0.05),
        partial(_named_groups, kind, 0.5),
        {"optimizer/param_groups/1/lr": (0.5, 0.05)},
    )


# ------------------------------------------------------------ trainings


def _plain(make: Make, _: int) -> Training:
    kind = make.func if isinstance(make, partial) else make
    name = kind.__name__  # type: ignore[attr-defined] # a class has one
    if name in SPARSE:
        return _rows(make, 0)
    model = Net(bias=name not in MATRICES_ONLY)
    if isinstance(make, partial) and make.keywords.get("differentiable"):
        return _differentiable(model, make(model.parameters()))
    return training_of(model, make(model.parameters()))


def _rows(make: Make, _: int) -> Training:
    model = Rows()
    training = training_of(model, make(model.parameters()))

    def step(number: int) -> float:
        with torch.sparse.check_sparse_tensor_invariants(enable=True):  # silent, torch warns
            return training.step(number)

    return Training(training.parts, step)


def _named_groups(make: Make, rate: float, _: int) -> Training:
    model = Net()
    weight, bias = model.named_parameters()
    groups = [{"params": [weight]}, {"params": [bias], "lr": rate}]
    return training_of(model, make(groups))


def _shared_rate(make: Make, _: int) -> Training:
    model = Net()
    rate = torch.tensor(0.05)
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    optimizer = make(groups, lr=rate)  # type: ignore[call-arg] # it has one
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    training = training_of(model, optimizer)

    def step(number: int) -> float:
        assert all(group["lr"] is rate for group in optimizer.param_groups)
        loss = training.step(number)
        scheduler.step()
        return loss

    return Training({**training.parts, "scheduler": scheduler}, step)


def _added_group(make: Make, done: int) -> Training:
    model = Net()
    optimizer = make([model.fc.weight])
    training = training_of(model, optimizer)

    def add() -> None:
        optimizer.add_param_group({"params": [model.fc.bias]})

    if done > 3:  # so the script knows that it was added
        add()

    def step(number: int) -> float:
        if number == 3:
            add()
        return training.step(number)

    return Training(training.parts, step)


def _thawed(make: Make, done: int) -> Training:
    model = Net()
    model.fc.bias.requires_grad_(done > 3)
    training = training_of(model, make(model.parameters()))

    def step(number: int) -> float:
        if number == 3:
            model.fc.bias.requires_grad_(True)  # noqa: FBT003 - torch's own argument
        return training.step(number)

    return Training(training.parts, step)


def _bfloat16(make: Make, _: int) -> Training:
    bias = getattr(make, "__name__", "") not in MATRICES_ONLY
    model = Net(torch.bfloat16, bias=bias)
    return training_of(model, make(model.parameters()))


def _complex(make: Make, _: int) -> Training:
    model = Net(torch.complex64)
    return training_of(model, make(model.parameters()))


def training_of(model: Any, optimizer: torch.optim.Optimizer) -> Training:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss.detach()

    def step(_: int) -> float:
        return float(optimizer.step(closure))

    return Training({"model": model, "optimizer": optimizer}, step)


def _differentiable(model: Net, optimizer: torch.optim.Optimizer) -> Training:
    """Steps that autograd could look into, whose parameters are no leaves it accumulates in."""
    model.requires_grad_(False)  # noqa: FBT003 - torch's own argument

    def step(_: int) -> float:
        copies = {
            name: parameter.clone().requires_grad_() for name, parameter in model.named_parameters()
        }
        loss = (functional_call(model, copies, torch.randn(5, 4)) - 1).square().mean()
        gradients = torch.autograd.grad(loss, list(copies.values()))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        return loss.item()

    return Training({"model": model, "optimizer": optimizer}, step)


CASES = cases()
