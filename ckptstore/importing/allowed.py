"""The names that a pickle may use and still be read: what tensors and plain values are made of.

Everything here makes a value out of other values and does nothing else. None of it is called as the
file says: :mod:`ckptstore.importing.building` checks what each is given and makes the value itself.
"""

from __future__ import annotations

from collections.abc import Iterable

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
"""What tensors are made of, as torch.save writes them."""

FACTORIES_OF = tuple(kind.__name__ for kind in FACTORIES.values())
OTHERS = frozenset(
    {
        "argparse.Namespace",
        "types.SimpleNamespace",
        "collections.defaultdict",
        "builtins.frozenset",
        "numpy.ndarray",
        "numpy.dtype",
        *(f"builtins.{name}" for name in FACTORIES_OF),
        *(
            f"{module}.{name}"
            for module in ("pathlib", "pathlib._local")
            for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
        ),
        *(
            f"numpy.{package}.multiarray.{name}"
            for package in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
    }
)
"""What else checkpoints hold that is plain: namespaces, paths, arrays and numbers of NumPy."""
ALLOWED = TORCHS_OWN | OTHERS
# What they were called by Python 2, whose names torch.save still writes.
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def spelled(name: Name) -> str:
    """Return a name as Python 3 spells it."""
    return f"{RENAMED.get(name.module, name.module)}.{name.name}"


def unknown(names: Iterable[Name]) -> list[str]:
    """Return those of the names that are not on the list, sorted."""
    return sorted({spelled(name) for name in names} - ALLOWED)
