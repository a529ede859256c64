"""The words in which reading is asked for are those that reading knows."""

from __future__ import annotations

import inspect

from ckptstore.loading import lazy
from ckptstore.loading.load import load_module
from ckptstore.reading import LazyTensor, LoadOptions


def test_the_options_of_load_are_those_it_takes():
    taken = inspect.signature(load_module).parameters.values()

    assert set(LoadOptions.__annotations__) == {
        each.name for each in taken if each.kind is each.KEYWORD_ONLY
    }


def test_a_lazy_tensor_has_all_that_is_said_of_it():
    promised = {name for name in vars(LazyTensor) if not name.startswith("_")}

    assert promised == {"shape", "dtype", "was", "read"}
    assert all(hasattr(lazy.LazyTensor, name) for name in (*promised, "__len__", "__getitem__"))
