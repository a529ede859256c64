"""Several processes write to one store: nothing is lost, and all agree on what happened.

Elsewhere: eight processes on one run and one catalog (``tests/saving/test_run_writer.py``), storage
that keeps no two writers apart (``tests/saving/test_founding.py``), threads and forks
(``tests/test_store_processes.py``).
"""

from __future__ import annotations

import pytest

from tests.prove.writers.processes import Site
from tests.prove.writers.scenarios import one_run, tags, training


@pytest.fixture(params=["folder", "s3"])
def site(request, tmp_path):
    if request.param == "folder":
        return Site(str(tmp_path / "store"), tmp_path)
    url = request.getfixturevalue("s3_url")
    return Site(url, tmp_path, request.getfixturevalue("storage_options"))


def test_eight_processes_with_catalogs_of_their_own_found_a_store_and_fill_one_run(site):
    figures = one_run(site, processes=8, count=2)

    assert figures.versions == 16


def test_a_training_an_evaluator_and_a_janitor_do_each_other_no_harm(tmp_path):
    figures = training(Site(str(tmp_path / "store"), tmp_path), count=12)

    assert figures.versions + figures.late >= 12


def test_two_processes_that_move_a_tag_leave_one_order_for_all_and_in_every_copy(tmp_path):
    site = Site(str(tmp_path / "store"), tmp_path)

    figures = tags(site, moves=6, copy=tmp_path / "copy")

    assert figures.entries >= 6
