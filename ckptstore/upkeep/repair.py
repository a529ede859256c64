"""What can safely be done about damage: writing it down, and making again what can be made again.

Nothing is removed or written over. What is lost stays lost, but no reader is misled by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from ckptstore.catalog.index import Catalog
from ckptstore.errors import CkptStoreError
from ckptstore.format.facts import Facts, VersionFacts
from ckptstore.format.journal import DamageEntry, Entry, Place, RetireEntry, decode_entry
from ckptstore.format.layout import JOURNAL_FILE, JOURNAL_FOLDER, RUNS_FOLDER, journal_key
from ckptstore.saving.journaling import Decide
from ckptstore.storage.base import Storage
from ckptstore.upkeep.findings import Finding

AppendTo = Callable[[str, Decide], object]
"""Appends what is decided to the journal of the run at a path."""

Outcome = str | CkptStoreError
"""What was done, or why it could not be."""

JOURNAL_PLACE = re.compile(rf"{RUNS_FOLDER}/(.+)/{JOURNAL_FOLDER}/{JOURNAL_FILE.pattern}")

WRITTEN = "written again from the catalog, byte for byte"
KEPT = (
    "it is not indexed anew while a journal entry is lost, as it may have the only good copy of it"
)


@dataclass(frozen=True)
class Case:
    """A finding, and what the journal should say on account of it."""

    finding: Finding
    path: str | None = None
    """The run whose journal should say so."""
    decide: Decide | None = None
    """None where the journal has nothing to say about it."""
    outcome: str = ""
    """What is done, once it is."""


def retire(number: int, damage: str) -> Decide:
    """Return the decision that a version be retired because its manifest can't be read."""

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        if facts.versions.get(number, VersionFacts()).retired:
            return None
        return RetireEntry({number: f"damaged: {damage}"}, time, writer)

    return decide


def mark(number: int, damage: str | None) -> Decide:
    """Return the decision that a version's data are damaged, or whole again where that is None."""

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        known = facts.versions.get(number)
        if known is not None and known.damage == damage:
            return None
        return DamageEntry(number, damage, time, writer)

    return decide


def repair(
    storage: Storage, catalog: Catalog, append: AppendTo, cases: Sequence[Case]
) -> list[Finding]:
    """Do what is safe about each case.

    Missing journal entries come first, then the index, so that the journals can be read by whoever
    appends to them.

    Returns:
        The findings, with what was done about them or why it could not be done.
    """
    findings = _restored(storage, catalog, [case.finding for case in cases])
    findings = _reindexed(catalog, findings)
    outcomes: dict[Decide, Outcome] = {}
    for place, case in enumerate(cases):
        if case.path is None or case.decide is None:
            continue
        if case.decide not in outcomes:
            # One entry for all that was found about one version.
            outcomes[case.decide] = _appended(append, case.path, case.decide, case.outcome)
        findings[place] = _with(case.finding, outcomes[case.decide])
    return findings


def _appended(append: AppendTo, path: str, decide: Decide, outcome: str) -> Outcome:
    try:
        append(path, decide)
    except CkptStoreError as error:
        return error
    return outcome


def _restored(storage: Storage, catalog: Catalog, findings: Sequence[Finding]) -> list[Finding]:
    """Write missing journal entries again where the catalog has them, in order.

    After one that could not be written none of its run is: it would follow on another one than it
    was written after.
    """
    given_up: set[str] = set()
    outcomes = []
    for finding in findings:
        place = _journal_place(finding)
        if finding.kind != "hole" or place is None or place.path in given_up:
            outcomes.append(finding)
            continue
        try:
            outcome = _written_again(storage, catalog, place)
        except CkptStoreError as error:
            outcome = error
        if outcome != WRITTEN:
            given_up.add(place.path)
        outcomes.append(finding if outcome is None else _with(finding, outcome))
    return outcomes


def _written_again(storage: Storage, catalog: Catalog, place: Place) -> Outcome | None:
    """Write a missing journal entry byte for byte; None where the catalog has none.

    If somebody brought it back in the meantime, or wrote another one, that one stays.
    """
    row = catalog.rows(place.path).get("journal", {}).get((place.number,))
    if row is None or row["entry"] is None:
        return None
    data, key = row["entry"].encode(), journal_key(*place)
    decode_entry(data, f"the catalog's copy of {key}", place)
    try:
        storage.create(key, data)
    except FileExistsError:
        return WRITTEN if storage.read(key) == data else "somebody wrote another entry meanwhile"
    return WRITTEN


def _reindexed(catalog: Catalog, findings: list[Finding]) -> list[Finding]:
    """Index the runs anew whose catalog differs, and whose journals have lost nothing.

    Of a lost journal entry the catalog may have the only good copy.
    """
    lost = {
        place.path
        for finding in findings
        if finding.severity == "damage" and finding.repaired is None
        if (place := _journal_place(finding)) is not None
    }
    outcomes: list[Finding] = []
    for finding in findings:
        path = finding.ref
        if (finding.kind, finding.severity) != ("catalog", "damage") or path is None:
            outcomes.append(finding)
        elif path in lost:
            outcomes.append(replace(finding, message=f"{finding.message}; {KEPT}"))
        else:
            outcome: Outcome = "indexed anew from the storage"
            try:
                catalog.reindex([path])
            except CkptStoreError as error:
                outcome = error
            outcomes.append(_with(finding, outcome))
    return outcomes


def _journal_place(finding: Finding) -> Place | None:
    match = JOURNAL_PLACE.fullmatch(finding.key or "")
    return None if match is None else Place(match[1], int(match[2]))


def _with(finding: Finding, outcome: Outcome) -> Finding:
    if isinstance(outcome, str):
        return replace(finding, repaired=outcome)
    return replace(finding, message=f"{finding.message}; could not be repaired: {outcome}")
