"""A history reads well wherever it is shown, and shows what names say without obeying it."""

from __future__ import annotations

import html
import math
import re
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ckptstore import Checkpoint, History, Package, Store
from ckptstore.errors import MissingPackageError
from ckptstore.format.facts import Retired, VersionFacts
from ckptstore.format.layout import version_key
from ckptstore.format.manifest import Head, PartInfo
from ckptstore.format.tree import encode
from ckptstore.history import Logged

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def entry(version, *, kind="checkpoint", tags=(), **changes):
    metrics = {name: encode(value, name) for name, value in changes.pop("metrics", {}).items()}
    head = Head(
        save_id=UUID(int=version),
        run=changes.pop("run", "digits"),
        version=version,
        kind=kind,
        started_at=START,
        created_at=START + timedelta(minutes=version),
        metrics=metrics,
        environment={"torch": "2.13.0"},
        parts=(PartInfo("model", "module", 1500 * version, 2, "0" * 64),),
        **changes,
    )
    made = Checkpoint if kind == "checkpoint" else Package
    return made(head, None, VersionFacts(tuple(tags)))


@pytest.fixture
def history():
    return History(
        [
            entry(1, epoch=0, metrics={"val_loss": 0.5}),
            entry(2, epoch=1, metrics={"val_loss": 0.123456, "acc": 1}, tags=("prod", "x")),
            entry(3, kind="package"),
        ]
    )


def test_it_is_a_sequence(history):
    assert len(history) == 3
    assert history[0].ref == "digits@1"
    assert history[-1].ref == "digits@3"
    assert [each.version for each in history] == [1, 2, 3]
    assert [each.version for each in reversed(history)] == [3, 2, 1]
    assert history[1] in history
    assert history.index(history[1]) == 1
    with pytest.raises(IndexError):
        history[3]


def test_a_slice_is_a_history_and_remembers_the_damage():
    history = History([entry(1), entry(2), entry(3)], [("digits@4", "cut short")])
    part = history[1:]

    assert isinstance(part, History)
    assert [each.version for each in part] == [2, 3]
    assert part.damaged == (("digits@4", "cut short"),)
    assert [each.version for each in history[::-1]] == [3, 2, 1]


def test_two_are_equal_by_what_they_hold(history):
    assert history == History(list(history))
    assert history[:1] != history
    assert history != list(history)


def test_it_is_a_table_that_reads_well(history):
    assert repr(history).splitlines() == [
        "ref       kind        epoch  val_loss  acc  tags       size        created (UTC)",
        "digits@1  checkpoint      0       0.5                1.5 kB  2026-01-31 12:01:00",
        "digits@2  checkpoint      1    0.1235    1  prod, x  3.0 kB  2026-01-31 12:02:00",
        "digits@3  package                                    4.5 kB  2026-01-31 12:03:00",
    ]


def test_columns_that_say_nothing_are_left_out():
    shown = repr(History([entry(1, epoch=0)]))

    for column in ("kind", "step", "tags"):
        assert column not in shown
    assert "step" in repr(History([entry(1, step=0)]))


def test_an_empty_one_says_so():
    assert repr(History([])) == "History: no versions"
    assert "<table>" in History([])._repr_html_()


def test_damage_is_said():
    history = History([entry(1)], [("digits@2", "cut short"), ("digits@3", "torn")])

    assert repr(history).endswith("\n2 damaged version(s): digits@2, digits@3")
    assert "<p>2 damaged version(s): digits@2, digits@3</p>" in history._repr_html_()
    assert "damaged" in repr(History([], [("digits@1", "torn")]))


def test_only_the_newest_of_many_are_shown_and_the_rest_counted():
    history = History([entry(version) for version in range(1, 101)])

    for shown in (repr(history), history._repr_html_()):
        assert "digits@100" in shown
        assert "digits@41" in shown
        assert "digits@40" not in shown
        assert "… 40 earlier versions" in shown


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, 10**30, 1e-12, -0.0])
def test_any_number_is_shown(value):
    history = History([entry(1, metrics={"x": value})])

    assert repr(history)
    assert (str(value) if isinstance(value, int) else f"{value:.4g}") in repr(history)


@pytest.mark.parametrize("value", [10**400, -(10**5000)], ids=["of 400 digits", "of 5000"])
def test_an_int_that_another_program_recorded_is_shown_however_long(value):
    made = entry(1, metrics={"x": value})

    assert "int of" in repr(made)
    assert "int of" in repr(History([made]))
    assert made.metrics == {"x": value}


HOSTILE = "<script>alert('x')</script>&\"\x1b[2J\u202e"


def test_html_shows_names_as_text():
    shown = History([entry(1, metrics={HOSTILE: 1.0})], [(HOSTILE, "torn")])._repr_html_()

    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "\x1b" not in repr(History([entry(1, metrics={HOSTILE: 1.0})]))
    assert "\u202e" not in repr(History([entry(1, metrics={HOSTILE: 1.0})]))


def test_html_has_a_cell_for_each_fact(history):
    shown = history._repr_html_()

    assert shown.count("<tr>") == 4
    assert shown.count("<td ") == 3 * shown.count("<th ")


def test_html_aligns_as_the_terminal_does_wherever_it_is_shown(history):
    shown = history._repr_html_()

    assert re.search(r'<th style="text-align:left;[^"]*">tags<', shown)
    assert re.search(r'<th style="text-align:right;[^"]*">val_loss<', shown)
    assert re.search(r'<td style="text-align:left;[^"]*">digits@1<', shown)
    assert re.search(r'<td style="text-align:right;[^"]*">0.1235<', shown)


# ------------------------------------------------------------ pandas


def test_pandas_gets_one_row_a_version(history):
    frame = history.to_pandas()

    assert list(frame.index) == ["digits@1", "digits@2", "digits@3"]
    assert frame.loc["digits@2", "val_loss"] == 0.123456
    assert frame["epoch"].dtype == "Int64"
    assert frame["epoch"].isna().tolist() == [False, False, True]
    assert frame.loc["digits@2", "tags"] == "prod, x"
    assert frame.loc["digits@3", "kind"] == "package"
    assert frame.loc["digits@1", "torch_version"] == "2.13.0"
    assert frame.loc["digits@1", "created_at"].to_pydatetime() == START + timedelta(minutes=1)


def test_pandas_gets_columns_even_of_nothing():
    frame = History([]).to_pandas()

    assert len(frame) == 0
    assert {"run", "version", "epoch", "created_at"} <= set(frame.columns)


def test_a_metric_named_as_a_column_does_not_replace_it():
    frame = History([entry(1, epoch=3, metrics={"epoch": 0.5, "ref": 1})]).to_pandas()

    assert frame.loc["digits@1", "epoch"] == 3
    assert frame.loc["digits@1", "metrics.epoch"] == 0.5
    assert frame.loc["digits@1", "metrics.ref"] == 1


def test_without_pandas_the_error_says_what_to_install(history, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(MissingPackageError, match=r"pip install 'ckptstore\[pandas\]'"):
        history.to_pandas()


# ------------------------------------------------------------ of a store


def test_a_store_with_damage_still_has_its_history(tmp_path):
    store = Store(tmp_path / "store")
    for epoch in range(3):
        store.save({"w": 1}, epoch=epoch, rng=False)
    (tmp_path / "store" / version_key("default", 2)).write_bytes(b"torn")
    (tmp_path / "store" / "catalog.sqlite3").unlink()
    history = Store(tmp_path / "store").history()

    assert [each.version for each in history] == [1, 3]
    ((ref, what),) = history.damaged
    assert ref == "default@2"
    assert "00000002.jsonl" in what


def test_a_history_of_all_runs_or_some(tmp_path):
    store = Store(tmp_path / "store")
    for run in ("sweep/b", "sweep/a", "other"):
        store.save({"w": 1}, run=run, rng=False)

    assert [each.ref for each in store.history()] == ["other@1", "sweep/a@1", "sweep/b@1"]
    assert [each.ref for each in store.history("sweep/*")] == ["sweep/a@1", "sweep/b@1"]
    assert [each.ref for each in store.history("other")] == ["other@1"]


def retired(version):
    facts = VersionFacts(retired=Retired(START + timedelta(days=1), "not among the last 3", 1))
    return Checkpoint(entry(version).head, None, facts)


def test_a_retired_version_is_marked_by_when_and_not_by_a_policys_whole_text():
    shown = repr(History([entry(1), retired(2)]))

    assert "retired (UTC)" in shown
    assert "2026-02-01 12:00:00" in shown
    assert "not among" not in shown


def test_what_was_logged_without_weights_is_told_below():
    logged = [
        Logged("digits", epoch, None, {"train_loss": 1 / epoch}, START, None) for epoch in (1, 2)
    ]

    for shown in (repr(History([entry(1)], (), logged)), History([], (), logged)._repr_html_()):
        assert "2 logged without weights, the last in run 'digits': epoch=2" in html.unescape(shown)
        assert "train_loss=0.5" in shown
