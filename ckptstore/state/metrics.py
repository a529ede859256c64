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
    """Say whether something is a metric of torchmetrics, or holds metrics and no other state.

    Such as a collection, a tracker, or a ``ModuleDict`` of metrics.
    """
    # There is none before this was imported, which takes a second.
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is None or not isinstance(part, torch.nn.Module):
        return False
    found, waiting = False, [part]
    while waiting:
        module = waiting.pop()
        if isinstance(module, (torchmetrics.Metric, torchmetrics.MetricCollection)):
            found = True
        elif _has_state(module):  # at once, in a model
            return False
        else:
            waiting += module.children()
    return found


def _has_state(module: torch.nn.Module) -> bool:
    """Say whether a module has any of its own, besides that of those inside of it."""
    if isinstance(module, torch.jit.ScriptModule):
        return True
    own = type(module).get_extra_state is not torch.nn.Module.get_extra_state
    values = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return own or bool(values)


def has_weights(part: object) -> TypeGuard[torch.nn.Module]:
    """Say whether something is a module whose state is its state dict: not so a metric."""
    return isinstance(part, torch.nn.Module) and not is_metric(part)


def forgotten_metrics(parts: Mapping[str, Any]) -> list[str]:
    """Return a warning for each module part with metrics inside, whose state dict has not theirs.

    But for those that are handed over as parts of their own too.
    """
    if "torchmetrics" not in sys.modules:
        return []
    kept = {
        id(metric) for part in parts.values() if is_metric(part) for _, metric in _metrics(part)
    }
    found = []
    for name, part in parts.items():
        if not has_weights(part):
            continue
        paths = [path for path, metric in _metrics(part) if id(metric) not in kept]
        if paths:
            found.append(
                f"part {name!r} has metrics inside, and what they have accumulated is not kept "
                f"with it: {', '.join(paths)}. To go on in the middle of an epoch, hand them over "
                "as parts of their own too"
            )
    return found


def metric_state(part: Any) -> dict[str, Any]:
    """Return what a metric has accumulated, and the state of modules inside of it.

    Returns:
        ``metrics``: by the path of each metric inside of the part (itself: the empty path) its
        number of ``updates``, its ``state`` (tensors and lists by name) and ``more``, what its
        class accumulates elsewhere. ``modules``: the rest of its state dict. ``increments``, if
        there are trackers inside: by path, how often each was incremented.
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
    state = {"metrics": metrics, "modules": _modules(part)}
    steps = {path: tracker.n_steps for path, tracker in _trackers(part)}
    return {**state, "increments": steps} if steps else state


def metric_problems(part: Any, state: Any) -> list[str]:
    """Say what keeps a metric from taking a state: other metrics inside, other names or shapes."""
    if not _is_metric_state(state):
        return ["its state is not what a metric of torchmetrics was saved as"]
    steps = state.get("increments", {})
    if steps.keys() != dict(_trackers(part)).keys():
        return ["saved by something with other trackers of metrics"]
    mine, saved = _as_incremented(part, dict(_metrics(part)), steps), state["metrics"]
    problems = [f"metric {path!r} is here, and was not saved" for path in mine if path not in saved]
    problems += [
        f"metric {path!r} was saved, and is not here" for path in saved if path not in mine
    ]
    for path, metric in mine.items():
        if path in saved:
            at = f"of metric {path!r}" if path else "of the metric"
            problems += _differences(metric.metric_state, saved[path]["state"], at)
    modules = _as_incremented(part, _modules(part), steps)
    return problems + _differences(modules, state["modules"], "of a module inside")


def _is_metric_state(state: Any) -> bool:
    """Say whether a state has the form of those that :func:`metric_state` returns."""
    if not isinstance(state, dict) or state.keys() - {"increments"} != {"metrics", "modules"}:
        return False
    if not all(isinstance(each, dict) for each in state.values()):
        return False
    # Every increment has at least one metric.
    most = len(state["metrics"])
    if not all(
        type(each) is int and 0 <= each <= most for each in state.get("increments", {}).values()
    ):
        return False
    return all(
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
    for path, tracker in _trackers(part):
        _increment(tracker, state["increments"][path])
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


def _trackers(part: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    kind = sys.modules["torchmetrics"].MetricTracker
    for path, module in part.named_modules(remove_duplicate=False):
        if isinstance(module, kind):
            yield path, module


def _increment(tracker: Any, times: int) -> None:
    """Let a tracker be as if it had been incremented so often."""
    while tracker.n_steps < times:
        tracker.increment()
    for extra in range(tracker.n_steps, times, -1):
        # Deleting by index would give the first metric a number, which has a name of its own.
        delattr(tracker, str(extra))
    tracker._increment_called = times > 0  # noqa: SLF001 - nothing else sets it back


def _as_incremented(
    part: torch.nn.Module, values: Mapping[str, Any], steps: Mapping[str, int]
) -> dict[str, Any]:
    """Return values by path as they would be with trackers incremented so often.

    Each increment is a copy of the tracker's first metric (torchmetrics/wrappers/tracker.py).
    """
    found = dict(values)
    for path, tracker in _trackers(part):
        before = f"{path}." if path else ""
        for number in range(1, tracker.n_steps + 1):
            mine = f"{before}{number}"
            found = {key: value for key, value in found.items() if not _is_in(key, mine)}
        first = f"{before}_base_metric"
        copied = [(key[len(first) :], value) for key, value in found.items() if _is_in(key, first)]
        for number in range(1, steps[path] + 1):
            found |= {f"{before}{number}{rest}": value for rest, value in copied}
    return found


def _is_in(key: str, path: str) -> bool:
    return key == path or key.startswith(f"{path}.")


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
