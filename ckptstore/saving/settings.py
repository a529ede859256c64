"""A run's settings as a caller names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore.format.facts import Mode, Settings


@dataclass(frozen=True)
class GivenSettings:
    """The settings a caller named; what is None was left to the run's journal."""

    monitor: str | None = None
    mode: Mode | None = None
    config: Any = None
    keep: Mapping[str, Any] | None = None
    """What retention keeps, as its own JSON."""

    def over(self, recorded: Settings | None) -> Settings:
        """Return these settings where they were given, else the recorded or default ones."""
        base = recorded or Settings()
        return Settings(
            self.monitor if self.monitor is not None else base.monitor,
            self.mode if self.mode is not None else base.mode,
            self.config if self.config is not None else base.config,
            self.keep if self.keep is not None else base.keep,
        )


def given_settings(
    config: Mapping[str, Any] | None,
    monitor: str | None,
    mode: Mode | None,
    keep: Mapping[str, Any] | None = None,
) -> GivenSettings:
    """Return the settings a caller named.

    Raises:
        UnsupportedValueError: A value of *config* can't be kept.
        ArgumentError: *config* is no dict with string keys.
    """
    if config is None:
        return GivenSettings(monitor, mode, None, keep)
    # Imports torch, which no command of the command line needs.
    from ckptstore.saving.capture import encode_config

    return GivenSettings(monitor, mode, encode_config(config, "config"), keep)


def shown(settings: Settings) -> str:
    """Return settings for people."""
    config = "" if settings.config is None else ", config=…"
    keep = "" if settings.keep is None else f", keep={dict(settings.keep)!r}"
    return f"monitor={settings.monitor!r}, mode={settings.mode!r}{config}{keep}"
