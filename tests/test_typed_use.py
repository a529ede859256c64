"""The typed file is true at run time as well, and leaves no public verb out."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptstore
from ckptstore.entry import Entry
from tests import typed_use

SOURCE = Path(typed_use.__file__).read_text()


def test_typed_use_runs(tmp_path):
    typed_use.use(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        Entry,
        ckptstore.Checkpoint,
        ckptstore.Guard,
        ckptstore.History,
        ckptstore.Package,
        ckptstore.Resumed,
        ckptstore.Run,
        ckptstore.Store,
    ],
)
def test_every_public_verb_is_used(kind):
    ours = [each for each in kind.__mro__ if each.__module__.startswith("ckptstore.")]
    verbs = {name for each in ours for name in vars(each) if not name.startswith("_")}
    assert {verb for verb in verbs if f".{verb}" not in SOURCE} == set()


def test_every_public_name_is_used():
    assert {name for name in ckptstore.__all__ if name not in SOURCE} == set()
