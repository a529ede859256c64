from __future__ import annotations

import pytest

from ckptstore import Store
from tests.cli.test_collect import filled, without_grace


@pytest.fixture
def folder(tmp_path):
    return filled(tmp_path / "store")


def test_a_retired_version_is_live_again(typed, folder):
    done = typed("undelete", folder, "digits@1")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "digits@1 is live.\n", "")
    with Store(folder) as store:
        assert store.get("digits@1").retired is None
        assert store.get("digits@1").extra == [0]


def test_a_live_one_is_left_as_it_is(typed, folder):
    assert typed("undelete", folder, "@2").stdout == "digits@2 is live.\n"


def test_too_late_is_said_with_until_when_it_was_possible(typed, folder):
    without_grace(folder)
    done = typed("undelete", folder, "digits@1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "digits@1 was retired" in done.stderr
    assert "until 20" in done.stderr


def test_no_such_version_is_said(typed, folder):
    done = typed("undelete", folder, "digits@9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no version 9" in done.stderr
