"""From what a user names (a run, a glob, a ref, a metric) to the versions that are meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.ranking import Damaged
from ckptstore.entry import Record
from ckptstore.errors import (
    ArgumentError,
    FallbackWarning,
    IntegrityError,
    JournalDamagedError,
    MetricNotFoundError,
    NotAStoreError,
    NotFoundError,
    RunNotFoundError,
    VersionNotFoundError,
    warn,
)
from ckptstore.format.facts import Mode, Settings
from ckptstore.format.layout import Ref, glob_regex, is_glob, parse_ref, run_path
from ckptstore.format.manifest import Head


class Lookup:
    """Finds versions in a store's catalog, each run synced with the storage first.

    Args:
        catalog: The store's catalog.
        where: The store's address, for messages.
    """

    def __init__(self, catalog: Catalog, where: str) -> None:
        self._catalog = catalog
        self._where = where

    def paths(self, run: str | None) -> list[str]:
        """Return the paths of the runs that are meant.

        Args:
            run: A run, a glob (``sweep/*``; ``*`` doesn't cross ``/``), or None: the only one.

        Raises:
            RunNotFoundError: There is none, or there are several and none was named.
            NotAStoreError: There is no store.
            JournalDamagedError: What was recorded later of one of them is unknown.
        """
        found = self._found(run)
        for path in found:
            self._catalog.vouch(path)
        return found

    def salvageable_paths(self, run: str | None) -> list[str]:
        """Return the paths of the runs that are meant, with a warning of each damaged journal."""
        return self._salvaged(self._found(run))

    def _salvaged(self, paths: list[str]) -> list[str]:
        for path in paths:
            if self._catalog.broken(path) is None:
                with suppress(JournalDamagedError):  # the catalog knows
                    self._catalog.vouch(path)
            self._warn_of_broken(path)
        return paths

    def _found(self, run: str | None) -> list[str]:
        """Return the paths of the runs that are meant, whatever their journals are like."""
        if run is not None and not is_glob(run):
            path = run_path(run)
            with suppress(JournalDamagedError):  # the catalog knows
                self._catalog.sync(path)
            if self._catalog.next_numbers(path) == (1, 1):
                raise RunNotFoundError(
                    f"{self._where} has no run {run!r}; {self._listed(self._catalog.discover())}"
                )
            return [path]
        present = self._catalog.discover()
        if run is not None:
            pattern = glob_regex(run)
            found = [path for path in present if pattern.fullmatch(path)]
            if not found:
                raise RunNotFoundError(
                    f"{self._where} has no run that {run!r} matches; {self._listed(present)}"
                )
            return found
        if len(present) != 1:
            raise RunNotFoundError(
                f"{self._where} has several runs: name one, as run=… or in a ref such as "
                f"'{self._names(present)[0]}@latest'; {self._listed(present)}"
                if present
                else f"{self._where} has no runs yet"
            )
        return present

    def every_path(self, run: str | None) -> list[str]:
        """Return the paths that a history is about: as :meth:`paths`, but None means all runs.

        Among all runs one with a damaged journal is no error, but warned of.
        """
        return self._salvaged(self._catalog.discover()) if run is None else self.paths(run)

    def one_path(self, run: str | None) -> str:
        """Return the path of the one run that is meant.

        Raises:
            RunNotFoundError: As :meth:`paths`, or a glob matches several.
        """
        return self._one(self.paths(run), run)

    def _one(self, paths: Sequence[str], run: str | None) -> str:
        if len(paths) != 1:
            names = ", ".join(map(repr, self._names(paths)))
            raise RunNotFoundError(f"{run!r} matches several runs: {names}; name one")
        return paths[0]

    def by_ref(
        self,
        ref: str | int | Ref,
        kind: str = "checkpoint",
        given: tuple[str | None, Mode | None] = (None, None),
    ) -> Record:
        """Return the version a ref names.

        Args:
            ref: ``digits``, ``digits@7``, ``digits@best``, ``@prod``.
            kind: What ``best`` and ``latest`` look at; numbers and tags name either kind.
            given: Monitor and mode that the caller set; they go before the recorded ones.

        Raises:
            VersionNotFoundError: There is no such version or tag.
            IntegrityError: Its manifest is damaged.
        """
        run, selector = ref if isinstance(ref, Ref) else parse_ref(ref)
        if selector == "best":
            return self.best(run, kind=kind, given=given)
        if isinstance(selector, int):
            path = self._one(self._found(run), run)
            self._warn_of_broken(path)
            found = self._catalog.version(path, selector)
        else:
            path = self.one_path(run)
            if selector == "latest":
                return self.latest(path, kind)
            found = self._catalog.tagged(path, selector)
        name = self._catalog.run_name(path) or path
        if found is None:
            newest = self._catalog.next_numbers(path)[0] - 1
            tags = ", ".join(sorted(self._catalog.facts(path).tags)) or "none"
            raise VersionNotFoundError(
                f"{self._where}: run {name!r} has no version {selector}; the newest is {newest}"
                if isinstance(selector, int)
                else f"{self._where}: run {name!r} has no tag {selector!r}; its tags: {tags}"
            )
        intact_head(found)
        return found

    def latest(self, path: str, kind: str) -> Record:
        """Return the newest live version of that kind.

        Those whose data are known to be damaged are passed over, with a warning.

        Raises:
            VersionNotFoundError: There is none.
            IntegrityError: The newest version's manifest is damaged.
        """
        found = self._catalog.latest(path, kind)
        passed = [each for each in self._catalog.damaged([path]) if each.kind == kind]
        if found is None:
            raise VersionNotFoundError(
                f"{self._where}: run {self._catalog.run_name(path) or path!r} has no {kind}"
                + _but(passed)
            )
        intact_head(found)
        newer = [f"{path}@{each.version}" for each in passed if each.version > found.version]
        if newer:
            listed = ", ".join(newer)
            warn(
                f"{found.path}@{found.version} is taken for the latest, without {listed}: known "
                "to be damaged",
                FallbackWarning,
            )
        return found

    def best(
        self,
        run: str | None,
        *,
        metric: str | None = None,
        mode: Mode | None = None,
        kind: str = "checkpoint",
        given: tuple[str | None, Mode | None] = (None, None),
    ) -> Record:
        """Return the live version with the best value of a metric: the first of these.

        Raises:
            CkptStoreError: As :meth:`best_first`.
        """
        return next(self.best_first(run, metric=metric, mode=mode, kind=kind, given=given))

    def best_first(
        self,
        run: str | None,
        *,
        metric: str | None = None,
        mode: Mode | None = None,
        kind: str = "checkpoint",
        given: tuple[str | None, Mode | None] = (None, None),
    ) -> Iterator[Record]:
        """Yield live versions, the best by a metric first; at least one.

        Args:
            run: A run, a glob or None, as :meth:`paths` takes it.
            metric: None means the runs' monitor.
            mode: ``min`` or ``max``; needed for a metric other than the monitor.
            kind: The kind of version.
            given: Monitor and mode that the caller set; they go before the recorded ones.

        Raises:
            MetricNotFoundError: No version has a usable value; the message lists the metrics there
                are.
            ArgumentError: ``mode`` is missing or is neither ``min`` nor ``max``.
        """
        check_mode(mode)
        paths = self.paths(run)
        if metric is None or mode is None:
            metric, mode = self._completed(paths, metric, mode, given)
        self._warn_of_damage(paths, metric)
        found = self._catalog.best_first(paths, metric, mode, kind)
        first = next(found, None)
        if first is None:
            raise self._no_best(paths, metric, kind)
        yield first
        yield from found

    def _no_best(self, paths: Sequence[str], metric: str, kind: str) -> NotFoundError:
        names = self._catalog.metric_names(paths, kind)
        if any(self._catalog.latest(path, kind) for path in paths):
            return MetricNotFoundError(
                f"{self._where}: no {kind} has a usable value of {metric!r}; metrics recorded: "
                f"{', '.join(map(repr, names)) or 'none'}"
            )
        runs = ", ".join(map(repr, self._names(paths)))
        passed = [each for each in self._catalog.damaged(paths) if each.kind in (kind, "damaged")]
        return VersionNotFoundError(
            (
                f"{self._where}: run {runs} has no {kind}"
                if len(paths) == 1
                else f"{self._where}: none of the runs {runs} has a {kind}"
            )
            + _but(passed)
        )

    def checkpoints(self, path: str) -> Iterator[Record]:
        """Return a run's checkpoints, newest first, damaged ones too; none if there is no run."""
        try:
            self._catalog.sync(path)
        except NotAStoreError:
            return iter(())
        except JournalDamagedError:
            self._warn_of_broken(path)
        return self._catalog.newest_with_damaged(path, "checkpoint")

    def retired_checkpoints(self, path: str) -> Iterator[Record]:
        """Return a run's retired checkpoints, newest first, as far as they are indexed."""
        records = self._catalog.history([path], kind="checkpoint")
        return (each for each in reversed(records) if each.facts.retired is not None)

    def _warn_of_broken(self, path: str) -> None:
        with suppress(JournalDamagedError):
            self._catalog.vouch(path)
        error = self._catalog.broken(path)
        if error is not None:
            warn(
                f"going on without what was recorded later in run {path!r}, so whether a version "
                f"was retired or found damaged meanwhile is unknown: {error}",
                FallbackWarning,
            )

    def _completed(
        self,
        paths: Sequence[str],
        metric: str | None,
        mode: Mode | None,
        given: tuple[str | None, Mode | None],
    ) -> tuple[str, Mode]:
        """Return metric and mode, what the caller left out filled in from the runs' monitors.

        Raises:
            ArgumentError: They differ, or none of them is the metric the caller named.
        """
        monitor, monitor_mode = given
        recorded = self._catalog.settings_of(paths)
        found = {
            (monitor or settings.monitor, mode or monitor_mode or settings.mode)
            for settings in (recorded.get(path, Settings()) for path in paths)
        }
        matching = {pair for pair in found if metric in (None, pair[0])}
        if len(matching) == 1:
            return matching.pop()
        listed = ", ".join(f"{name!r} ({mode})" for name, mode in sorted(found))
        if matching:
            raise ArgumentError(
                f"these runs monitor different metrics: {listed}; say metric= and mode="
            )
        raise ArgumentError(
            f"metric={metric!r} is not the monitor, which is {listed}: say mode='min' or mode='max'"
        )

    def _warn_of_damage(self, paths: Sequence[str], metric: str) -> None:
        damaged = self._catalog.damaged(paths)
        if damaged:
            listed = ", ".join(f"{each.path}@{each.version}" for each in damaged)
            warn(
                f"the best by {metric!r} is looked for without {listed}: known to be damaged",
                FallbackWarning,
            )

    def _listed(self, paths: Sequence[str]) -> str:
        names = self._names(paths)
        return f"runs: {', '.join(map(repr, names))}" if names else "it has no runs yet"

    def _names(self, paths: Sequence[str]) -> list[str]:
        return self._catalog.run_names(paths)


def _but(passed: Sequence[Damaged]) -> str:
    """Say what was passed over, and how it is looked at again."""
    if not passed:
        return ""
    listed = ", ".join(f"{each.path}@{each.version}" for each in passed)
    return (
        f" but {listed}, known to be damaged: bring back what is damaged from a copy (verify() "
        "names the files), check it with verify(), and open the store anew"
    )


def intact_head(record: Record) -> Head:
    """Return a version's head.

    Raises:
        IntegrityError: Its manifest is damaged.
    """
    if record.head is None:
        ref = f"{record.path}@{record.version}"
        raise IntegrityError(f"{ref} is damaged: {record.damage}; load another version", ref=ref)
    return record.head


def check_mode(mode: object) -> None:
    """Refuse a mode that is neither None, ``min`` nor ``max``.

    Raises:
        ArgumentError: It is something else.
    """
    if mode not in (None, "min", "max"):
        raise ArgumentError(
            f"mode={mode!r}: say 'min' (lower is better) or 'max' (higher is better)"
        )


def check_limit(limit: object) -> None:
    """Refuse a limit that is neither None nor a whole number above 0.

    Raises:
        ArgumentError: It is something else.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ArgumentError(f"limit={limit!r}: say how many, as a whole number above 0, or None")


def check_monitor(monitor: object, mode: object) -> None:
    """Refuse a monitor that is no metric's name, or that has no mode.

    Raises:
        ArgumentError: It is one of these.
    """
    check_mode(mode)
    if monitor is not None and (not isinstance(monitor, str) or not monitor):
        raise ArgumentError(f"monitor= takes the name of a metric, not {monitor!r}")
    if monitor is not None and mode is None:
        raise ArgumentError(
            f"monitor={monitor!r} needs mode='min' (lower is better) or mode='max' (higher is "
            "better)"
        )
