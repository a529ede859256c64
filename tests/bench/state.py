"""The states that are timed: a transformer's float32 parameters and their AdamW moments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Size:
    """How large a state is.

    Attributes:
        name: What people call it: parameters and moments together.
        width: Of the transformer.
        depth: How many blocks.
        words: In its vocabulary.
        tokens: That one step of training sees: so many that a step takes a fraction of a second.
    """

    name: str
    width: int
    depth: int
    words: int
    tokens: int

    @property
    def slug(self) -> str:
        """The name as files have it, such as ``1-49gb``."""
        return self.name.lower().replace(" ", "").replace(".", "-")

    def model(self, device: str | None = None) -> Transformer:
        """Return a model of this size with random weights."""
        with torch.device(device or "cpu"):
            return Transformer(self.width, self.depth, self.words)


class Block(nn.Module):
    """A transformer's block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, width) to the same, causally, with heads of 64."""
        batch, tokens, width = hidden.shape
        query, key, value = (
            part.view(batch, tokens, width // 64, 64).transpose(1, 2)
            for part in self.attention(self.norm_1(hidden)).chunk(3, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.projection(seen.transpose(1, 2).reshape(batch, tokens, width))
        expanded = functional.gelu(self.expand(self.norm_2(hidden)))
        contracted: torch.Tensor = self.contract(expanded)
        return hidden + contracted


class Transformer(nn.Module):
    """GPT-2, by default its smallest model; the output is tied to the embedding."""

    def __init__(self, width: int = 768, depth: int = 12, words: int = 50257) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.position = nn.Embedding(1024, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token numbers (batch, tokens) to logits (batch, tokens, words)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.embedding(tokens) + self.position(places)
        for block in self.blocks:
            hidden = block(hidden)
        logits: torch.Tensor = self.head(self.norm(hidden))
        return logits


SIZES = {
    size.name: size
    for size in (
        Size("10 MB", width=128, depth=3, words=1024, tokens=64),
        Size("1.49 GB", width=768, depth=12, words=50257, tokens=16),
        Size("6 GB", width=1408, depth=18, words=50257, tokens=16),
    )
}
COMMON = SIZES["1.49 GB"]


def make(size: Size = COMMON, device: str = "cpu") -> tuple[Transformer, torch.optim.Optimizer]:
    """Return a model and an optimizer that has taken a step, so that its moments exist."""
    torch.manual_seed(0)
    model = size.model(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    step(model, optimizer)
    return model, optimizer


def tiny() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model of about 1,000 parameters and its optimizer."""
    torch.manual_seed(0)
    model = nn.Linear(31, 31)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 31)).sum().backward()
    optimizer.step()
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Change every parameter and every moment, as a step of training does."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            drawn = torch.randn((), device=parameter.device) * 1e-3
            parameter.grad = drawn.expand_as(parameter) + parameter.detach()
    optimizer.step()
    optimizer.zero_grad()


def tokens(size: Size, device: str = "cpu") -> torch.Tensor:
    """Return what one step of training sees: (1, tokens + 1) numbers of words."""
    return torch.randint(size.words, (1, size.tokens + 1), device=device)


def differentiate(model: nn.Module, seen: torch.Tensor) -> None:
    """Run one forward and one backward: predict each next token."""
    logits = model(seen[:, :-1])
    loss = functional.cross_entropy(logits.flatten(0, 1), seen[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def synchronize(device: str) -> None:
    """Wait until a GPU has done all that it was told to; nothing to wait for on a CPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Return what peers save: both state dicts, of live tensors."""
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def flat(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the state's tensors under flat names, tied ones once."""
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for number, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in entry.items()}
    return tensors


def size_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return how many bytes tensors hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fsync(*paths: Path) -> None:
    """Make files durable, and their names; of a folder all that lies in it."""
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else []
        for place in (*inside, path, path.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
