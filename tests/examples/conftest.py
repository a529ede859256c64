"""Processes for trainings that end early, or side by side."""

from __future__ import annotations

import multiprocessing

import pytest


@pytest.fixture(scope="session")
def processes():
    """Processes that start in no time, since what they are forked from has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["examples.train_digits", "examples.ddp", "torch._dynamo"])
    return context
