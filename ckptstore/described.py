"""What a version's head says of it, and what was recorded about it later: plain data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ckptstore.format.facts import Retired, VersionFacts
from ckptstore.format.fields import format_time
from ckptstore.format.imported import ImportedFrom, imported_json
from ckptstore.format.manifest import File, Head, Pack, Parent
from ckptstore.format.timings import Timings, timings_json
from ckptstore.format.untree import decode
from ckptstore.text import number, plain

NOTHING_LATER = VersionFacts()


class Described:
    """A version as it is described, without its weights."""

    def __init__(self, head: Head, facts: VersionFacts = NOTHING_LATER) -> None:
        self.head = head
        self.facts = facts
        """What was recorded about it after it was saved, as of when it was looked up."""

    def __repr__(self) -> str:
        facts = [self.ref]
        facts += [f"epoch={self.epoch}"] if self.epoch is not None else []
        facts += [f"step={self.step}"] if self.step is not None else []
        facts += [f"{plain(name)}={number(value, 6)}" for name, value in self.metrics.items()]
        return f"<{type(self).__name__} {' '.join(facts)}>"

    @property
    def ref(self) -> str:
        """Its name: ``digits@7``."""
        return self.head.ref

    @property
    def run(self) -> str:
        """The run it is a version of."""
        return self.head.run

    @property
    def version(self) -> int:
        """Its number in the run, from 1."""
        return self.head.version

    @property
    def save_id(self) -> str:
        """The UUID of the save that made it."""
        return str(self.head.save_id)

    @property
    def epoch(self) -> int | None:
        """The epoch it was saved at."""
        return self.head.epoch

    @property
    def step(self) -> int | None:
        """The step it was saved at."""
        return self.head.step

    @property
    def metrics(self) -> dict[str, float | int]:
        """Its metrics by name; one that was logged later goes before the one it was saved with."""
        return {
            name: decode(value, f"{self.ref}, metrics") for name, value in self._metrics().items()
        }

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that pointed at it when it was looked up, sorted."""
        return self.facts.tags

    @property
    def note(self) -> str | None:
        """What somebody noted about it: :meth:`ckptstore.Store.note`."""
        return self.facts.note

    @property
    def retired(self) -> Retired | None:
        """When and why it was retired, None if it is live."""
        return self.facts.retired

    @property
    def damage(self) -> str | None:
        """What a check found wrong with its data, None if nothing is known to be."""
        return self.facts.damage

    @property
    def config(self) -> dict[str, Any] | None:
        """The hyperparameters it was trained with, None if none were recorded."""
        config: dict[str, Any] | None = decode(self.head.config, f"{self.ref}, config")
        return config

    @property
    def model_config(self) -> dict[str, Any] | None:
        """Constructor arguments of the part ``model``, None where nobody recorded them."""
        for info in self.head.parts:
            if info.name == "model":
                config: dict[str, Any] | None = decode(
                    info.model_config, f"{self.ref}, model_config"
                )
                return config
        return None

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts."""
        return tuple(info.name for info in self.head.parts)

    @property
    def parts_left_out(self) -> tuple[str, ...]:
        """Parts that a guard left out of it, as there was no time or room to save them."""
        return tuple(self.head.left_out)

    @property
    def files(self) -> tuple[File, ...]:
        """Its files beside the parts, such as a program."""
        return tuple(self.head.files)

    @property
    def environment(self) -> dict[str, Any]:
        """What it was made with: versions, devices, flags, host, git commit, command line."""
        return dict(self.head.environment)

    @property
    def torch_version(self) -> str | None:
        """The torch it was saved with."""
        return self.head.environment.get("torch")

    @property
    def created_at(self) -> datetime:
        """When it was saved, in UTC."""
        return self.head.created_at

    @property
    def parent(self) -> str | None:
        """The ref of the version it came from."""
        parent: Parent | None = self.head.parent
        return None if parent is None else f"{parent.run}@{parent.version}"

    @property
    def imported_from(self) -> ImportedFrom | None:
        """The file of another tool that it was brought in from: its name, format and digest."""
        return self.head.imported_from

    @property
    def timings(self) -> Timings | None:
        """What saving it cost: how long the training was held up, and where the time went."""
        return self.head.timings

    @property
    def size_bytes(self) -> int:
        """The bytes of its tensors and files."""
        return self.head.size_bytes

    @property
    def new_bytes(self) -> int:
        """The bytes of the packs and files that this save wrote."""
        mine = self.head.save_id
        written: list[Pack | File] = [*self.head.packs, *self.head.files]
        return sum(item.size_bytes for item in written if item.save_id == mine)

    @property
    def metadata(self) -> dict[str, Any]:
        """All that is known of it without reading a weight, as plain JSON.

        Values that JSON has no word for are written as ``docs/format.md`` says, e.g. a tuple as
        ``{"$tuple": […]}``.
        """
        head = self.head
        return {
            "ref": self.ref,
            "kind": head.kind,
            "run": head.run,
            "version": head.version,
            "save": str(head.save_id),
            "created_at": format_time(head.created_at),
            "parent": self.parent,
            "tags": list(self.tags),
            "epoch": head.epoch,
            "step": head.step,
            "metrics": self._metrics(),
            "note": self.note,
            "retired": None
            if self.retired is None
            else {"at": format_time(self.retired.time), "reason": self.retired.reason},
            "damage": self.damage,
            "config": head.config,
            **imported_json(head.imported_from),
            "size_bytes": self.size_bytes,
            "parts": {
                info.name: {
                    "kind": info.kind,
                    "class": info.class_name,
                    "model_config": info.model_config,
                    "size_bytes": info.size_bytes,
                }
                for info in head.parts
            },
            **({"parts_left_out": list(head.left_out)} if head.left_out else {}),
            **({"files": [file.described() for file in head.files]} if head.files else {}),
            **({"package": dict(head.package)} if head.package is not None else {}),
            **timings_json(head.timings),
            "environment": dict(head.environment),
        }

    def _metrics(self) -> dict[str, Any]:
        return {**self.head.metrics, **self.facts.metrics}
