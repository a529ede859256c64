"""Which keys of a module and of its saved state did not come together."""

from __future__ import annotations

from dataclasses import dataclass

from ckptstore.text import plain


@dataclass(frozen=True)
class KeyReport:
    """What of a module and its saved state did not come together. Empty: all of it did.

    Names are those of the module's state dict, without wrappers' prefixes.
    """

    missing: tuple[str, ...] = ()
    """In the module, and not in the version: as the class made them, or as they were."""
    unexpected: tuple[str, ...] = ()
    """In the version, and not in the module: not used."""
    mismatched: tuple[str, ...] = ()
    """In both, in different shapes: as the class made them, or as they were."""
    left_out: tuple[str, ...] = ()
    """Left out on purpose when the version was saved: as the class made them, or as they were."""
    changed: tuple[str, ...] = ()
    """Those of them that have other values here than when it was saved, where that was compared:
    ``restore`` and ``resume`` do."""

    def __bool__(self) -> bool:
        return bool(
            self.missing or self.unexpected or self.mismatched or self.left_out or self.changed
        )

    def __str__(self) -> str:
        """Return a line for each kind of key there is."""
        said = {
            "left out when it was saved": self.left_out,
            "left out, and of other values here than when it was saved": self.changed,
            "not saved": self.missing,
            "not in the module": self.unexpected,
            "of another shape": self.mismatched,
        }
        return "\n".join(
            f"{kind}: {', '.join(map(plain, keys))}" for kind, keys in said.items() if keys
        )
