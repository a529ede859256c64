"""Metrics of torchmetrics: all they have accumulated, whatever of it their state dict has.

By default that is nothing: states are persistent only on request. And a state dict never has the
count of updates, without which a mean goes on wrongly.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import torch

OUTSIDE_STATES = ("_num_vals_seen", "min_val", "max_val", "rmse_map", "ref_group_boundaries")
"""What some of torchmetrics' own classes accumulate in plain attributes."""


def is_metric(part: object) -> bool:
    """Say whether something is a metric of torchmetrics, or a collection of them."""
    # There is none before this was imported, which takes a second.
    torchmetrics = sys.modules.get("torchmetrics")
    return torchmetrics is not None and isinstance(
        part, (torchmetrics.Metric, torchmetrics.MetricCollection)
    )


def has_weights(part: object) -> TypeGuard[torch.nn.Module]:
    """Say whether something is a module whose state is its state dict: not so a metric."""
    return isinstance(part, torch.nn.Module) and not is_metric(part)


def metric_state(part: Any) -> dict[str, Any]:
    """Return what a metric has accumulated, and the state of modules inside of it.

    Returns:
        ``metrics``: by the path of each metric inside of the part (itself: the empty path) its
        number of ``updates``, its ``state`` (tensors and lists by name) and ``more``, what its
        class accumulates elsewhere. ``modules``: the rest of its state dict.
    """
    metrics = {
        path: {
            "updates": metric.update_count,
            "state": {name: _detached(value) for name, value in metric.metric_state.items()},
            "more": {
                name: _detached(vars(metric)[name])
                for name in OUTSIDE_STATES
                if name in vars(metric) and name not in metric.metric_state
            },
        }
        for path, metric in _metrics(part)
    }
    return {"metrics": metrics, "modules": _modules(part)}


def metric_problems(part: Any, state: Any) -> list[str]:
    """Say what keeps a metric from taking a state: other metrics inside, other names or shapes."""
    if not _is_metric_state(state):
        return ["its state is not what a metric of torchmetrics was saved as"]
    mine, saved = dict(_metrics(part)), state["metrics"]
    problems = [f"metric {path!r} is here, and was not saved" for path in mine if path not in saved]
    problems += [
        f"metric {path!r} was saved, and is not here" for path in saved if path not in mine
    ]
    for path, metric in mine.items():
        if path in saved:
            at = f"of metric {path!r}" if path else "of the metric"
            problems += _differences(metric.metric_state, saved[path]["state"], at)
    return problems + _differences(_modules(part), state["modules"], "of a module inside")


def _is_metric_state(state: Any) -> bool:
    """Say whether a state has the form of those that :func:`metric_state` returns."""
    if not isinstance(state, dict) or state.keys() != {"metrics", "modules"}:
        return False
    return all(isinstance(each, dict) for each in state.values()) and all(
        isinstance(each, dict)
        and each.keys() == {"updates", "state", "more"}
        and type(each["updates"]) is int
        and isinstance(each["state"], dict)
        and isinstance(each["more"], dict)
        and each["more"].keys() <= set(OUTSIDE_STATES)
        for each in state["metrics"].values()
    )


def put_metric_state(part: Any, state: Mapping[str, Any]) -> None:
    """Put accumulated state into a metric that it fits, each tensor on the metric's device."""
    if state["modules"]:
        part.load_state_dict(state["modules"])
    for path, metric in _metrics(part):
        saved = state["metrics"][path]
        metric.reset()  # lets go of what was computed and cached
        for name, value in [*saved["state"].items(), *saved["more"].items()]:
            setattr(metric, name, _moved(value, metric.device))
        metric._update_count = saved["updates"]  # noqa: SLF001 - nothing else sets it


def _metrics(part: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    kind = sys.modules["torchmetrics"].Metric
    for path, module in part.named_modules(remove_duplicate=False):
        if isinstance(module, kind):
            yield path, module


def _modules(part: torch.nn.Module) -> dict[str, Any]:
    """Return a part's state dict without the states of metrics, which may be in it."""
    accumulated = {
        f"{path}.{name}" if path else name
        for path, metric in _metrics(part)
        for name in metric.metric_state
    }
    return {name: value for name, value in part.state_dict().items() if name not in accumulated}


def _differences(mine: Mapping[str, Any], saved: Mapping[str, Any], of: str) -> list[str]:
    missing = [f"{name!r} {of} is here, and was not saved" for name in mine if name not in saved]
    unexpected = [f"{name!r} {of} was saved, and is not here" for name in saved if name not in mine]
    shapes = [
        f"{name!r} {of} has shape {_shape(mine[name])}, and was saved as {_shape(saved[name])}"
        for name in mine
        if name in saved and _shape(mine[name]) != _shape(saved[name])
    ]
    return missing + unexpected + shapes


def _shape(value: object) -> object:
    """Return a tensor's shape, of anything else its type: lists may be of any length."""
    return list(value.shape) if isinstance(value, torch.Tensor) else type(value).__qualname__


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, (list, tuple)):
        return type(value)(_detached(item) for item in value)
    return value


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value
