"""The verbs that keep a store in order: retention, clean-up, checks, copies."""

from __future__ import annotations

from ckptstore.opened import Opened


class Keeping(Opened):
    """Retention, clean-up, checks, copies."""
