"""Metrics that come later: checked as those of ``save`` are, and encoded for the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore.errors import ArgumentError
from ckptstore.format.tree import encode
from ckptstore.state.keywords import OPTIONS, metric_dict, number


def late_metrics(metrics: Mapping[str, Any] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics by name, encoded.

    Args:
        metrics: Metrics by any name.
        values: Metrics that were given as keywords; None is absent.

    Raises:
        ArgumentError: Something is no real number, a keyword is an option's name, a name stands
            twice, or there is no metric at all.
    """
    for name in values:
        if name in OPTIONS:
            raise ArgumentError(
                f"log() has no option {name!r}; to record a metric of that name, write "
                f"metrics={{{name!r}: …}}"
            )
    listed = metric_dict({} if metrics is None else metrics)
    given = metric_dict(
        {name: number(name, value) for name, value in values.items() if value is not None}
    )
    twice = sorted(listed.keys() & given.keys())
    if twice:
        raise ArgumentError(f"metric(s) {', '.join(twice)} stand both in metrics= and as keywords")
    found = listed | given
    if not found:
        raise ArgumentError("log() takes metrics, as in log(test_acc=0.98), and was given none")
    return {name: encode(value, f"metrics/{name}") for name, value in found.items()}
