"""The example of a run that keeps, judges, prunes and checks itself."""

from __future__ import annotations

import pytest

from ckptstore import Store
from ckptstore.errors import RetiredError
from examples import tidy
from examples.digits import SimpleNN


def live(store):
    return [entry.version for entry in store.history("tidy") if not entry.retired]


def test_training_keeps_what_its_policy_says(tmp_path):
    store = Store(tmp_path)

    tidy.train(store, epochs=6)

    by_loss = sorted(store.history("tidy"), key=lambda entry: entry.metrics["val_loss"])
    best = [entry.version for entry in by_loss if not entry.retired][:2]
    assert set(live(store)) == {1, 5, 6, *best}  # epochs 0 and 4, the last two, the best two
    assert len(store.history("tidy")) == 6


def test_what_another_machine_measured_decides_which_is_chosen(tmp_path):
    tidy.train(Store(tmp_path), epochs=3)

    chosen = tidy.evaluate(Store(tmp_path))

    measured = {entry: entry.metrics["test_acc"] for entry in Store(tmp_path).history("tidy")}
    assert measured[chosen] == max(measured.values())


def test_a_stricter_policy_is_shown_applied_and_taken_back_in_part(tmp_path, capsys):
    tidy.main(str(tmp_path), epochs=5)
    store = Store(tmp_path)

    shown = capsys.readouterr().out
    assert "would be retired" in shown
    assert "no damage found" in shown
    tagged = store.get("tidy@prod").version
    assert {tagged, 5, store.best(run="tidy").version} < set(live(store)) < {1, 2, 3, 4, 5}
    gone = min({1, 2, 3, 4, 5} - set(live(store)))
    with pytest.raises(RetiredError):
        store.load(SimpleNN, f"tidy@{gone}", device="cpu")
    assert store.collect(dry_run=True).deleted == ()


def test_run_again_it_trains_nothing_twice(tmp_path, capsys):
    tidy.main(str(tmp_path), epochs=5)
    before = Store(tmp_path).history("tidy")
    tidy.main(str(tmp_path), epochs=5)

    assert Store(tmp_path).history("tidy") == before
    assert capsys.readouterr().out.count("no damage found") == 2
