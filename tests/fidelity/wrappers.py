"""Modules and what is wrapped around them."""

from __future__ import annotations

from tests.fidelity.cases import Case

CASES: list[Case] = []
