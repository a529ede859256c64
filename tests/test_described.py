"""A version is described by its head and by what was recorded later; no store is needed for it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from ckptstore.described import Described
from ckptstore.format.facts import Retired, VersionFacts
from ckptstore.format.manifest import Head, Pack, Parent, PartInfo

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SAVE, OTHER = UUID(int=1), UUID(int=2)
HEAD = Head(
    SAVE,
    "digits",
    7,
    "checkpoint",
    NOON,
    NOON,
    parent=Parent("base", 3, OTHER),
    epoch=4,
    metrics={"val_loss": 0.5, "worst": {"$float": "inf"}},
    packs=(Pack(SAVE, 0, 5000, 4096, "0" * 64), Pack(OTHER, 0, 9000, 4096, "0" * 64)),
    parts=(PartInfo("model", "module", 904, 10, "0" * 64, model_config={"width": 8}),),
)


def test_a_head_says_what_a_version_is():
    version = Described(HEAD)

    assert (version.ref, version.epoch, version.parent) == ("digits@7", 4, "base@3")
    assert version.metrics == {"val_loss": 0.5, "worst": float("inf")}
    assert (version.parts, version.model_config) == (("model",), {"width": 8})
    assert (version.size_bytes, version.new_bytes) == (904, 5000)
    assert repr(version) == "<Described digits@7 epoch=4 val_loss=0.5 worst=inf>"


def test_what_was_recorded_later_goes_before_it():
    retired = Retired(NOON, "by hand", 1)
    version = Described(HEAD, VersionFacts(metrics={"val_loss": 0.25}, retired=retired, note="x"))

    assert version.metrics["val_loss"] == 0.25
    assert (version.retired, version.note) == (retired, "x")
    assert version.metadata["retired"]["reason"] == "by hand"
    assert version.metadata["metrics"]["val_loss"] == 0.25
