"""A GAN: two models and two optimizers in one version, each loaded back by its name.

::

    python -m examples.gan checkpoints
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ckptstore import Run, Store, remember_init
from examples import digits

EPOCHS = 3
BATCH = 64
NOISE = 16


@remember_init
class Generator(nn.Module):
    """Makes images of shape (N, 64) out of noise of shape (N, noise)."""

    def __init__(self, noise: int = NOISE, width: int = 64) -> None:
        super().__init__()
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Linear(noise, width), nn.ReLU(), nn.Linear(width, digits.PIXELS)
        )

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Return standardised images."""
        images: torch.Tensor = self.layers(noise)
        return images


@remember_init
class Discriminator(nn.Module):
    """Tells real images from made ones: one logit an image."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(digits.PIXELS, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of being real, shape (N, 1)."""
        logits: torch.Tensor = self.layers(images)
        return logits


def main(url: str = "checkpoints", *, epochs: int = EPOCHS) -> None:
    """Train the pair from wherever the run is, and load the generator alone."""
    store = Store(url)
    train(store.run("gan"), epochs)

    # The discriminator's and the optimizers' bytes are not even read.
    generator = store.load_latest(Generator, run="gan", part="generator", device="cpu")
    with torch.inference_mode():
        made = generator(torch.randn(5, NOISE))
    print(f"made     {len(made)} images of {made.shape[1]} pixels")

    # Both again, as they were; the optimizers likewise, if they were given.
    latest = store.latest(run="gan")
    done = latest.restore(generator=Generator(), discriminator=Discriminator())
    print(f"restored {', '.join(done.restored)}; left {', '.join(done.not_asked_for)}")


def train(run: Run, epochs: int) -> None:
    """Train up to *epochs*; what has state is saved and restored under a name of its own."""
    torch.manual_seed(0)
    generator, discriminator = Generator(), Discriminator()
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    parts: dict[str, Any] = {
        "generator": generator,
        "discriminator": discriminator,
        "g_optimizer": g_optimizer,
        "d_optimizer": d_optimizer,
    }

    for epoch in range(run.resume(**parts).next_epoch, epochs):
        g_loss, d_loss = play(generator, discriminator, g_optimizer, d_optimizer)
        print(run.save(epoch=epoch, g_loss=g_loss, d_loss=d_loss, **parts))
    print(f"digest  {digits.digest(generator)}")


def play(
    generator: Generator,
    discriminator: Discriminator,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
) -> tuple[float, float]:
    """Train both for one epoch and return their mean losses."""
    images = digits.load().train.images
    g_total = d_total = 0.0
    for batch in torch.randperm(len(images)).split(BATCH):
        made = generator(torch.randn(len(batch), NOISE))

        d_optimizer.zero_grad()
        d_loss = judged(discriminator(images[batch]), real=True)
        d_loss = d_loss + judged(discriminator(made.detach()), real=False)
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = judged(discriminator(made), real=True)
        g_loss.backward()
        g_optimizer.step()

        g_total += g_loss.item() * len(batch)
        d_total += d_loss.item() * len(batch)
    return g_total / len(images), d_total / len(images)


def judged(logits: torch.Tensor, *, real: bool) -> torch.Tensor:
    """Return the loss of calling images real or made."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


if __name__ == "__main__":
    main(*sys.argv[1:])
