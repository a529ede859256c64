"""Settings a caller named go before recorded ones, and those before the defaults."""

from __future__ import annotations

import pytest

from ckptstore.errors import ArgumentError
from ckptstore.format.facts import Settings
from ckptstore.saving.settings import GivenSettings, given_settings, shown


def test_without_any_the_defaults_hold():
    assert GivenSettings().over(None) == Settings("val_loss", "min", None)


def test_what_was_not_named_stays_as_recorded():
    recorded = Settings("acc", "max", {"lr": 0.1})

    assert GivenSettings().over(recorded) == recorded
    assert GivenSettings("f1", "max").over(recorded) == Settings("f1", "max", {"lr": 0.1})
    assert GivenSettings(config={}).over(recorded) == Settings("acc", "max", {})


def test_a_config_is_kept_as_a_tree():
    given = given_settings({"betas": (0.9, 0.99)}, None, None)

    assert given == GivenSettings(config={"betas": {"$tuple": [0.9, 0.99]}})


def test_a_config_that_is_no_dict_is_refused():
    with pytest.raises(ArgumentError, match="config takes a dict"):
        given_settings([1], None, None)


def test_they_are_shown_without_the_whole_config():
    assert shown(Settings("acc", "max", {"lr": 1})) == "monitor='acc', mode='max', config=…"
    assert shown(Settings()) == "monitor='val_loss', mode='min'"
