"""What was restored last is what a run that begins comes from."""

from __future__ import annotations

from uuid import UUID

from ckptstore.format.manifest import Parent
from ckptstore.saving.lineage import Lineage
from ckptstore.saving.run_writer import RunWriter
from tests.catalog.places import DictStorage

BASE = Parent("base", 3, UUID(int=1))


def writer(run, lineage):
    return RunWriter(DictStorage(), None, run, lineage, single_writer=False)


def test_it_begins_with_nothing():
    assert Lineage().restored is None


def test_runs_of_one_store_share_it_until_they_have_a_past_of_their_own():
    lineage = Lineage()
    writer("base", lineage).resumed(BASE)
    fine = writer("fine", lineage)

    assert fine.parent == BASE

    own = Parent("fine", 1, UUID(int=2))
    fine.resumed(own)
    assert (fine.parent, writer("other", Lineage()).parent) == (own, None)
