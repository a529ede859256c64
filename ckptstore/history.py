"""A run's versions as a sequence that reads well: in a terminal, in a notebook, in pandas."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, overload

from ckptstore.entry import Entry
from ckptstore.errors import MissingPackageError
from ckptstore.text import WORDS, aligned, number, plain, size

SHOWN_ROWS = 60
COLUMNS = ("ref", "kind", "epoch", "step")
LEFT, RIGHT = (
    f"text-align:{side};padding:0.1em 0.6em;white-space:nowrap;font-variant-numeric:tabular-nums"
    for side in ("left", "right")
)


@dataclass(frozen=True)
class Logged:
    """Metrics of an epoch or step of which no weights were kept."""

    run: str
    epoch: int | None
    step: int | None
    metrics: Mapping[str, float | int]
    created_at: datetime
    """When they were logged, in UTC."""
    by: str | None
    """By whom, as ``user@host``; None if that is not known."""


class History(Sequence[Entry]):
    """Versions by run and number, retired ones too; indexing and slicing work as on a list.

    Attributes:
        damaged: Refs of versions whose manifests can't be read, with what is wrong.
        logged: What was logged of epochs without weights, in the order it was recorded in each run.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        damaged: Sequence[tuple[str, str]] = (),
        logged: Sequence[Logged] = (),
    ) -> None:
        self._entries = list(entries)
        self.damaged = tuple(damaged)
        self.logged = tuple(logged)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> History: ...

    def __getitem__(self, index: int | slice) -> Entry | History:
        if isinstance(index, slice):
            return History(self._entries[index], self.damaged, self.logged)
        return self._entries[index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._entries == other._entries

    __hash__ = None  # type: ignore[assignment] # compared by content, like a list

    def __repr__(self) -> str:
        header, rows = self.table()
        if not rows:
            return "\n".join(["History: no versions", *self.notes()])
        shown = rows[-SHOWN_ROWS:]
        lines = aligned(header, shown)
        if len(rows) > len(shown):
            lines.insert(1, _earlier(len(rows)))
        return "\n".join([*lines, *self.notes()])

    def _repr_html_(self) -> str:
        header, rows = self.table()
        # Inline, so that it reads well where no notebook's stylesheet is.
        style = {name: LEFT if name in WORDS else RIGHT for name in header}
        head = "".join(f'<th style="{style[name]}">{html.escape(name)}</th>' for name in header)
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="{style[name]}">{html.escape(cell)}</td>'
                for name, cell in zip(header, row, strict=True)
            )
            + "</tr>"
            for row in rows[-SHOWN_ROWS:]
        )
        notes = [_earlier(len(rows))] if len(rows) > SHOWN_ROWS else []
        notes += self.notes()
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" + "".join(
            f"<p>{html.escape(note)}</p>" for note in notes
        )

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame: one row a version, indexed by ref, one column a metric.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingPackageError(
                "history.to_pandas() needs pandas: pip install 'ckptstore[pandas]'"
            ) from error
        names = self._metric_names()
        rows = [
            {
                "ref": entry.ref,
                "run": entry.run,
                "version": entry.version,
                "kind": _kind(entry),
                "epoch": entry.epoch,
                "step": entry.step,
                **{
                    f"metrics.{name}" if name in TAKEN else name: entry.metrics.get(name)
                    for name in names
                },
                "tags": ", ".join(entry.tags),
                "note": entry.note,
                "retired": None if entry.retired is None else entry.retired.time,
                "damage": entry.damage,
                "parent": entry.parent,
                "size_bytes": entry.size_bytes,
                "new_bytes": entry.new_bytes,
                "torch_version": entry.torch_version,
                "created_at": entry.created_at,
            }
            for entry in self._entries
        ]
        frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else sorted(TAKEN))
        kinds = {"epoch": "Int64", "step": "Int64", "retired": "datetime64[us, UTC]"}
        return frame.astype(kinds).set_index("ref")

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns' names and one row a version, as text that is safe to print."""
        names = self._metric_names()
        several_kinds = len({_kind(entry) for entry in self._entries}) > 1
        steps = any(entry.step is not None for entry in self._entries)
        tagged = any(entry.tags for entry in self._entries)
        retired = any(entry.retired for entry in self._entries)
        columns = [
            name
            for name in COLUMNS
            if (name != "kind" or several_kinds) and (name != "step" or steps)
        ]
        header = [*columns, *(plain(name) for name in names)]
        header += [*(["tags"] if tagged else []), "size", "created (UTC)"]
        header += ["retired (UTC)"] if retired else []
        rows = []
        for entry in self._entries:
            facts = {
                "ref": entry.ref,
                "kind": _kind(entry),
                "epoch": _text(entry.epoch),
                "step": _text(entry.step),
            }
            rows.append(
                [
                    *(facts[name] for name in columns),
                    *(_text(entry.metrics.get(name)) for name in names),
                    *([", ".join(entry.tags)] if tagged else []),
                    size(entry.size_bytes),
                    _time(entry.created_at),
                    # Why is for `ckptstore show`: a policy's reason is as wide as a screen.
                    *([_time(entry.retired.time) if entry.retired else ""] if retired else []),
                ]
            )
        return header, rows

    def _metric_names(self) -> list[str]:
        names: dict[str, None] = {}
        for entry in self._entries:
            names |= dict.fromkeys(entry.metrics)
        return list(names)

    def notes(self) -> list[str]:
        """Return what the table has no rows for, one line each."""
        notes = []
        refs = [entry.ref for entry in self._entries if entry.damage is not None]
        refs += [ref for ref, _ in self.damaged]
        if refs:
            notes.append(f"{len(refs)} damaged version(s): {', '.join(refs)}")
        if self.logged:
            last = self.logged[-1]
            facts = [] if last.epoch is None else [f"epoch={last.epoch}"]
            facts += [] if last.step is None else [f"step={last.step}"]
            facts += [f"{plain(name)}={_text(value)}" for name, value in last.metrics.items()]
            notes.append(
                f"{len(self.logged)} logged without weights, the last in run {last.run!r}: "
                + " ".join(facts)
            )
        return notes


TAKEN = frozenset(
    {
        "ref", "run", "version", "kind", "epoch", "step", "tags", "parent", "size_bytes",
        "new_bytes", "torch_version", "created_at", "note", "retired", "damage",
    }
)  # fmt: skip


def _earlier(count: int) -> str:
    return f"… {count - SHOWN_ROWS} earlier versions"


def _kind(entry: Entry) -> str:
    return type(entry).__name__.lower()


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _text(value: float | None) -> str:
    return "" if value is None else number(value, 4)
