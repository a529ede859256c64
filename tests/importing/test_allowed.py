from __future__ import annotations

import torch

from ckptstore.importing.allowed import ALLOWED, unknown
from ckptstore.importing.inert import Name

HARMFUL = ("system", "eval", "exec", "getattr", "open", "import", "load", "apply", "partial", "run")


def test_nothing_on_the_lists_runs_anything():
    modules = {name.rpartition(".")[0] for name in ALLOWED}
    assert modules == {
        "_codecs", "argparse", "builtins", "collections", "numpy", "numpy._core.multiarray",
        "numpy.core.multiarray", "pathlib", "pathlib._local", "torch",
        "torch._tensor", "torch._utils", "torch.nn.parameter", "torch.serialization",
        "torch.storage", "types",
    }  # fmt: skip
    last = {name.rpartition(".")[2] for name in ALLOWED}
    assert not last & set(HARMFUL)


def test_whatever_torch_has_a_dtype_or_a_storage_for_is_known():
    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    small = ("int", "uint", "bits")  # of fewer than eight bits: no tensor has them
    names = [Name("torch", str(each).removeprefix("torch.")) for each in dtypes]
    missing = unknown(names)
    assert [name for name in missing if not name.removeprefix("torch.").startswith(small)] == []


def test_names_are_compared_as_python_3_spells_them():
    assert unknown([Name("__builtin__", "set"), Name("builtins", "set")]) == []
    assert unknown([Name("__builtin__", "eval"), Name("os", "system")]) == [
        "builtins.eval",
        "os.system",
    ]
