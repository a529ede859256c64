"""Tensor subclasses that are kept, each listed by name: of what tensors they are made, and of what.

Reading imports no class because a file names it: a name is looked up here, and what is imported is
what stands here. torchao is imported when such a tensor is read, and not before.
"""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ckptstore.errors import MissingPackageError

FLOATS = ("float32", "bfloat16", "float16", "float64")
FLOAT8S = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
SCALES = (*FLOATS, "float8_e8m0fnu")
INTS = ("int8", "uint8", "int16", "int32", "int64")


@dataclass(frozen=True)
class Inner:
    """A plain tensor inside of a subclass.

    Attributes:
        dtypes: What it may be, by torch's names.
        needed: Whether it is always there.
        count: How many elements it has, where their number must not be another: an index into it
            is taken from other elements.
    """

    dtypes: tuple[str, ...]
    needed: bool = True
    count: int | None = None


Made = Mapping[str, Inner]

_OPTIONAL_SCALE = Inner(FLOATS, needed=False)
# https://github.com/pytorch/ao: torchao/quantization/quantize_/workflows, torchao/optim. The tests
# save and load each of them, on a CPU.
SUBCLASSES: Mapping[str, Made] = {
    "torchao.quantization.Int8Tensor": {
        "qdata": Inner(("int8",)),
        "scale": Inner(FLOATS),
        "zero_point": Inner(INTS, needed=False),
        "act_quant_scale": _OPTIONAL_SCALE,
        "act_quant_zero_point": Inner(INTS, needed=False),
        "act_pre_scale": _OPTIONAL_SCALE,
    },
    "torchao.quantization.IntxUnpackedToInt8Tensor": {
        "qdata": Inner(("int8",)),
        "scale": Inner(FLOATS),
        "zero_point": Inner((*INTS, *FLOATS)),
    },
    "torchao.quantization.Float8Tensor": {"qdata": Inner(FLOAT8S), "scale": Inner(SCALES)},
    "torchao.optim.subclass_8bit.OptimState8bit": {
        "codes": Inner(("uint8",)),
        "scale": Inner(FLOATS),
        "qmap": Inner(("float32",), count=256),
    },
    "torchao.optim.subclass_4bit.OptimState4bit": {
        "codes": Inner(("uint8",)),
        "scale": Inner(FLOATS),
        "qmap": Inner(("float32",), count=16),
    },
    "torchao.optim.subclass_fp8.OptimStateFp8": {
        "codes": Inner(("float8_e4m3fn",)),
        "scale": Inner(FLOATS),
    },
}
# What their contexts are made of, beside what any tree has: enums, and classes with named fields.
ENUMS = frozenset(
    {
        "torchao.quantization.quant_primitives.MappingType",
        "torchao.quantization.quantize_.common.kernel_preference.KernelPreference",
    }
)
RECORDS = frozenset(
    {
        "torchao.float8.inference.Float8MMConfig",
        "torchao.quantization.granularity.PerAxis",
        "torchao.quantization.granularity.PerBlock",
        "torchao.quantization.granularity.PerGroup",
        "torchao.quantization.granularity.PerRow",
        "torchao.quantization.granularity.PerTensor",
        "torchao.quantization.granularity.PerToken",
        "torchao.quantization.quantize_.workflows.float8.float8_tensor.QuantizeTensorToFloat8Kwargs",
        "torchao.quantization.quantize_.workflows.int8.int8_tensor.QuantizeTensorToInt8Kwargs",
    }
)


def name_of(kind: type) -> str:
    """Return the name that a class is listed under, if it is listed: module and qualified name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def find(name: str) -> Any:
    """Return the class of a name that is listed.

    Raises:
        MissingPackageError: Its package is not installed, or is a version without that class.
        ValueError: It is not listed; nothing was imported.
    """
    if name not in {*SUBCLASSES, *ENUMS, *RECORDS}:
        raise ValueError(f"{name!r:.80} is no class whose values are kept")
    place, _, last = name.rpartition(".")
    package = name.partition(".")[0]
    try:
        found = getattr(importlib.import_module(place), last)
    except (ImportError, AttributeError) as error:
        missing = package not in sys.modules
        why = "which is not installed" if missing else "and the one installed has no such class"
        raise MissingPackageError(
            f"the saved state has a {name} of {package}, {why} ({error}): "
            f"'pip install --upgrade {package}', or load other parts with checkpoint.state(part)"
        ) from error
    return found


def take_apart_value(value: object) -> tuple[str, str, dict[str, Any]] | None:
    """Return an enum's member or a record as a node's name, its class and what stands beside it.

    None where its class is not listed.
    """
    name = name_of(type(value))
    if name in ENUMS and isinstance(value, enum.Enum):
        return "$enum", name, {"member": value.name}
    if name not in RECORDS:
        return None
    if is_dataclass(value):
        return "$record", name, {each.name: getattr(value, each.name) for each in fields(value)}
    return "$record", name, dict(value._asdict())  # type: ignore[attr-defined] # the others are named tuples


def put_together_value(node: str, name: str, beside: Mapping[str, Any]) -> object:
    """Return what :func:`take_apart_value` took apart.

    Raises:
        ValueError: The class is not listed under that kind of node, or has no such member.
        TypeError: It has no such field.
        MissingPackageError: See :func:`find`.
    """
    if name not in (ENUMS if node == "$enum" else RECORDS):
        raise ValueError(f"{name!r:.80} is no class that a {node} may be of")
    kind = find(name)
    if node == "$record":
        return kind(**beside)
    return kind.__members__[beside["member"]]
