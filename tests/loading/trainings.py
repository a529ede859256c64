"""A small training with everything that has state, and ways to compare two of them bit by bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn

import ckptstore


@ckptstore.remember_init
class Net(nn.Module):
    """Linear, batch norm and dropout: weights, buffers, an integer buffer, and draws."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


class Needy(nn.Module):
    """Needs an argument and records none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class Training:
    """Model, optimizer and scheduler, and epochs that draw from every random generator."""

    def __init__(self, kind: str = "adamw", *, seed: int = 0) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what is captured
        random.seed(seed)
        self.model = Net()
        if kind == "adamw":
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=0.01
            )
        else:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, gamma=0.9)

    def epoch(self, batches: int = 3) -> float:
        """Train one epoch. Return the last loss."""
        self.model.train()
        last = 0.0
        for _ in range(batches):
            x = torch.randn(8, 4) * random.random() + float(np.random.rand())  # noqa: NPY002, S311 - the global ones
            loss = self.model(x).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            last = loss.item()
        self.scheduler.step()
        return last

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def save(self, store: Any, **facts: Any) -> Any:
        return store.save(**{**self.parts(), **facts})

    def resume(self, store: Any, **options: Any) -> Any:
        return store.resume(**self.parts(), **options)


def frozen(value: Any) -> Any:
    """Return nested state as plain values that compare equal exactly when every bit is equal."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return (str(value.dtype), tuple(value.shape), data)
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        return (type(value).__name__, [(key, frozen(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [frozen(item) for item in value])
    if isinstance(value, float):
        return value.hex()
    return value


def generators() -> Any:
    """Return the state of the process's random generators, comparable."""
    return frozen((random.getstate(), np.random.get_state(), torch.get_rng_state()))  # noqa: NPY002 - the global ones


def everything(training: Training) -> Any:
    """Return all state of a training and of the process's generators, comparable."""
    return (
        frozen({name: part.state_dict() for name, part in training.parts().items()}),
        generators(),
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    """Say whether two modules have the same state, bit for bit."""
    return bool(frozen(one.state_dict()) == frozen(other.state_dict()))
