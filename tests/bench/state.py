"""The state that is timed: 124 million float32 parameters and their AdamW moments, 1.49 GB."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """A transformer block's parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)


class Transformer(nn.Module):
    """The parameters of GPT-2's smallest model, its output tied to its embedding."""

    def __init__(self, width: int = 768, depth: int = 12, words: int = 50257) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.position = nn.Embedding(1024, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the model and an optimizer that has taken a step, so that its moments exist."""
    torch.manual_seed(0)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def tiny() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model of about 1,000 parameters and its optimizer."""
    torch.manual_seed(0)
    model = nn.Linear(31, 31)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 31)).sum().backward()
    optimizer.step()
    return model, optimizer
