"""What the examples train on and train: scikit-learn's bundled digits, and a small network.

1,797 real handwritten digits of 8 by 8 pixels come with scikit-learn, so nothing is downloaded.
Splits, statistics and batches are the same each time, which is what lets the examples compare a
training that was killed with one that was not, bit for bit.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

CLASS_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PIXELS = 64
TRAIN, VAL = 1257, 270  # what is left, 270 images, is held out


class SimpleNN(nn.Module):
    """A perceptron with two hidden layers.

    Args:
        hidden: The width of the hidden layers.
        dropout: The share of hidden units that training silences at each step.
        classes: How many classes there are.
    """

    def __init__(self, hidden: int, dropout: float = 0.0, classes: int = 10) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(PIXELS, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Args:
            images: Standardised, float32, shape (N, 64).

        Returns:
            float32, shape (N, classes).
        """
        logits: torch.Tensor = self.head(self.backbone(images))
        return logits


@dataclass(frozen=True)
class Split:
    """Some of the images."""

    pixels: NDArray[np.float64]
    """As scanned, 0 to 16, shape (N, 64)."""
    images: torch.Tensor
    """Standardised, float32, shape (N, 64)."""
    labels: torch.Tensor
    """0 to 9, int64, shape (N,)."""

    def only(self, first: int, last: int) -> Split:
        """Return the images of the classes *first* to *last*, with labels that start from 0."""
        chosen = (self.labels >= first) & (self.labels <= last)
        return Split(self.pixels[chosen.numpy()], self.images[chosen], self.labels[chosen] - first)


@dataclass(frozen=True)
class Digits:
    """The data set in three parts, with the statistics of its first."""

    train: Split
    val: Split
    held_out: Split
    mean: NDArray[np.float64]
    """Of each pixel over the training images, shape (64,)."""
    std: NDArray[np.float64]
    """The same; 1 where a pixel is constant, since a constant has no spread to divide by."""


@functools.cache
def load() -> Digits:
    """Return the digits, shuffled and split the same way each time."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order], labels[order].astype(np.int64)
    mean, std = pixels[:TRAIN].mean(axis=0), pixels[:TRAIN].std(axis=0)
    std[std == 0] = 1

    def split(start: int, stop: int) -> Split:
        standardised = ((pixels[start:stop] - mean) / std).astype(np.float32)
        return Split(
            pixels[start:stop],
            torch.from_numpy(standardised),
            torch.from_numpy(labels[start:stop]),
        )

    return Digits(
        train=split(0, TRAIN),
        val=split(TRAIN, TRAIN + VAL),
        held_out=split(TRAIN + VAL, len(pixels)),
        mean=mean,
        std=std,
    )


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Split, batch_size: int = 16
) -> float:
    """Train for one epoch, in an order drawn from torch's random generator.

    Returns:
        The mean loss.
    """
    model.train()
    total = 0.0
    order = torch.randperm(len(data.images))
    for batch in order.split(batch_size):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(data.images[batch]), data.labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(data.images)


@torch.no_grad()
def validate(model: nn.Module, data: Split) -> tuple[float, float]:
    """Return the mean loss and the accuracy, 0 to 1."""
    model.eval()
    logits = model(data.images)
    loss = functional.cross_entropy(logits, data.labels).item()
    return loss, (logits.argmax(dim=1) == data.labels).float().mean().item()


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of every weight's name and bytes: equal means bit for bit."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
