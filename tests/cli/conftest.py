"""A store to look into, and a way to type commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ckptstore import Store
from ckptstore.cli import app

EVIL = "\x1b[31m[red]<script>\u202e"
"""A name that would colour a terminal, be taken for rich's markup, and turn the writing around."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs; tests only look into it."""
    folder = tmp_path_factory.mktemp("cli") / "store"
    with Store(folder) as store:
        for rate in (0.1, 0.01):
            run = store.run(
                f"sweep/lr={rate}", config={"lr": rate, EVIL: [EVIL]}, monitor="acc", mode="max"
            )
            for epoch in range(3):
                acc = float("nan") if epoch == 2 else rate + epoch / 10
                run.save(
                    torch.nn.Linear(2, 3),
                    epoch=epoch,
                    metrics={"acc": acc, EVIL: epoch},
                    model_config={"in_features": 2, "out_features": 3},
                )
        store.save_package(
            "sweep/lr=0.1@best", class_names=["cat", EVIL, "dog"], tags=["prod"], sample=[0.0, 0.0]
        )
    return folder


@pytest.fixture
def typed() -> Callable[..., Any]:
    """Types a command; gives back its ``exit_code``, ``stdout`` and ``stderr``."""
    runner = CliRunner()

    def type_(*words: object, **environment: str) -> Any:
        done = runner.invoke(app, [str(word) for word in words], env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return type_
