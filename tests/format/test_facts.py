"""What a journal adds up to begins with nothing."""

from __future__ import annotations

from ckptstore.format.facts import Facts, Settings, VersionFacts


def test_without_a_word_a_run_is_judged_by_val_loss_and_keeps_everything():
    assert Settings() == Settings("val_loss", "min", None, None)
    assert Facts() == Facts(None, {}, {})


def test_nothing_is_known_of_a_version_at_first():
    assert VersionFacts() == VersionFacts((), {}, None, None, None)
