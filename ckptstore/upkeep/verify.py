"""A check of a store: its structure, every digest, what belongs to nobody, and the catalog.

Everything is read from the storage; nothing there is changed unless it is asked for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.lookup import Lookup
from ckptstore.catalog.stores import store_facts
from ckptstore.catalog.sync import walk
from ckptstore.errors import (
    CatalogError,
    IntegrityError,
    RunNotFoundError,
    StorageError,
    VersionNotFoundError,
)
from ckptstore.format.layout import (
    STORE_KEY,
    STORE_KEY_NEWER,
    Ref,
    file_key,
    glob_regex,
    is_glob,
    pack_key,
    parse_ref,
    run_path,
    version_key,
)
from ckptstore.format.store_facts import StoreFacts
from ckptstore.manifest import OpenManifest
from ckptstore.storage.base import Storage
from ckptstore.upkeep.comparison import compare, copy_of
from ckptstore.upkeep.contents import Contents
from ckptstore.upkeep.findings import Finding, Report
from ckptstore.upkeep.progress import Progress
from ckptstore.upkeep.repair import (
    JOURNAL_PLACE,
    AppendTo,
    Case,
    mark,
    repair,
    retire,
)
from ckptstore.upkeep.run_places import run_paths
from ckptstore.upkeep.strays import data_objects, note_leftovers, note_orphans
from ckptstore.upkeep.survey import Survey, Surveyed, Surveyor

ADVICE = {
    "hole": "This machine's catalog has it: verify(repair=True) writes it again; don't reindex "
    "before, as that may forget it",
    "journal": "This machine's catalog has it as it was: delete the damaged file and run "
    "verify(repair=True) again; don't reindex before, as that may forget it",
}
"""What to do about a lost journal entry that the catalog still has."""


def verify(
    storage: Storage,
    catalog: Catalog,
    *,
    ref: str | int | None = None,
    deep: bool = True,
    append: AppendTo | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a store, or some of it.

    Args:
        storage: Where the store is.
        catalog: Its catalog; it is compared with the storage, and not synced.
        ref: A version (``digits@7``), a run (``digits``, all its versions) or a glob over runs;
            None for the whole store, with what belongs to no version.
        deep: Read every byte of the data; else structure, sizes and headers alone.
        append: Repair what can safely be repaired, and append to journals by this; None changes
            nothing.
        progress: Told of bytes read, bytes in all, and what is being read.

    Returns:
        All that was found.

    Raises:
        NotFoundError: There is no store, or nothing that *ref* names.
        InvalidNameError: *ref* is no name.
        NewerFormatError: A newer ckptstore made the store.
        StorageError: The storage failed, and not just where one file lies.
    """
    check = _Check(storage, catalog, deep=deep, progress=progress)
    paths, only = check.scope(ref)
    surveys = [check.surveyor.run(path, only) for path in paths]
    if only is not None and not any(only <= survey.last for survey in surveys):
        last = max(survey.last for survey in surveys)
        raise VersionNotFoundError(
            f"{storage.url}: {paths[0]!r} has no version {only}; the newest is {last or 'none'}"
        )
    contents = check.contents(surveys, is_whole=ref is None)
    check.remembered()
    if only is None:
        check.catalog(surveys, is_whole=ref is None)
    cases = sorted(check.cases, key=_order)
    findings = (
        [case.finding for case in cases]
        if append is None
        else repair(storage, catalog, append, cases)
    )
    return Report(
        url=storage.url,
        deep=deep,
        findings=tuple(findings),
        runs=len(surveys),
        versions=sum(len(survey.versions) + len(survey.unreadable) for survey in surveys),
        journal_entries=sum(len(survey.journal) for survey in surveys),
        packs=contents.counts.packs,
        bytes_read=contents.counts.bytes_read,
    )


class _Check:
    """One check, and what it has found so far."""

    def __init__(
        self, storage: Storage, catalog: Catalog, *, deep: bool, progress: Progress | None
    ) -> None:
        self.cases: list[Case] = []
        self._storage = storage
        self._catalog = catalog
        self._deep = deep
        self._progress = progress
        self._store = self._store_facts()
        in_place = self._store is not None and self._store.in_place
        if self._store is not None and storage.read_many([STORE_KEY_NEWER], 1) != [None]:
            message = (
                f"is there beside {STORE_KEY}: a newer ckptstore uses this store, and there may be "
                "more than this one can see; upgrade to check it all"
            )
            self._note(Finding("newer", "note", None, STORE_KEY_NEWER, message))
        self.surveyor = Surveyor(storage, in_place=in_place, note=self._note)

    def scope(self, ref: str | int | None) -> tuple[list[str], int | None]:
        """Return the paths of the runs that are meant, and the number of the one version."""
        if ref is None:
            return run_paths(self._storage, self._note), None
        present = walk(self._storage)
        runs = f"runs: {', '.join(present) or 'none'}"
        if isinstance(ref, str) and is_glob(ref):
            pattern = glob_regex(ref)
            if found := [path for path in present if pattern.fullmatch(path)]:
                return found, None
            raise RunNotFoundError(f"{self._storage.url} has no run that {ref!r} matches; {runs}")
        run, selector = parse_ref(ref)
        if run is None and len(present) != 1:
            raise RunNotFoundError(
                f"{self._storage.url}: {ref!r} names no run; write 'RUN@…'; {runs}"
            )
        path = present[0] if run is None else run_path(run)
        if path not in present:
            raise RunNotFoundError(f"{self._storage.url} has no run {run!r}; {runs}")
        if ref == run:
            return [path], None
        if isinstance(selector, int):
            return [path], selector
        return [path], Lookup(self._catalog, self._storage.url).by_ref(Ref(path, selector)).version

    def contents(self, surveys: Sequence[Survey], *, is_whole: bool) -> Contents:
        """Check what versions name, and note what none of them does."""
        versions = [each for survey in surveys for each in survey.versions.values()]
        objects = data_objects(self._storage, self._note) if is_whole else {}
        sizes = {key: stored.size_bytes for key, stored in objects.items()} if is_whole else None
        contents = Contents(self._storage, sizes, deep=self._deep, progress=self._progress)
        contents.check(versions, self._manifests(surveys))
        for finding in contents.notes:
            self._note(finding)
        for survey in surveys:
            self._judge(survey, contents)
        if is_whole:
            named = {pack_key(pack.save_id, pack.number) for v in versions for pack in v.packs}
            named |= {file_key(file.save_id, file.number) for v in versions for file in v.files}
            perhaps = {
                f"{survey.name}@{number}": what
                for survey in surveys
                for number, what in sorted(survey.unknown.items())
            }
            note_orphans(objects.values(), named, self._note, perhaps)
            note_leftovers(self._storage, self._note)
        return contents

    def catalog(self, surveys: Sequence[Survey], *, is_whole: bool) -> None:
        """Compare the catalog with the storage, run by run."""
        if self._store is None:
            return
        there = {survey.path: survey for survey in surveys}
        try:
            indexed = [] if not is_whole else self._catalog.indexed()
            for path in sorted({*there, *indexed}):
                try:
                    survey = there.get(path, Survey(path, path))
                    found = compare(
                        self._storage, self._catalog, path, {*survey.unknown, *survey.void}
                    )
                except CatalogError:
                    raise
                except IntegrityError:
                    continue  # the run's journal is damaged, which is a finding already
                except StorageError as error:
                    if error.errno != errno.EIO:
                        raise
                    # A file lies on a bad sector, which is a finding already.
                    message = f"could not be compared: {error}"
                    found = [Finding("catalog", "note", path, None, message)]
                for finding in found:
                    self._note(finding)
        except CatalogError as error:
            # Locked, down, not ours to write: nobody is misled, as readers go to the storage then.
            self._note(Finding("catalog", "note", None, None, f"could not be compared: {error}"))

    def remembered(self) -> None:
        """Say of lost journal entries whether this machine's catalog still has them."""
        try:
            for place, case in enumerate(self.cases):
                match = JOURNAL_PLACE.fullmatch(case.finding.key or "")
                if match and case.finding.severity == "damage" and case.finding.kind in ADVICE:
                    path, number = match[1], int(match[2])
                    if copy_of(self._catalog.rows(path), path, number) is not None:
                        message = f"{case.finding.message}. {ADVICE[case.finding.kind]}"
                        self.cases[place] = replace(
                            case, finding=replace(case.finding, message=message)
                        )
        except CatalogError:
            pass  # locked, down, not ours to write: the comparison says so

    def _manifests(self, surveys: Sequence[Survey]) -> Iterator[tuple[Surveyed, OpenManifest]]:
        for survey in surveys:
            for number, opened in self.surveyor.opened(survey.path, sorted(survey.versions)):
                if isinstance(opened, OpenManifest):
                    yield survey.versions[number], opened

    def _judge(self, survey: Survey, contents: Contents) -> None:
        """Say what damage means for a run's versions, and what the journal should say of it."""
        gone = {number for path, number in contents.damages.gone if path == survey.path}
        if gone - {number for number in survey.versions if survey.is_retired(number)}:
            # Retired and collected since the journal was read, perhaps.
            survey.facts = self.surveyor.facts(survey.path)
        for number, damage in survey.unreadable.items():
            # A whole manifest in another's place is not lost: somebody has to put it back.
            if not survey.is_retired(number) and number not in survey.misplaced:
                self._retire(survey, number, damage)
        for number, version in survey.versions.items():
            found = contents.damages.found.get((survey.path, number), [])
            if survey.is_retired(number):
                self._judge_retired(found, is_gone=number in gone)
            else:
                self._judge_live(survey, version, found)

    def _judge_live(self, survey: Survey, version: Surveyed, found: Sequence[Finding]) -> None:
        """Let damage be recorded, and that it is gone."""
        known, number = survey.of(version.number).damage, version.number
        if found:
            # This process picks it no more, whether or not that can be written down for all.
            self._catalog.pass_over(version.save_id)
        if found and known is not None:
            for finding in found:
                message = f"{finding.message}; it is recorded as damaged already"
                self._note(replace(finding, message=message))
        elif found:
            decide = mark(number, found[0].message)
            outcome = "recorded as damaged, so that nobody takes it for the best or the latest"
            self.cases += [Case(each, survey.path, decide, outcome) for each in found]
        elif known is not None and self._deep:
            message = f"was recorded as damaged ({known}), and is whole"
            key = version_key(survey.path, number)
            mended = Finding("mended", "note", version.ref, key, message)
            outcome = "recorded as whole again"
            self.cases.append(Case(mended, survey.path, mark(number, None), outcome))

    def _judge_retired(self, found: Sequence[Finding], *, is_gone: bool) -> None:
        """Note what is wrong with a retired version, unless it is being collected or was."""
        if not is_gone:
            for finding in found:
                message = f"{finding.message}; the version is retired"
                self._note(replace(finding, severity="note", message=message))

    def _retire(self, survey: Survey, number: int, damage: str) -> None:
        """Let a version whose manifest can't be read be retired, so that collection goes on."""
        key = version_key(survey.path, number)
        for place, case in enumerate(self.cases):
            if (case.finding.kind, case.finding.key) == ("manifest", key):
                if self._can_be_read(survey.path, number):
                    message = (
                        f"{damage}; a moment later it could be read, so nothing is retired: look "
                        "after the disk or the network, and check again"
                    )
                    self.cases[place] = Case(replace(case.finding, message=message))
                    continue
                outcome = (
                    "retired, so that collection goes on after a grace period. Until half of it is "
                    "over, bring that file back from a copy if you have one, and undelete the "
                    "version"
                )
                decide = retire(number, damage)
                self.cases[place] = Case(case.finding, survey.path, decide, outcome)

    def _can_be_read(self, path: str, number: int) -> bool:
        """Say whether a manifest that could not be read can be read now."""
        return any(
            isinstance(each, OpenManifest) for _, each in self.surveyor.opened(path, [number])
        )

    def _note(self, finding: Finding) -> None:
        self.cases.append(Case(finding))

    def _store_facts(self) -> StoreFacts | None:
        try:
            return store_facts(self._storage)
        except IntegrityError as error:
            message = (
                f"{error}. Nobody can write to the store or index it: bring that file back from "
                "a copy"
            )
        self._note(Finding("store", "damage", None, STORE_KEY, message))
        return None


def _order(case: Case) -> tuple[bool, str, int, str, str]:
    finding = case.finding
    run, _, number = (finding.ref or "~").partition("@")
    return (
        finding.severity != "damage",
        run,
        int(number) if number else 0,
        finding.kind,
        finding.key or "",
    )
