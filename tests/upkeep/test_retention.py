from __future__ import annotations

import math
import sys
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.upkeep.keep import Keep
from ckptstore.upkeep.retention import Monitor, decide, rule
from tests.upkeep.make_golden import GOLDEN, golden
from tests.upkeep.pasts import KEEPS, NAN, NOW, PASTS, TRIED, VAL_LOSS, losses, version
from tests.upkeep.strategies import candidates, keeps, options

MONITORS = st.sampled_from([VAL_LOSS, Monitor("val_acc", "max")])
PROTECTED = st.dictionaries(
    st.integers(1, 14), st.just(["this process resumed from it"]), max_size=2
)


def decided(versions, keep, monitor=VAL_LOSS, protected=None, before=None):
    return decide(
        versions,
        keep,
        run="digits",
        monitor=monitor,
        now=NOW,
        protected=protected or {},
        before=before,
    )


def previous(versions):
    """Which version of the same kind comes right before each, by looking for it."""
    return {
        each.version: max(
            (o.version for o in versions if o.kind == each.kind and o.version < each.version),
            default=None,
        )
        for each in versions
    }


def staying(versions, keep, monitor=VAL_LOSS, protected=None, before=None):
    decisions = decided(versions, keep, monitor, protected, before)
    return {each.candidate.version for each in decisions if each.stays}


def reasons(versions, keep, number, **options):
    (found,) = [
        each.reasons
        for each in decided(versions, keep, **options)
        if each.candidate.version == number
    ]
    return found


# ------------------------------------------------------------ golden files


@pytest.mark.parametrize(("past", "keep"), TRIED)
def test_what_is_decided_is_what_was_read_through(past, keep):
    file = GOLDEN / f"{past}--{keep}.txt"
    assert golden(past, keep) == file.read_text(encoding="utf-8"), (
        "python -m tests.upkeep.make_golden, and look at the difference"
    )


def test_there_is_no_golden_file_that_nothing_is_held_against():
    tried = {f"{past}--{keep}.txt" for past, keep in TRIED}
    assert {file.name for file in GOLDEN.iterdir()} == tried


def test_every_history_and_every_policy_is_tried():
    assert {past for past, _ in TRIED} == set(PASTS)
    assert {keep for _, keep in TRIED} == set(KEEPS)


# ------------------------------------------------------------ each rule


def test_a_plain_training_keeps_as_many_as_were_asked_for():
    """Each version is the parent of the next, and that is no reason to keep them all."""
    falling = losses(*[1 / number for number in range(1, 101)])
    assert staying(falling, Keep(last=3)) == {98, 99, 100}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_tagged_versions_stay(keep):
    versions = [*losses(0.9, 0.1, 0.2), version(4, tags=("z", "a"), epoch=7), version(5)]
    assert reasons(versions, keep, 4)[:2] == ("tag a", "tag z")


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_what_is_protected_stays_with_its_reasons(keep):
    why = {2: ["this process resumed from it", "parent of fork@1"]}
    assert reasons(losses(*[0.1] * 30), keep, 2, protected=why)[:2] == tuple(why[2])


def test_protection_of_a_version_that_is_gone_changes_nothing():
    versions = losses(0.1, 0.2)
    held = decided(versions, Keep(last=1), protected={3: ["this process resumed from it"]})
    assert held == decided(versions, Keep(last=1))


def test_the_best_by_the_monitor_stays_whatever_the_policy_says():
    assert reasons(losses(0.1, 0.2, 0.3), Keep(last=1), 1) == (
        "best by val_loss (the run's monitor)",
    )


def test_the_newest_intact_version_stays_whatever_the_policy_says():
    versions = [*losses(0.1, 0.2, 0.3), version(4, intact=False)]
    assert reasons(versions, Keep(best=1), 3) == ("newest intact checkpoint",)
    assert reasons(versions, Keep(best=1), 4) == ()


def test_damaged_versions_take_no_place_among_the_last():
    versions = [*losses(0.1, 0.2, 0.3), version(4, intact=False), version(5)]
    assert staying(versions, Keep(last=2)) == {1, 3, 4, 5}


def test_what_lacks_a_part_takes_the_place_of_no_complete_one():
    """Saved on a signal without its optimizer: no training goes on from it."""
    versions = [*losses(0.1, 0.2, 0.3), version(4, complete=False)]
    assert staying(versions, Keep(last=1)) == {1, 3, 4}
    assert staying(versions, Keep(every_epochs=1)) == {1, 2, 3, 4}
    assert reasons(versions, Keep(last=2), 4) == ("newest checkpoint, though not complete",)


def test_what_lacks_a_part_goes_once_a_newer_one_is_complete():
    versions = [*losses(0.1, 0.2), *(version(each, complete=False) for each in (3, 4)), version(5)]
    assert staying(versions[:-1], Keep(last=2)) == {1, 2, 4}
    assert staying(versions, Keep(last=2)) == {1, 2, 5}


def test_the_best_model_stays_also_without_its_optimizer_and_so_does_the_best_complete_one():
    lean = version(3, complete=False, metrics={"val_loss": 0.1})
    versions = [*losses(0.3, 0.2), lean, version(4)]
    assert staying(versions, Keep(last=1)) == {2, 3, 4}
    assert staying(versions, Keep(best=2)) == {1, 2, 3, 4}


def test_of_equal_ones_the_earlier_is_the_best():
    assert staying(losses(0.5, 0.2, 0.2, 0.2, 0.9), Keep(best=1)) == {2, 5}


def test_nan_is_never_the_best():
    versions = losses(NAN, NAN, 0.5, NAN, 0.9)
    assert staying(versions, Keep(best=4)) == {3, 5}
    assert staying(versions, Keep(best=4), Monitor("val_loss", "max")) == {3, 5}


def test_late_metrics_of_packages_count_apart():
    versions = [
        *losses(0.5, 0.1),
        version(3, kind="package", metrics={"val_loss": 0.9}),
        version(4, kind="package", metrics={"val_loss": 0.95}),
        version(5, kind="package", metrics={}),
    ]
    assert staying(versions, Keep(best=1)) == {2, 3, 5}


def test_the_checkpoint_of_a_package_stays_while_the_package_does():
    versions = [*losses(0.1, 0.2), version(3, kind="package", parent=2), version(4), version(5)]
    assert reasons(versions, Keep(last=1), 2) == ("parent of digits@3",)
    later = [*versions, version(6, kind="package", parent=5)]
    assert staying(later, Keep(last=1)) == {1, 5, 6}


def test_what_a_training_went_back_to_stays_while_its_child_does():
    versions = [*losses(0.1, 0.2, 0.3, 0.4), version(5, parent=2)]
    assert reasons(versions, Keep(last=1), 2) == ("parent of digits@5",)
    assert staying([*versions, version(6)], Keep(last=1)) == {1, 6}


def test_a_run_that_packages_each_checkpoint_keeps_no_more_of_them():
    """Between a checkpoint and the one it comes from lies a package each time."""
    versions = [version(1), version(2, kind="package", parent=1)]
    for number in range(3, 21, 2):
        versions += [version(number, parent=number - 2)]
        versions += [version(number + 1, kind="package", parent=number)]
    assert staying(versions, Keep(last=2)) == {17, 18, 19, 20}


def test_what_was_retired_between_makes_no_parent_the_version_right_before():
    """Version 5 went back to 2; that 3 and 4 were retired since does not make 2 its predecessor."""
    versions = [version(1), version(2), version(5, parent=2)]
    assert staying(versions, Keep(last=1), before={5: 4}) == {2, 5}
    assert staying(versions, Keep(last=1)) == {5}


def test_a_parent_that_stays_as_a_parent_alone_holds_on_to_none():
    versions = [*losses(0.1, 0.2, 0.3), version(4, parent=2), version(5), version(6, parent=4)]
    assert staying(versions, Keep(last=1)) == {1, 4, 6}


def test_a_package_that_stays_as_a_parent_alone_holds_on_to_its_checkpoint():
    """A training went on from a package; a package without its checkpoint could not be resumed."""
    versions = [
        *losses(0.1, 0.5, 0.6),
        version(4, kind="package", parent=2),
        version(5, parent=4, metrics={"val_loss": 0.7}),
        version(6, kind="package", parent=None),
    ]
    assert staying(versions, Keep(last=1)) == {1, 2, 4, 5, 6}


def test_every_epochs_counts_as_the_epochs_were_saved():
    from_zero = [version(number) for number in range(1, 24)]
    from_one = [version(number, epoch=number) for number in range(1, 24)]
    keep = Keep(every_epochs=10)
    assert staying(from_zero, keep) == {1, 11, 21, 23}
    assert staying(from_one, keep) == {10, 20, 23}


def test_within_counts_to_the_microsecond():
    moment = timedelta(microseconds=1)
    versions = [
        version(1, created_at=NOW - timedelta(days=2) - moment),
        version(2, created_at=NOW - timedelta(days=2)),
        version(3, created_at=NOW + timedelta(days=400)),
        version(4),
    ]
    assert staying(versions, Keep(within=timedelta(days=2))) == {2, 3, 4}


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (Keep(last=1), "the policy keeps the last"),
        (Keep(last=3, best=1), "the policy keeps the last 3, the best by val_loss (min)"),
        (
            Keep(best=2, best_by={"val_acc": "max"}),
            "the policy keeps the best 2 by val_loss (min), the best 2 by val_acc (max)",
        ),
        (Keep(best_by={"val_acc": "max"}), "the policy keeps the best by val_acc (max)"),
        (Keep(every_epochs=1), "the policy keeps the last of each epoch"),
        (Keep(every_epochs=5), "the policy keeps the last of epochs that are multiples of 5"),
        (Keep(within=timedelta(days=2)), "the policy keeps those created within 2 days"),
    ],
)
def test_the_rule_reads_well(keep, words):
    assert rule(keep, VAL_LOSS) == words


# ------------------------------------------------------------ whatever the history


@given(candidates(), keeps(), MONITORS, PROTECTED)
def test_every_version_is_decided_once_newest_first(versions, keep, monitor, protected):
    found = [each.candidate.version for each in decided(versions, keep, monitor, protected)]
    assert found == sorted((each.version for each in versions), reverse=True)


@given(candidates(), keeps(), MONITORS, PROTECTED)
def test_what_is_protected_is_never_retired(versions, keep, monitor, protected):
    stays = staying(versions, keep, monitor, protected)
    live = {each.version for each in versions}
    assert live & protected.keys() <= stays
    assert {each.version for each in versions if each.tags} <= stays
    for kind in ("checkpoint", "package"):
        intact = [each for each in versions if each.kind == kind and each.intact]
        assert {max(each.version for each in intact)} <= stays if intact else True
        complete = [each.version for each in intact if each.complete]
        assert {max(complete)} <= stays if complete else True
        measured = [
            each for each in intact if not math.isnan(each.metrics.get(monitor.metric, NAN))
        ]
        if measured:
            best = (min if monitor.mode == "min" else max)(
                each.metrics[monitor.metric] for each in measured
            )
            first = min(each.version for each in measured if each.metrics[monitor.metric] == best)
            assert first in stays


@given(candidates(), keeps(), MONITORS, PROTECTED)
def test_what_a_version_that_was_asked_for_came_from_is_never_retired(
    versions, keep, monitor, protected
):
    decisions = decided(versions, keep, monitor, protected)
    stays = {each.candidate.version for each in decisions if each.stays}
    live = {each.version for each in versions}
    before = previous(versions)
    for decision in decisions:
        child = decision.candidate
        for_itself = [why for why in decision.reasons if not why.startswith("parent of digits@")]
        if for_itself and child.parent in live and child.parent != before[child.version]:
            assert child.parent in stays


@given(candidates(), options(least=0), options(), MONITORS, PROTECTED)
def test_one_policy_more_retires_none_more(versions, some, more, monitor, protected):
    both = some | more
    alone = {name: value for name, value in both.items() if name in more}
    # best= also says how many best_by keeps, so that one is no addition of its own.
    assert staying(versions, Keep(**alone), monitor, protected) <= staying(
        versions, Keep(**both), monitor, protected
    )


@given(candidates(), options(), MONITORS, PROTECTED, st.sampled_from(["last", "best"]))
def test_keeping_one_more_retires_none_more(versions, given_, monitor, protected, name):
    fewer = Keep(**given_)
    more = Keep(**{**given_, name: given_.get(name, 0) + 1})
    assert staying(versions, fewer, monitor, protected) <= staying(
        versions, more, monitor, protected
    )


@given(candidates(), keeps(), MONITORS, PROTECTED, st.randoms())
def test_the_order_of_versions_does_not_matter(versions, keep, monitor, protected, random):
    shuffled = random.sample(versions, len(versions))
    assert decided(versions, keep, monitor, protected) == decided(
        shuffled, keep, monitor, protected
    )


@given(candidates(), options(), MONITORS)
def test_the_order_of_policies_does_not_matter(versions, given_, monitor):
    turned = dict(reversed(given_.items()))
    if "best_by" in turned:
        turned["best_by"] = dict(reversed(turned["best_by"].items()))
    assert decided(versions, Keep(**given_), monitor) == decided(versions, Keep(**turned), monitor)


@given(candidates(), keeps(), MONITORS, PROTECTED)
@settings(max_examples=300)
def test_deciding_again_on_what_stays_retires_nothing(versions, keep, monitor, protected):
    stays = staying(versions, keep, monitor, protected)
    left = [each for each in versions if each.version in stays]
    assert staying(left, keep, monitor, protected, previous(versions)) == stays


@given(candidates(), keeps(), MONITORS)
def test_no_reason_is_given_twice(versions, keep, monitor):
    for decision in decided(versions, keep, monitor):
        assert len(set(decision.reasons)) == len(decision.reasons)


def test_many_versions_take_time_in_proportion():
    """Counted, not timed: lines of Python run for twice the versions are about twice as many."""

    def lines_run(count: int) -> int:
        versions = [
            version(number, metrics={"val_loss": number % 97, "val_acc": number % 89})
            for number in range(1, count + 1)
        ]
        lines = 0

        def trace(_frame, _event, _argument):
            nonlocal lines
            lines += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            decided(versions, KEEPS["all-of-it"])
        finally:
            sys.settrace(before)
        return lines

    assert lines_run(1000) < 2.5 * lines_run(500)
