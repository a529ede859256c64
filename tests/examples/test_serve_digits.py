"""The best version, packaged and asked about images it has never seen."""

from __future__ import annotations

import re

import pytest

from ckptstore import Store
from examples import serve_digits, train_digits


@pytest.fixture
def trained(tmp_path, capsys):
    train_digits.main(["--store", str(tmp_path), "--epochs", "3"])
    capsys.readouterr()
    return tmp_path


def test_held_out_images_are_read_by_name(trained, capsys):
    serve_digits.main(["--store", str(trained)])

    printed = capsys.readouterr().out
    assert float(re.search(r"accuracy ([\d.]+)%", printed)[1]) > 90
    assert set(printed.splitlines()[-1].split()) <= set(serve_digits.CLASS_NAMES)


def test_serving_again_moves_the_tag_to_a_package_of_the_same_checkpoint(trained, capsys):
    for _ in range(2):
        serve_digits.main(["--store", str(trained)])

    first, second = Store(trained).history()[-2:]
    assert second.tags == ("prod",)
    assert first.tags == ()
    assert first.parent == second.parent == Store(trained).best().ref
    assert capsys.readouterr().err == ""
