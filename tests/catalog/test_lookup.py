"""From what a user names to the version that is meant, or to a list of what there is."""

from __future__ import annotations

import math
import warnings

import pytest

from ckptstore.catalog import queries
from ckptstore.catalog.index import Catalog
from ckptstore.catalog.lookup import Lookup
from ckptstore.errors import (
    ArgumentError,
    FallbackWarning,
    IntegrityError,
    JournalDamagedError,
    MetricNotFoundError,
    NewerFormatError,
    NotAStoreError,
    RunNotFoundError,
    VersionNotFoundError,
)
from ckptstore.format.digest import digest
from ckptstore.format.layout import Ref, journal_key, version_key
from ckptstore.format.tree import encode
from tests.catalog.places import (
    DictStorage,
    commit,
    found_store,
    make_head,
    note,
    settings_entry,
    tag_entry,
    versions_of,
)


@pytest.fixture
def storage():
    storage = DictStorage("memory://store")
    found_store(storage)
    return storage


@pytest.fixture
def lookup(storage):
    catalog = Catalog(None, storage)
    yield Lookup(catalog, storage.url)
    catalog.close()


@pytest.mark.parametrize("selector", ["best", "latest"])
@pytest.mark.filterwarnings("ignore::ckptstore.errors.FallbackWarning")
def test_whoever_finds_nothing_is_told_of_what_is_damaged(storage, selector):
    head = make_head("digits", 1)
    commit(storage, head)
    catalog = Catalog(None, storage)
    catalog.pass_over(head.save_id)

    with pytest.raises(VersionNotFoundError, match=r"no checkpoint but digits@1.*verify\(\)"):
        Lookup(catalog, storage.url).by_ref(f"digits@{selector}", given=("val_loss", "min"))
    catalog.close()


def runs(storage, **metrics):
    """Create runs, each with a version for each of its values of ``val_loss``."""
    for run, values in metrics.items():
        for version, value in enumerate(values, 1):
            given = {} if value is None else {"val_loss": encode(value, "val_loss")}
            commit(storage, make_head(run, version, metrics=given))


def damage(storage, run, version):
    storage.objects[version_key(run, version)] = b"damaged"


def best(lookup, run="digits", **options):
    return lookup.best(run, **options).version


# ------------------------------------------------------------ runs


def test_none_means_the_only_run_there_is(storage, lookup):
    runs(storage, digits=[1])

    assert lookup.paths(None) == ["digits"]
    assert lookup.one_path(None) == "digits"


def test_several_runs_are_listed_when_none_is_named(storage, lookup):
    runs(storage, digits=[1], other=[1])

    said = (
        r"several runs: name one, as run=… or in a ref such as 'digits@latest'; runs: 'digits', 'o"
    )
    with pytest.raises(RunNotFoundError, match=said):
        lookup.paths(None)
    assert lookup.every_path(None) == ["digits", "other"]


@pytest.mark.parametrize("harm", ["flipped", "lost"])
def test_among_all_runs_one_with_a_damaged_journal_is_warned_of(storage, lookup, harm):
    runs(storage, digits=[1], other=[1])
    for number in range(1, 8):
        note(storage, "other", number, tag_entry("prod", 1))
    key = journal_key("other", 2)
    if harm == "lost":
        del storage.objects[key]
    else:
        storage.objects[key] = b"{"

    with pytest.raises(JournalDamagedError, match=key):
        lookup.every_path("other")
    with pytest.warns(FallbackWarning, match=rf"recorded later in run 'other'.*{key}"):
        assert lookup.every_path(None) == ["digits", "other"]


def test_a_hole_in_a_journal_is_warned_of_even_if_nobody_looked_at_that_run_before(storage, lookup):
    runs(storage, digits=[1], other=[1])
    note(storage, "other", 9, tag_entry("prod", 1))

    with pytest.warns(FallbackWarning, match="recorded later in run 'other'"):
        assert lookup.every_path(None) == ["digits", "other"]


def test_no_run_at_all_says_so(lookup):
    with pytest.raises(RunNotFoundError, match="has no runs yet"):
        lookup.paths(None)
    assert lookup.every_path(None) == []


def test_an_unknown_run_lists_those_there_are(storage, lookup):
    runs(storage, digits=[1])

    with pytest.raises(RunNotFoundError, match="has no run 'digit'; runs: 'digits'"):
        lookup.paths("digit")
    with pytest.raises(RunNotFoundError, match=r"no run that 'sweep/\*' matches; runs: 'digits'"):
        lookup.paths("sweep/*")


def test_where_there_is_no_store_it_says_so():
    place = DictStorage("memory://nothing")
    lookup = Lookup(Catalog(None, place), place.url)

    for ask in (lookup.paths, lookup.every_path):
        for run in ("digits", None):
            with pytest.raises(NotAStoreError, match="memory://nothing holds no store"):
                ask(run)
    assert list(lookup.checkpoints("digits")) == []
    assert place.objects == {}


def test_a_glob_does_not_cross_a_slash_or_mind_case(storage, lookup):
    runs(storage, **{"sweep/a": [1], "sweep/b": [1], "sweep/a/x": [1], "other": [1]})

    assert lookup.paths("Sweep/*") == ["sweep/a", "sweep/b"]
    assert lookup.paths("*/*/*") == ["sweep/a/x"]
    assert lookup.paths("*") == ["other"]
    with pytest.raises(RunNotFoundError, match=r"'sweep/\*' matches several runs: 'sweep/a'"):
        lookup.one_path("sweep/*")


def test_a_run_is_found_however_its_case_is_spelled(storage, lookup):
    commit(storage, make_head("Digits", 1))

    assert lookup.by_ref("digits@1").head.run == "Digits"
    assert lookup.by_ref("DIGITS@latest").version == 1


# ------------------------------------------------------------ refs


@pytest.mark.parametrize(
    ("ref", "version"),
    [
        ("digits", 3),
        ("digits@1", 1),
        ("digits@2", 2),
        ("digits@best", 2),
        ("digits@latest", 3),
        ("digits@prod", 1),
        ("@2", 2),
        ("@best", 2),
        ("@latest", 3),
        ("@prod", 1),
        (2, 2),
        (Ref("digits", 3), 3),
    ],
)
def test_every_kind_of_ref(storage, lookup, ref, version):
    runs(storage, digits=[3, 1, 2])
    note(storage, "digits", 1, tag_entry("prod", 1))

    assert lookup.by_ref(ref).version == version


def test_an_unknown_version_or_tag_lists_what_there_is(storage, lookup):
    runs(storage, digits=[1, 2])
    with pytest.raises(VersionNotFoundError, match=r"no tag 'prod'; its tags: none"):
        lookup.by_ref("digits@prod")
    note(storage, "digits", 1, tag_entry("test", 1))

    with pytest.raises(VersionNotFoundError, match=r"'digits' has no version 3; the newest is 2"):
        lookup.by_ref("digits@3")
    with pytest.raises(VersionNotFoundError, match=r"no tag 'prod'; its tags: test"):
        lookup.by_ref("digits@prod")


def test_kinds_are_told_apart_by_words_and_not_by_numbers(storage, lookup):
    commit(storage, make_head("digits", 1))
    with pytest.raises(VersionNotFoundError, match="run 'digits' has no package"):
        lookup.by_ref("digits@latest", "package")
    commit(storage, make_head("digits", 2, kind="package", metrics={"val_loss": 0.0}))

    assert lookup.by_ref("digits@latest").version == 1
    assert lookup.by_ref("digits@best").version == 1
    assert lookup.by_ref("digits@latest", "package").version == 2
    assert lookup.by_ref("digits@best", "package").version == 2
    assert lookup.by_ref("digits@2").head.kind == "package"


def test_a_damaged_version_is_never_swapped_for_another(storage, lookup):
    runs(storage, digits=[1, 2, 3])
    damage(storage, "digits", 3)
    note(storage, "digits", 1, tag_entry("prod", 3))

    for ref in ("digits@3", "digits@latest", "digits", "digits@prod"):
        with pytest.raises(IntegrityError, match=r"digits@3 is damaged: .*load another version"):
            lookup.by_ref(ref)
    assert lookup.by_ref("digits@2").version == 2
    assert versions_of(list(lookup.checkpoints("digits"))) == [3, 2, 1]


# ------------------------------------------------------------ best


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([3.0, 1.0, 2.0], None, 2),
        ([3.0, 1.0, 2.0], "max", 1),
        ([math.nan, 2.0, math.nan], None, 2),
        ([2.0, math.nan, 1.0], "max", 1),
        ([1.0, 1.0, 1.0], None, 1),
        ([2.0, 1.0, 1.0], None, 2),
        ([1.0, 2.0, 2.0], "max", 2),
        ([1.0, -math.inf, 0.0], None, 2),
        ([1.0, math.inf, 0.0], None, 3),
        ([1.0, math.inf, 0.0], "max", 2),
        ([math.inf, math.inf], None, 1),
        ([None, 2.0], None, 2),
        ([0, 1, -1], None, 3),
        ([2**60, 2**60 + 1], "max", None),
        ([-0.0, 0.0], None, 1),
    ],
)
def test_best_by_value(storage, lookup, values, mode, expected):
    runs(storage, digits=values)

    found = best(lookup, mode=mode)
    assert found == expected if expected else found in (1, 2)


def test_nan_alone_is_no_value(storage, lookup):
    runs(storage, digits=[math.nan, math.nan])

    with pytest.raises(MetricNotFoundError, match="no checkpoint has a usable value of 'val_loss'"):
        best(lookup)


def test_an_unknown_metric_lists_those_there_are(storage, lookup):
    commit(storage, make_head("digits", 1, metrics={"val_loss": 1.0, "acc": 0.5}))

    with pytest.raises(MetricNotFoundError, match=r"value of 'f1'; .*: 'acc', 'val_loss'"):
        best(lookup, metric="f1", mode="max")


def test_no_metric_at_all_says_so(storage, lookup):
    runs(storage, digits=[None])

    with pytest.raises(MetricNotFoundError, match="metrics recorded: none"):
        best(lookup)


def test_no_checkpoint_at_all_says_so(storage, lookup):
    commit(storage, make_head("digits", 1, kind="package"))

    with pytest.raises(
        VersionNotFoundError, match="memory://store: run 'digits' has no checkpoint"
    ):
        best(lookup)
    commit(storage, make_head("other", 1, kind="package"))
    with pytest.raises(
        VersionNotFoundError, match="none of the runs 'digits', 'other' has a checkpoint"
    ):
        lookup.best("*")


def test_another_metric_than_the_monitor_needs_a_mode(storage, lookup):
    commit(storage, make_head("digits", 1, metrics={"val_loss": 1.0, "acc": 0.5}))

    with pytest.raises(ArgumentError, match=r"metric='acc' is not the monitor, .*'val_loss' \(min"):
        best(lookup, metric="acc")
    with pytest.raises(ArgumentError, match="mode='up': say 'min'"):
        best(lookup, metric="acc", mode="up")
    assert best(lookup, metric="acc", mode="max") == 1
    assert best(lookup, metric="val_loss") == 1


def test_the_recorded_monitor_is_meant(storage, lookup):
    for version, (loss, acc) in enumerate([(1.0, 0.1), (2.0, 0.9)], 1):
        commit(storage, make_head("digits", version, metrics={"val_loss": loss, "acc": acc}))
    assert best(lookup) == 1
    note(storage, "digits", 1, settings_entry("acc", "max"))

    assert best(lookup) == 2
    assert best(lookup, metric="acc") == 2
    assert best(lookup, mode="min") == 1
    assert best(lookup, metric="val_loss", mode="min") == 1
    assert best(lookup, given=("val_loss", "min")) == 1
    assert lookup.by_ref("digits@best", given=("val_loss", "max")).version == 2


# ------------------------------------------------------------ across runs


def test_a_glob_compares_across_runs(storage, lookup):
    runs(storage, **{"sweep/a": [3.0, 2.0], "sweep/b": [math.nan, 1.0], "other": [0.0]})

    found = lookup.best("sweep/*")
    assert (found.path, found.version) == ("sweep/b", 2)


def test_a_tie_between_runs_goes_to_the_earlier(storage, lookup):
    runs(storage, **{"sweep/a": [3.0, 1.0], "sweep/b": [1.0]})

    found = lookup.best("sweep/*")
    assert (found.path, found.version) == ("sweep/b", 1)


def test_runs_that_monitor_different_metrics_must_be_told(storage, lookup):
    for run in ("sweep/a", "sweep/b"):
        commit(storage, make_head(run, 1, metrics={"val_loss": 1.0, "acc": 0.5, "f1": 0.2}))
    note(storage, "sweep/a", 1, settings_entry("acc", "max"))

    with pytest.raises(ArgumentError, match=r"different metrics: 'acc' \(max\), 'val_loss' \(min"):
        lookup.best("sweep/*")
    with pytest.raises(ArgumentError, match=r"not the monitor, which is 'acc' \(max\), 'val_loss'"):
        lookup.best("sweep/*", metric="f1")
    assert lookup.best("sweep/*", metric="acc").path == "sweep/a"
    assert lookup.best("sweep/*", metric="f1", mode="max").path == "sweep/a"
    assert lookup.best("sweep/*", given=("acc", "max")).path == "sweep/a"


def test_runs_that_differ_in_mode_alone_must_be_told_the_mode(storage, lookup):
    runs(storage, **{"sweep/a": [1.0], "sweep/b": [2.0]})
    note(storage, "sweep/a", 1, settings_entry("val_loss", "max"))

    with pytest.raises(ArgumentError, match="different metrics"):
        lookup.best("sweep/*", metric="val_loss")
    assert lookup.best("sweep/*", mode="max").path == "sweep/b"


# ------------------------------------------------------------ damage


def test_best_says_which_manifests_it_could_not_read(storage, lookup):
    runs(storage, digits=[3.0, 1.0, 2.0, 0.0])
    damage(storage, "digits", 2)
    damage(storage, "digits", 4)

    with pytest.warns(FallbackWarning, match="'val_loss' is looked for without digits@2, digits@4"):
        assert best(lookup) == 3


def test_best_does_not_warn_where_nothing_is_damaged(storage, lookup):
    runs(storage, digits=[3.0], other=[1.0])
    damage(storage, "other", 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best(lookup) == 1


def test_best_does_not_read_every_head(storage, lookup, monkeypatch):
    runs(storage, digits=[float(value) for value in range(20)])
    lookup.paths("digits")
    decoded = []

    def counted(line, where):
        decoded.append(where)
        return decode_head(line, where)

    decode_head = queries.decode_head
    monkeypatch.setattr(queries, "decode_head", counted)
    best(lookup)

    assert len(decoded) == 1


def test_a_newer_version_stops_whoever_could_have_meant_it(storage, lookup):
    runs(storage, digits=[1.0, 2.0])
    key = version_key("digits", 2)
    line, _, rest = storage.objects[key].partition(b"\n")
    newer = line.replace(b'"format":1', b'"format":2')
    storage.objects[key] = newer + b'\n"' + digest(newer).encode() + b'"\n' + rest[68:]

    for ref in ("digits@best", "digits@latest"):
        with pytest.raises(NewerFormatError, match="upgrade"):
            lookup.by_ref(ref)
    assert lookup.by_ref("digits@1").version == 1
