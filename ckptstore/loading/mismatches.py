"""What keeps a part's saved state from an object: another kind, form, dtype or shape."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LRScheduler

from ckptstore.errors import MismatchError
from ckptstore.format.manifest import PartInfo
from ckptstore.loading.fit import Fit, Leave, fit
from ckptstore.loading.tensors import is_plain, unwritable
from ckptstore.state.generators import generator_problems
from ckptstore.state.keywords import is_generator
from ckptstore.state.layouts import has_own_state, has_torchs_layout
from ckptstore.state.loaders import is_loader, loader_problems
from ckptstore.state.metrics import has_weights, is_metric, metric_problems
from ckptstore.state.modules import class_name, raw_state
from ckptstore.state.schedulers import scheduler_problems
from ckptstore.state.tensors import is_sharded
from ckptstore.text import plain

# State of torch's own optimizers that has its parameter's shape (torch/optim/*.py).
SHAPED_LIKE_PARAMETER = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_inf",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
        "ax",
        "prev",
        "step_size",
        "sum",
        "variance",
    }
)

OR_OWN = ", or say dtype='own'"


def kind_problems(part: object, info: PartInfo, state: Any) -> list[str]:
    """Say whether a part was saved by another kind of thing than it is to go into."""
    if has_weights(part):
        fits = info.kind in ("module", "state_dict")
    elif isinstance(part, torch.optim.Optimizer):
        # One that has a layout of its own was saved as any object is.
        fits = info.kind == "optimizer" or (info.kind == "object" and info.class_name is not None)
        fits = fits and _same_class(info, part)
    elif is_generator(part):
        fits = info.kind == "generator" and info.class_name == class_name(part)
    else:
        fits = info.kind == "object" and _same_class(info, part)
    if not fits:
        saver = plain(info.class_name or "a state dict")
        return [f"saved by {saver}, and this is {class_name(part)}"]
    if isinstance(part, torch.optim.Optimizer) and not _takes(part, info, state):
        problem = "its state has not the layout of torch's optimizers, so its parameters can't be "
        return [f"{problem}matched; hand checkpoint.state({info.name!r}) to its load_state_dict()"]
    if not is_generator(part) and not callable(getattr(part, "load_state_dict", None)):
        return [f"{class_name(part)} has no load_state_dict()"]
    if info.kind == "generator":
        drawn, draws = _source_of(part, state)
        if drawn != draws:
            return [f"saved from {plain(str(drawn))}, and this draws from {draws}"]
    return []


def _takes(optimizer: torch.optim.Optimizer, info: PartInfo, state: Any) -> bool:
    """Say whether an optimizer's own loading code can be given a state."""
    if info.kind == "optimizer":
        return has_torchs_layout(state) and has_own_state(optimizer)
    loads_torchs = type(optimizer).load_state_dict is torch.optim.Optimizer.load_state_dict
    return has_torchs_layout(state) or not loads_torchs


def _same_class(info: PartInfo, part: object) -> bool:
    # By the last word: a script's own class is of __main__ in one process and of its module in
    # another.
    return info.class_name is None or (
        info.class_name.rpartition(".")[2] == class_name(part).rpartition(".")[2]
    )


def _source_of(part: Any, state: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a generator's saved state was drawn from, and what it itself draws from."""
    if isinstance(part, torch.Generator):
        return torch.device(state["device"]).type, part.device.type
    if isinstance(part, random.Random):
        return "", ""  # all are of one kind
    drawn = state["bit_generator"]["bit_generator"]
    if isinstance(part, sys.modules["numpy"].random.RandomState):
        return drawn, part.get_state(legacy=False)["bit_generator"]
    return drawn, type(part.bit_generator).__name__


def fit_module(
    module: torch.nn.Module,
    state: Any,
    name: str,
    leave: Leave | None = None,
    *,
    converts: bool = False,
) -> tuple[Fit | None, list[str]]:
    """Return how a module and its state go together, and what keeps them from it.

    Args:
        module: The one that is to take the state.
        state: As it was saved.
        name: The part's name.
        leave: What of the module may stay as it is.
        converts: Whether floating tensors may be of another dtype.
    """
    if not isinstance(state, Mapping):
        return None, [f"its state is a {type(state).__qualname__}, and should be a dict"]
    shares = [key for key, parameter in module.named_parameters() if is_sharded(parameter)]
    if shares:
        problem = (
            f"{shares[0]!r} is sharded over ranks (a DTensor), as are {len(shares) - 1} more: "
            "restore the module before it is sharded, or hand checkpoint.state("
            f"{name!r}) to set_model_state_dict(…, options=StateDictOptions(full_state_dict=True)) "
            "of torch.distributed.checkpoint.state_dict"
        )
        return None, [problem]
    raw = raw_state(module, state, getattr(state, "_metadata", {}))
    try:
        found = fit(module, raw, f"part {name!r}", leave, in_place=True)
    except MismatchError as error:
        return None, list(error.problems)
    own: Mapping[str, Any] = found.own
    reasons = {key: unwritable(own[key]) for key in found.adopted}
    return found, [
        *(
            f"{key!r} {reason}, so nothing can be copied into it"
            for key, reason in reasons.items()
            if reason
        ),
        *(
            f"{key!r} is {own[key].dtype}, and was saved as {raw[key].dtype}; convert the module "
            f"first{OR_OWN if _can_convert(own[key], raw[key]) else ''}"
            for key in found.adopted
            if own[key].dtype != raw[key].dtype
            and not (converts and _can_convert(own[key], raw[key]))
        ),
    ]


def _can_convert(mine: torch.Tensor, saved: torch.Tensor) -> bool:
    """Say whether a tensor can take another's numbers in its own dtype."""
    return (
        mine.is_floating_point()
        and saved.is_floating_point()
        and (is_plain(mine) or mine.layout is not torch.strided)
    )


def moment_problems(
    optimizer: torch.optim.Optimizer,
    parameter: torch.Tensor,
    moments: Mapping[str, Any],
    called: str,
) -> list[str]:
    """Say which moments have another shape than the parameter that they are to go onto.

    Args:
        optimizer: Its optimizer.
        parameter: It.
        moments: What was saved for it.
        called: Names what they were saved for.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return []  # a class of one's own may keep anything under those keys
    if isinstance(optimizer, torch.optim.LBFGS):
        return []
    return [
        f"{key!r} of {called} has shape {list(value.shape)}, and the parameter has "
        f"{list(parameter.shape)}"
        for key, value in moments.items()
        if key in SHAPED_LIKE_PARAMETER
        and isinstance(value, torch.Tensor)
        and value.dim()
        and not is_lazy(parameter)  # its module gets its shape from what was saved
        and value.shape != parameter.shape
    ]


def vector_problems(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    numbers: Sequence[Sequence[int | None]],
    count: int,
) -> list[str]:
    """Say what keeps L-BFGS from vectors that run through all parameters, in their order.

    Args:
        optimizer: Any; others have no such vectors.
        state: As it was saved.
        numbers: Which saved parameter each of its own is, None for none.
        count: How many were saved.
    """
    if not isinstance(optimizer, torch.optim.LBFGS) or not numbers:
        return []
    (wanted,) = numbers
    if None in wanted or len(wanted) != count:
        problem = "L-BFGS keeps one vector over all parameters, and can't go on with some of them: "
        return [f"{problem}leave it out, and it begins anew"]
    if list(wanted) != list(range(count)):
        return ["L-BFGS keeps one vector over all parameters, and they stand in another order here"]
    parameters = optimizer.param_groups[0]["params"]
    size = sum(each.numel() * (2 if each.is_complex() else 1) for each in parameters)
    direction = state["state"].get(0, {}).get("d")
    if isinstance(direction, torch.Tensor) and direction.numel() != size:
        return [
            f"its direction has {direction.numel()} numbers, and the parameters have {size} here"
        ]
    return []


def object_problems(part: object, state: Any) -> list[str]:
    """Say what keeps a saved state from a scheduler, metric or scaler that would take it anyway.

    Or that would refuse it when other parts are restored already.
    """
    if is_generator(part):
        return generator_problems(part, state)
    if isinstance(part, LRScheduler):
        return scheduler_problems(part, state)
    if is_metric(part):
        return metric_problems(part, state)
    if is_loader(part):
        return loader_problems(part, state)
    if isinstance(part, torch.amp.GradScaler) and part.is_enabled() and not state:
        return [
            "saved while it was not enabled, so there is nothing for an enabled one to go on from"
        ]
    return []
