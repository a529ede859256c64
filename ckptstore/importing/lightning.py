"""Lightning's ``.ckpt``: a torch.save of one dict, whose keys are always the same.

They are written in lightning/pytorch/trainer/connectors/checkpoint_connector.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore.importing.as_numbers import real, whole
from ckptstore.importing.contents import Contents, ForeignPart, is_config
from ckptstore.importing.file_names import Named

MARK = "pytorch-lightning_version"
HYPER_PARAMETERS = "hyper_parameters"
HYPER_PARAMETERS_NAME = "hparams_name"
ALL_ARGUMENTS = "kwargs"
"""That name if they are all arguments of the module; else it is the one argument that they are."""
LISTS = {"optimizer_states": "optimizer", "lr_schedulers": "scheduler"}
SCALERS = ("MixedPrecision", "MixedPrecisionPlugin", "native_amp_scaling_state")


def is_lightnings(value: object) -> bool:
    """Say whether a value is what Lightning's Trainer saves."""
    return isinstance(value, Mapping) and MARK in value and "state_dict" in value


def recognise_lightning(value: Mapping[str, Any], named: Named) -> Contents:
    """Say what a Lightning checkpoint holds.

    Weights and optimizers become parts; hyperparameters are the run's config and, as
    ``LightningModule.load_from_checkpoint`` has it, the module's constructor arguments. Callbacks,
    loops and whatever else there is go into ``extra``.

    Args:
        value: Its dict.
        named: What its name says: there Lightning rounds the metric that a callback holds exactly.
    """
    found = Contents("lightning")
    rest = dict(value)
    found.parts["model"] = ForeignPart("state_dict", rest.pop("state_dict"))
    for key, part in LISTS.items():
        states = rest.get(key)
        if isinstance(states, list) and all(isinstance(state, Mapping) for state in states):
            del rest[key]
            for place, state in enumerate(states):
                kind = "optimizer" if part == "optimizer" else "object"
                found.parts[part if not place else f"{part}_{place}"] = ForeignPart(kind, state)
    for key in SCALERS:
        if isinstance(rest.get(key), Mapping) and "scaler" not in found.parts:
            found.parts["scaler"] = ForeignPart("object", rest.pop(key))
    if whole(rest.get("epoch")) is not None:
        found.epoch = whole(rest.pop("epoch"))
    if whole(rest.get("global_step")) is not None:
        found.step = whole(rest.pop("global_step"))
    if is_config(rest.get(HYPER_PARAMETERS)):
        found.config = dict(rest.pop(HYPER_PARAMETERS))
        argument = rest.pop(HYPER_PARAMETERS_NAME, ALL_ARGUMENTS)
        found.model_config = (
            found.config if argument == ALL_ARGUMENTS else {str(argument): found.config}
        )
    found.metrics = _monitored(rest.get("callbacks"), named)
    found.extra = {str(key): item for key, item in rest.items()}
    return found


def _monitored(callbacks: object, named: Named) -> dict[str, float | int]:
    """Return what ModelCheckpoint monitored as of this checkpoint, by the metric's name.

    A callback's ``current_score`` may be of an earlier validation, so where the file's name has the
    metric, what it says decides whether the score is this checkpoint's.
    """
    scores: dict[str, float | int] = {}
    for state in callbacks.values() if isinstance(callbacks, Mapping) else ():
        if not isinstance(state, Mapping):
            continue
        metric, score = state.get("monitor"), real(state.get("current_score"))
        if not isinstance(metric, str) or score is None:
            continue
        written = named.metrics.get(metric)
        if written is None or round(score, named.digits[metric]) == written:
            scores[metric] = score
    return scores
