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
from ckptstore.format.journal import DamageEntry, Entry, RetireEntry, decode_entry
from ckptstore.format.layout import JOURNAL_FILE, JOURNAL_FOLDER, RUNS_FOLDER
from ckptstore.saving.journaling import Decide
from ckptstore.storage.base import Storage
from ckptstore.upkeep.findings import Finding

AppendTo = Callable[[str, Decide], object]
"""Appends what is decided to the journal of the run at a path."""

Outcome = str | CkptStoreError
"""What was done, or why it could not be."""

JOURNAL_PLACE = re.compile(rf"{RUNS_FOLDER}/(.+)/{JOURNAL_FOLDER}/{JOURNAL_FILE.pattern}")


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
    findings = [_restored(storage, catalog, case.finding) for case in cases]
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


def _restored(storage: Storage, catalog: Catalog, finding: Finding) -> Finding:
    """Write a missing journal entry again where the catalog has it, byte for byte.

    Later entries are there, so nobody else takes its number; and if somebody brought it back in the
    meantime, that one stays.
    """
    match = JOURNAL_PLACE.fullmatch(finding.key or "")
    if finding.kind != "hole" or match is None or finding.key is None:
        return finding
    try:
        row = catalog.rows(match[1]).get("journal", {}).get((int(match[2]),))
        if row is None or row["entry"] is None:
            return finding
        data = row["entry"].encode()
        decode_entry(data, f"the catalog's copy of {finding.key}")
        storage.create(finding.key, data)
    except FileExistsError:
        return _with(finding, "somebody else brought it back meanwhile")
    except CkptStoreError as error:
        return _with(finding, error)
    return _with(finding, "written again from the catalog, byte for byte")


def _reindexed(catalog: Catalog, findings: list[Finding]) -> list[Finding]:
    wrong = ("catalog", "damage")
    if not any((finding.kind, finding.severity) == wrong for finding in findings):
        return findings
    outcome: Outcome = "indexed anew from the storage"
    try:
        catalog.reindex()
    except CkptStoreError as error:
        outcome = error
    return [
        _with(finding, outcome) if (finding.kind, finding.severity) == wrong else finding
        for finding in findings
    ]


def _with(finding: Finding, outcome: Outcome) -> Finding:
    if isinstance(outcome, str):
        return replace(finding, repaired=outcome)
    return replace(finding, message=f"{finding.message}; could not be repaired: {outcome}")
