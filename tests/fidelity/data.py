"""Loaders, samplers and metrics."""

from __future__ import annotations

from tests.fidelity.cases import Case

CASES: list[Case] = []
