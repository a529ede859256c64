"""Modules whose state is more than a dict of tensors: trained on, and built anew from the class."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from ckptstore import Store
from tests.fidelity.cases import Case
from tests.fidelity.training import Training, goes_on
from tests.loading.trainings import frozen

Make = Callable[[], nn.Module]
CUT = 3
"""Before which of the six steps the version was saved that a new module is built from."""


def net(middle: nn.Module | None = None) -> nn.Sequential:
    """Return a net of four to four around a layer of six to six."""
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), middle or nn.Linear(6, 6), nn.Dropout(0.2), nn.Linear(6, 4)
    )


def training(model: nn.Module) -> Training:
    """Return a training of a module of four to four."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.05)

    def step(_number: int) -> float:
        optimizer.zero_grad()
        loss = (model(torch.randn(5, 4)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Training({"model": model, "optimizer": optimizer}, step)


def is_built_again(folder: Path, make: Make) -> list[str]:
    """Check that ``load`` builds what ``resume`` restores: the same state and the same outputs.

    Args:
        folder: Where :func:`.goes_on` left its store.
        make: The module's class.
    """
    saved = Store(folder / "store").get(f"cut/{CUT}@latest")
    live, loaded = make(), saved.load(make, device="cpu")
    saved.restore(live)
    assert frozen(loaded.state_dict()) == frozen(live.state_dict()), "loaded with another state"
    live.eval()
    sample = torch.linspace(-1, 1, 12).reshape(3, 4)
    assert frozen(loaded(sample)) == frozen(live(sample)), "loaded with other outputs"
    return ["load"]


def case(name: str, make: Make, option: str = "", *, first: Make | None = None) -> Case:
    """Return the case of a module.

    Args:
        name: Of the row.
        make: Builds it.
        option: Of the row.
        first: Builds the one that is saved, where that is of another class.
    """

    def run(folder: Path) -> list[str]:
        with warnings.catch_warnings():
            # torch's own: the older norms are deprecated, lazy modules are new.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "Lazy modules are a new feature")
            # The training that is cut, and the one that is not, come before those that go on.
            makes = itertools.chain([first or make] * 2, itertools.repeat(make))

            def build(_done: int) -> Training:
                return training(next(makes)())

            return [*goes_on(folder, build), *is_built_again(folder, make)]

    return Case("module", name, option, run)


def changed(change: Callable[[nn.Linear], object]) -> Make:
    """Return what builds a net after something was done to its middle layer."""

    def make() -> nn.Module:
        made = net()
        middle = made[2]
        assert isinstance(middle, nn.Linear)
        change(middle)
        return made

    return make


class Symmetric(nn.Module):
    """A parametrization of one's own."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).T


class Scaled(nn.Module):
    """A parametrization with a parameter and a way back."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.scale

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / self.scale


def twice_parametrized(layer: nn.Linear) -> None:
    parametrizations.weight_norm(layer)
    parametrize.register_parametrization(layer, "weight", Scaled())


def tied() -> nn.Module:
    made = net()
    made.append(nn.Linear(4, 6))
    made.append(nn.Linear(6, 4))
    made[6].weight = made[4].weight
    return made


def shared_module() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer)


def pruned_twice(layer: nn.Linear) -> None:
    prune.random_unstructured(layer, "weight", 0.3)
    prune.ln_structured(layer, "weight", 0.3, n=2, dim=0)


def globally_pruned() -> nn.Module:
    made = net()
    prune.global_unstructured(
        [(made[0], "weight"), (made[2], "weight")], prune.L1Unstructured, amount=0.3
    )
    return made


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Tanh(), nn.LazyLinear(4))


def ran_lazy() -> nn.Module:
    made = lazy()
    made(torch.ones(2, 4))
    return made


def plain_lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


class Positioned(nn.Module):
    """Has a buffer that is not persistent, and one that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("position", torch.arange(4.0), persistent=False)
        self.register_buffer("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x + self.position)


class Counting(nn.Module):
    """Keeps how often it ran, and with what, as extra state; what it computes depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.state: dict[str, Any] = {"runs": 0, "means": [], ("a", 1): {2, 3}}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.state["runs"] += 1
            self.state["means"].append(x.mean())
        return self.fc(x) * (1 + 0.1 * self.state["runs"]) + sum(self.state["means"])

    def get_extra_state(self) -> dict[str, Any]:
        return {**self.state, "means": list(self.state["means"])}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.state = {**state, "means": list(state["means"])}


class Low(nn.Module):
    """A low-rank adapter around a frozen layer, as people write them."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


def adapted() -> nn.Module:
    return net(Low(nn.Linear(6, 6)))


def adapters_alone() -> nn.Module:
    """Return a net whose state dict has what is trained alone: hooks leave the frozen layer out."""
    made = nn.Sequential(Low(nn.Linear(4, 4)))
    frozen_layer = made[0].base
    for parameter in frozen_layer.parameters():
        nn.init.constant_(parameter, 0.25)

    def leave_out(_module: nn.Module, state: dict[str, Any], prefix: str, _local: object) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}0.base.")]:
            del state[key]

    made.register_state_dict_post_hook(leave_out)
    return made


def with_added_key() -> nn.Module:
    """Return a net that saves a key more than it has, and takes it out again."""
    made = net()

    def add(_module: nn.Module, state: dict[str, Any], prefix: str, _local: object) -> None:
        state[f"{prefix}recipe"] = torch.ones(2)

    def take(state: dict[str, Any], prefix: str, *_rest: object) -> None:
        state.pop(f"{prefix}recipe")

    made._register_state_dict_hook(add)
    made._register_load_state_dict_pre_hook(take)
    return made


def with_renamed_keys() -> nn.Module:
    """Return a net whose keys are called otherwise where they are saved."""
    made = net()

    def rename(state: dict[str, Any], old: str, new: str) -> None:
        for key in [key for key in state if key.startswith(old)]:
            state[new + key.removeprefix(old)] = state.pop(key)

    made.register_state_dict_post_hook(
        lambda _module, state, prefix, _local: rename(state, f"{prefix}2.", f"{prefix}middle.")
    )
    made.register_load_state_dict_pre_hook(
        lambda _module, state, prefix, *_: rename(state, f"{prefix}middle.", f"{prefix}2.")
    )
    return made


def with_hooks_around() -> nn.Module:
    """Return a net that syncs a buffer right before it saves, and uses it right after it loads."""
    made = net()
    made.register_buffer("seen", torch.zeros(()))
    made.sum_of_weights = 0.0

    def before(module: Any, _prefix: str, _keep: object) -> None:
        module.seen.fill_(module[2].weight.detach().sum())

    def after(module: Any, _incompatible: object) -> None:
        module.sum_of_weights = module.seen.item()

    made.register_state_dict_pre_hook(before)
    made.register_load_state_dict_post_hook(after)
    return made


CASES = [
    case("tied weights", tied),
    case("one module in two places", shared_module),
    case("weight_norm", changed(weight_norm), "the older, by hook"),
    case("weight_norm", changed(parametrizations.weight_norm), "parametrization"),
    case("spectral_norm", changed(spectral_norm), "the older, by hook"),
    case("spectral_norm", changed(parametrizations.spectral_norm), "parametrization"),
    *(
        case(
            "orthogonal",
            changed(lambda layer, by=way: parametrizations.orthogonal(layer, orthogonal_map=by)),
            f"orthogonal_map={way!r}",
        )
        for way in ("matrix_exp", "cayley", "householder")
    ),
    case(
        "orthogonal",
        changed(lambda layer: parametrizations.orthogonal(layer, use_trivialization=False)),
        "use_trivialization=False",
    ),
    case(
        "parametrization of one's own",
        changed(lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric())),
    ),
    case("two parametrizations of one weight", changed(twice_parametrized)),
    case("prune", changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.4)), "l1"),
    case("prune", changed(pruned_twice), "twice, one by random"),
    case("prune", globally_pruned, "global"),
    case("lazy modules", ran_lazy, "ran once before resume"),
    case("lazy modules", lazy, "never ran before resume", first=ran_lazy),
    case("lazy modules", lazy, "saved from plain ones", first=plain_lazy),
    case("lazy modules", plain_lazy, "resumed into plain ones", first=ran_lazy),
    case("buffers that are not persistent", Positioned),
    case("get_extra_state", Counting, "dicts, lists, sets, tensors"),
    case("low-rank adapters", adapted, "written by hand"),
    case("low-rank adapters", adapters_alone, "state dict without the frozen layer"),
    case("state dict hook", with_added_key, "adds a key"),
    case("state dict hooks", with_renamed_keys, "rename keys"),
    case("hooks before saving and after loading", with_hooks_around),
]
