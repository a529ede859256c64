"""The names that a pickle may use and still be read: what tensors and plain values are made of.

Everything here makes a value out of other values and does nothing else. torch's own reader has a
list like it; this one is ours, so that a refusal can name all that a file needs beyond it, and a
file is refused before torch sees it.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import types
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ckptstore.format.tree import FACTORIES
from ckptstore.importing.inert import Name

STORAGES = (
    "Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double",
    "ComplexFloat", "ComplexDouble", "QInt8", "QInt32", "QUInt8", "QUInt4x2", "QUInt2x4",
)  # fmt: skip
DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16",
    "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    "qint8", "qint32", "quint8", "quint4x2", "quint2x4", "bits8", "bits16",
    "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)  # fmt: skip
REBUILDS = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor",
    "_rebuild_qtensor",
)  # fmt: skip
TORCHS_OWN = frozenset(
    {
        "_codecs.encode",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
        "torch._tensor._rebuild_from_type_v2",
        *(f"builtins.{name}" for name in ("bytearray", "complex", "set")),
        *(f"torch.{name}" for name in DTYPES),
        *(f"torch.{name}Storage" for name in STORAGES),
        *(f"torch.{name}Tensor" for name in STORAGES),
        *(f"torch._utils.{name}" for name in REBUILDS),
    }
)  # fmt: skip
"""What torch's restricted reader takes by itself, as far as it is harmless."""

NUMPYS_DTYPES = (
    "BoolDType", "Int8DType", "Int16DType", "Int32DType", "Int64DType", "UInt8DType",
    "UInt16DType", "UInt32DType", "UInt64DType", "Float16DType", "Float32DType", "Float64DType",
    "Complex64DType", "Complex128DType", "StrDType", "BytesDType",
)  # fmt: skip


class Factory(NamedTuple):
    """What a defaultdict makes. Nothing that could be called: ``bytes`` would take any memory."""

    kind: Callable[[], Any]


FACTORY = "_ckptstore_factory"
"""The attribute of an OrderedDict that stands for a defaultdict."""
# What they were called by Python 2, whose names torch.save still writes.
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def added() -> list[tuple[Callable[..., Any], str]]:
    """Return what torch's restricted reader is to take beside its own, with the names for it."""
    # What NumPy's pickles call, wherever this NumPy keeps it.
    calls = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float32(0).__reduce__()[0]}
    # The state of a dtype may hold a mapping of metadata, which is plain data; items that are
    # Python objects are refused by NumPy, as their bytes are none.
    return [
        (argparse.Namespace, "argparse.Namespace"),
        (types.SimpleNamespace, "types.SimpleNamespace"),
        (_defaultdict, "collections.defaultdict"),
        (frozenset, "builtins.frozenset"),
        *(
            (Factory(kind), f"builtins.{kind.__name__}")
            for kind in FACTORIES.values()
            if kind is not set
        ),
        *(
            (pathlib.PurePosixPath, f"{module}.{name}")
            for module in ("pathlib", "pathlib._local")
            for name in ("PosixPath", "PurePosixPath")
        ),
        *(
            (pathlib.PureWindowsPath, f"{module}.{name}")
            for module in ("pathlib", "pathlib._local")
            for name in ("WindowsPath", "PureWindowsPath")
        ),
        *(
            (call, f"numpy.{package}.multiarray.{name}")
            for package in ("core", "_core")
            for name, call in calls.items()
        ),
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        *((getattr(np.dtypes, name), f"numpy.dtypes.{name}") for name in NUMPYS_DTYPES),
    ]


def _defaultdict(factory: object = None) -> collections.OrderedDict[Any, Any]:
    """Return what torch's reader fills, as it fills no defaultdict; ``to_plain`` makes it one."""
    made: collections.OrderedDict[Any, Any] = collections.OrderedDict()
    vars(made)[FACTORY] = factory.kind if isinstance(factory, Factory) else None
    return made


def unknown(names: Iterable[Name]) -> list[str]:
    """Return those of the names that are on neither list, sorted."""
    known = TORCHS_OWN | {name for _, name in added()}
    spelled = {f"{RENAMED.get(module, module)}.{name}" for module, name in names}
    return sorted(spelled - known)
