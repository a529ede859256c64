"""What was restored last is what a run that begins comes from."""

from __future__ import annotations

from uuid import UUID, uuid4

from ckptstore.format.manifest import Parent
from ckptstore.saving.lineage import Lineage
from ckptstore.saving.run_writer import RunWriter
from tests.catalog.places import DictStorage

BASE = Parent("base", 3, UUID(int=1))


def writer(run, lineage):
    return RunWriter(DictStorage(), None, run, lineage, single_writer=False)


def test_it_begins_with_nothing():
    lineage = Lineage()
    assert lineage.restored is None
    assert writer("new", lineage).resumed_from == set()


def test_runs_of_one_store_share_it_until_they_have_a_past_of_their_own():
    lineage = Lineage()
    writer("base", lineage).resumed(BASE)
    fine = writer("fine", lineage)

    assert fine.parent == BASE

    own = Parent("fine", 1, UUID(int=2))
    fine.resumed(own)
    assert (fine.parent, writer("other", Lineage()).parent) == (own, None)


def test_what_was_resumed_is_known_to_every_store_of_the_process():
    run = f"{uuid4()}"
    writer(run, Lineage()).resumed(Parent(run, 3, UUID(int=1)))
    assert writer(run.upper(), Lineage()).resumed_from == {UUID(int=1)}
    assert writer("other", Lineage()).resumed_from == set()
    elsewhere = RunWriter(
        DictStorage("bucket://elsewhere"), None, run, Lineage(), single_writer=False
    )
    assert elsewhere.resumed_from == set()


def test_another_process_can_be_played():
    run = f"{uuid4()}"
    writer(run, Lineage()).resumed(Parent(run, 3, UUID(int=1)))
    assert writer(run, Lineage(resumed={})).resumed_from == set()
