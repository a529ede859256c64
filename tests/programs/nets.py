"""Modules to make programs of, and a program as it is after a save and a load."""

from __future__ import annotations

import warnings
from collections import namedtuple
from typing import Any

import torch
from torch import nn

from ckptstore.programs.document import Program, decode_program
from ckptstore.programs.export import export_program
from ckptstore.programs.module import ProgramModule
from ckptstore.programs.weights import tensors_of

CPU = torch.device("cpu")
Pair = namedtuple("Pair", "first second")  # noqa: PYI024 - users write them so


class Net(nn.Module):
    """Convolution, normalisation, dropout, a table that is not saved, a number that is a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4 * 6 * 6, 10)
        self.register_buffer("table", torch.rand(10), persistent=False)
        self.scale = torch.tensor(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of images of 8 by 8."""
        h = self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return self.fc(h) * self.scale + self.table


class Line(nn.Linear):
    """A linear layer that needs no arguments."""

    def __init__(self, width: int = 2) -> None:
        super().__init__(3, width)


class Attention(nn.Module):
    """Attention with tied weights, a causal mask and gradients off for a part."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits of tokens."""
        h = self.embed(ids)
        with torch.no_grad():
            position = torch.arange(ids.shape[1], device=ids.device) / 10
        q, k, v = self.qkv(h + position[:, None]).chunk(3, -1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


class Recurrent(nn.Module):
    """An LSTM, whose state comes back too, and a parametrised head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True, bidirectional=True)
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs and the last state."""
        y, (h, _) = self.lstm(x)
        return self.head(y), h


class Structured(nn.Module):
    """Takes and returns nested values."""

    def forward(self, batch: Any, factor: int = 2, *, mask: Any = None) -> Any:
        """Return what the program has to put together again."""
        x = batch["x"] * factor + batch["more"][0]
        x = x if mask is None else x * mask
        return {"pair": Pair(x, [x.argmax(1), None]), "rows": x.shape[0], "name": "net"}


class Branching(nn.Module):
    """Takes one branch or another by a tensor's value, and one by its size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return something else for even sizes than for odd ones."""
        x = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
        return x * 2 if x.shape[0] % 2 == 0 else x * 3


class Counting(nn.Module):
    """Writes to a buffer in place, puts another in the place of a second one, and keeps values."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("total", torch.zeros(3))
        self.seen: list[Any] = [0]
        self.last: Any = None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what was counted so far."""
        self.seen[0] = x
        self.last = x.sum()
        self.calls.add_(1)
        self.total = self.total + x.sum(0)
        return self.total * 1, self.calls * 1


class Vectorised(nn.Module):
    """Computes row by row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return each row with its sum."""
        return torch.vmap(lambda row: row + row.sum())(x)


class Drawing(nn.Module):
    """Draws random numbers, also in eval mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return noise around *x*."""
        return x + torch.rand_like(x)


class Scaled(nn.Module):
    """Takes a number that may be left out."""

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Return a multiple of *x*."""
        return x * scale


class Mixed(nn.Module):
    """Computes a part of it in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return two layers, one of them under autocast."""
        with torch.autocast(x.device.type, torch.bfloat16):
            h = self.fc(x)
        return self.fc(x) + h


def export(module: nn.Module, given: Any) -> memoryview:
    """Return the file of a module's program; a warning is an error, as in all tests."""
    return memoryview(b"".join(export_program(module, module.state_dict(), given, "model")))


def program_of(module: nn.Module, given: Any) -> Program:
    """Return a module's program as it is read again."""
    return decode_program(export(module, given), "the program")


def loaded(module: nn.Module, given: Any, **options: Any) -> ProgramModule:
    """Return a module's program as it is after a save and a load."""
    data = export(module, given)
    program = decode_program(data, "the program")
    state = {key: value.clone() for key, value in module.state_dict().items()}
    tensors = tensors_of(program, data, state, device=CPU, where="the program")
    return ProgramModule(program, tensors, device=CPU, what="the program", **options)


def quietly(work: Any) -> Any:
    """Do some work whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()
