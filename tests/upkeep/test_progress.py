"""Long work tells whoever wants to know, and all of it in the same way."""

from __future__ import annotations

import inspect
import typing

import pytest

from ckptstore import Store
from ckptstore.upkeep.progress import Progress, say_nothing


def test_nobody_is_told_anything(capsys):
    say_nothing(1, None, "reading")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verb", ["collect", "copy_to", "verify"])
def test_every_verb_that_takes_long_tells_of_it_in_the_same_way(verb):
    annotation = inspect.signature(getattr(Store, verb)).parameters["progress"].annotation
    assert annotation == "Progress | None"
    assert typing.get_args(Progress)[0] == [int, int | None, str]
