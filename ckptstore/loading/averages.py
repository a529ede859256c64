"""An average's state as that of the module that it is an average of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.optim.swa_utils import AveragedModel

from ckptstore.format.manifest import PartInfo
from ckptstore.format.part import Part

AVERAGED = f"{AveragedModel.__module__}.{AveragedModel.__qualname__}"
"""What is recorded as the class of torch's own."""
INSIDE = "module"
"""Where it has its module (torch/optim/swa_utils.py), ..."""
COUNT = "n_averaged"
"""... and what it counts beside it."""


def is_average(info: PartInfo) -> bool:
    """Say whether a part was saved by an average, by its recorded class."""
    return info.class_name == AVERAGED


def makes_average(factory: object) -> bool:
    """Say whether a class is that of an average, which takes an average's state as it is."""
    return isinstance(factory, type) and issubclass(factory, AveragedModel)


def inside(part: Part) -> Part:
    """Return an average's part as the module's inside of it: under its names, without the count."""
    tree = part.tree
    if not isinstance(tree, dict) or not isinstance(tree.get("$OrderedDict"), list):
        return part  # it is damaged, and whoever reads on says so
    new = {**tree, "$OrderedDict": _pairs(tree["$OrderedDict"], f"{INSIDE}.")}
    metadata = tree.get("_metadata")
    if isinstance(metadata, Mapping) and isinstance(metadata.get("$OrderedDict"), list):
        named = [_dotted(pair) for pair in metadata["$OrderedDict"]]
        kept = [pair for pair in named if _begins(pair, f"{INSIDE}.")]
        undotted = [[name.removesuffix("."), value] for name, value in _pairs(kept, f"{INSIDE}.")]
        new["_metadata"] = {**metadata, "$OrderedDict": undotted}
    left_out = {key.removeprefix(f"{INSIDE}."): form for key, form in part.left_out.items()}
    return replace(part, tree=new, left_out=left_out)


def _pairs(pairs: list[Any], prefix: str) -> list[Any]:
    return [
        [pair[0].removeprefix(prefix), *pair[1:]] if _begins(pair, prefix) else pair
        for pair in pairs
        if not (isinstance(pair, list) and pair and pair[0] == COUNT)
    ]


def _begins(pair: object, prefix: str) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2  # noqa: PLR2004 - key and value
        and isinstance(pair[0], str)
        and pair[0].startswith(prefix)
    )


def _dotted(pair: Any) -> Any:
    """Return a pair of metadata, whose names are prefixes without their dot, with the dot."""
    if isinstance(pair, list) and pair and isinstance(pair[0], str) and pair[0]:
        return [f"{pair[0]}.", *pair[1:]]
    return pair
