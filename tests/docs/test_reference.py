"""The pages of reference say what the program's own docstrings say."""

from __future__ import annotations

import pytest

import ckptstore
from tests.docs import make_api_reference as made


def test_page_of_the_interface_is_up_to_date():
    assert made.API.read_text() == made.api(), "run python -m tests.docs.make_api_reference"


def test_page_of_errors_is_up_to_date():
    assert made.ERRORS.read_text() == made.error_page(), (
        "run python -m tests.docs.make_api_reference"
    )


@pytest.mark.parametrize("name", ckptstore.__all__)
def test_every_public_name_is_described(name):
    page = made.ERRORS if name in ("errors", "CkptStoreError") else made.API
    title = "Errors and warnings" if name == "errors" else name
    assert any(
        line.lstrip("# ") == title for line in page.read_text().splitlines() if line.startswith("#")
    )


@pytest.mark.parametrize("subject", made.SUBJECTS.values())
def test_every_public_member_says_what_it_does(subject):
    silent = [
        name
        for name, member in vars(subject).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
        if not (member.__doc__ or "").strip()
    ]
    assert silent == []
