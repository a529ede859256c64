"""What the user holds: checkpoints and packages.

Entries are plain data out of a version's head. What an entry can do (load, restore) reaches down
through the store that made it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, Unpack

from ckptstore.audit import Audit
from ckptstore.described import NOTHING_LATER, Described
from ckptstore.errors import RetiredError
from ckptstore.format.facts import VersionFacts
from ckptstore.format.fields import format_time
from ckptstore.format.manifest import File, Head
from ckptstore.format.untree import decode
from ckptstore.reading import KeyPatterns, LazyTensor, LoadOptions, Model

if TYPE_CHECKING:
    import torch

    from ckptstore.format.part import Form


@dataclass(frozen=True)
class Record:
    """One version as the catalog knows it."""

    path: str
    """The run's path: its name in lower case."""
    version: int
    head: Head | None
    """None where the manifest is damaged."""
    damage: str | None = None
    """What is wrong with the manifest, where it is damaged."""
    facts: VersionFacts = NOTHING_LATER
    """What was recorded about it later: its tags, metrics, retirement, …"""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that point at it, sorted."""
        return self.facts.tags


def check_live(ref: str, facts: VersionFacts) -> None:
    """Refuse a version that is retired.

    Raises:
        RetiredError: It is; the message says when, by which rule, and what to do.
    """
    retired = facts.retired
    if retired is not None:
        raise RetiredError(
            ref,
            format_time(retired.time),
            retired.reason,
            f"store.undelete({ref!r}) brings it back while its data are there, or take another",
        )


class Source(Protocol):
    """What an entry reaches its bytes through."""

    def load(
        self, entry: Entry, factory: Callable[..., Model], **options: Unpack[LoadOptions]
    ) -> Model:
        """Build the module of one of an entry's parts."""

    def state(self, entry: Entry, part: str, device: str | int | torch.device) -> Any:
        """Return the state of one of an entry's parts."""

    def load_program(self, entry: Entry, device: Any, part: str, operators: Any) -> torch.nn.Module:
        """Return the program of one of an entry's parts."""

    def read_file(self, entry: Entry, file: File) -> memoryview:
        """Return one of an entry's files, compared with its digest."""

    def left_out(self, entry: Entry, part: str) -> Mapping[str, Form | None]:
        """Return the keys of one of an entry's parts that nobody saved, and what they were."""

    def tensors(self, entry: Entry, part: str, *, verify: bool) -> Mapping[str, LazyTensor]:
        """Return the tensors of one of an entry's parts, unread."""

    def restore(self, entry: Entry, parts: Mapping[str, Any], **how: Any) -> Audit:
        """Put an entry's state into live objects."""

    def log(
        self, entry: Entry, metrics: Mapping[str, Any] | None, values: Mapping[str, Any]
    ) -> VersionFacts:
        """Record later metrics of an entry, and return what is known of it then."""

    def write_json(
        self, path: str, value: object, storage_options: Mapping[str, Any] | None
    ) -> None:
        """Write a value as a JSON file, atomically."""


class Entry(Described):
    """A version: a checkpoint or a package. Two are equal if they are the same save."""

    def __init__(self, head: Head, source: Source, facts: VersionFacts = NOTHING_LATER) -> None:
        super().__init__(head, facts)
        self._source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (self.head.save_id, self.ref) == (
            other.head.save_id,
            other.ref,
        )

    def __hash__(self) -> int:
        return hash((self.head.save_id, self.ref))

    def write_metadata(
        self, path: str, *, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """Write :attr:`metadata` as a JSON file, to a folder of this machine or any fsspec URL.

        Args:
            path: The file; one that is there is replaced.
            storage_options: Arguments of the fsspec filesystem. None means the store's own where
                *path* is on the same kind of storage (``s3://`` both), else none.

        Raises:
            StorageError: It could not be written; nothing half-written is left.
        """
        self._source.write_json(path, self.metadata, storage_options)

    def log(self, metrics: Mapping[str, Any] | None = None, **values: Any) -> Self:
        """Record metrics that came later, e.g. ``checkpoint.log(test_acc=0.98)``.

        They stand in the run's journal, for every process to see: ``best`` goes by them too, and
        one of a name that was there before takes its place.

        Args:
            metrics: Metrics by any name.
            **values: Metrics by name: real numbers, as for ``save``. None is absent.

        Returns:
            The version as it is known now.

        Raises:
            ArgumentError: Something is no metric, or nothing was given.
            IntegrityError: The run's journal is damaged, or the version is gone.
            NewerFormatError: A newer ckptstore made the store or the journal.
            StorageError: The storage failed.
        """
        return self._known_as(self._source.log(self, metrics, values))

    def state(self, part: str, device: str | torch.device = "cpu") -> Any:
        """Return a part's state as it was saved: a state dict, or whatever ``state_dict()`` gave.

        Args:
            part: The part's name, e.g. ``optimizer``.
            device: Where its tensors go.

        Raises:
            VersionNotFoundError: There is no such part.
            RetiredError: The version is retired.
            IntegrityError: Some of its bytes are not what was saved.
            StorageError: The storage failed.
        """
        return self._source.state(self, part, device)

    def left_out(self, part: str = "model") -> tuple[str, ...]:
        """Return the keys of a module part that were left out on purpose: ``save(only=…)``.

        They come from the class when the module is loaded, and stay as the script has them when
        training is resumed.

        Raises:
            VersionNotFoundError: There is no such part.
            RetiredError: The version is retired.
            IntegrityError: The version's manifest is not what was saved.
            StorageError: The storage failed.
        """
        return tuple(self._source.left_out(self, part))

    def tensors(self, part: str = "model", *, verify: bool = False) -> Mapping[str, LazyTensor]:
        """Return a part's tensors by key; none is read before it is asked for.

        ::

            weight = checkpoint.tensors("model")["layer.weight"]
            weight.shape, weight.dtype  # nothing was read
            rows = weight[:100]  # these bytes alone, from a bucket too
            whole = weight[...]  # all of it, compared with its digest

        Where the part is no state dict, a key is the path to a tensor: ``state/0/exp_avg`` of an
        optimizer. Tensors are as they were stored; one that ``save(dtype=…)`` converted is not
        converted back.

        Args:
            part: The part's name.
            verify: Whether slices are compared with digests as well, which takes reading all of
                their tensor. Tensors that are read whole always are.

        Raises:
            VersionNotFoundError: There is no such part.
            RetiredError: The version is retired.
            IntegrityError: The version's manifest is not what was saved.
            StorageError: The storage failed.
        """
        return self._source.tensors(self, part, verify=verify)

    def load(
        self,
        ModelClass: Callable[..., Model],  # noqa: N803 - the design's word
        **options: Unpack[LoadOptions],
    ) -> Model:
        """Build a part's module, in eval mode on its device. See :meth:`ckptstore.Store.load`."""
        return self._source.load(self, ModelClass, **options)

    def load_program(
        self,
        *,
        device: str | int | torch.device | None = None,
        part: str = "model",
        operators: Collection[str] = (),
    ) -> torch.nn.Module:
        """Return a part's program: what the module computes in eval mode, without its class.

        It is there if the version was saved with ``program=``. Nothing of it is executed but
        operators of torch, on the weights of the part.

        ::

            program = store.best().load_program(device="cpu")
            logits = program(images)

        Args:
            device: Where it computes; None means CUDA if there is one, else the CPU.
            part: The part, e.g. ``model``.
            operators: Packages whose operators it may call beside torch's own, e.g.
                ``["torchvision"]``. They must be imported.

        Returns:
            A module that takes what the samples were, with a batch of any size where that was
            possible. It returns plain tuples, lists and dicts.

        Raises:
            VersionNotFoundError: The part has no program.
            MismatchError: It calls operators that were not allowed, or that are not there.
            DeviceError: The device is not there.
            RetiredError: The version is retired.
            IntegrityError: Some of its bytes are not what was saved.
            NewerFormatError: A newer ckptstore made it.
            StorageError: The storage failed.
        """
        return self._source.load_program(self, device, part, operators)

    def read_file(self, file: File) -> memoryview:
        """Return one of :attr:`files`, whole, compared with its digest.

        Raises:
            RetiredError: The version is retired.
            IntegrityError: It is gone, or not what was saved.
            StorageError: The storage failed.
        """
        return self._source.read_file(self, file)

    def _known_as(self, facts: VersionFacts) -> Self:
        """Return this version with what is known of it now."""
        made = copy.copy(self)
        made.facts = facts
        return made


class Checkpoint(Entry):
    """A version that can resume training."""

    @property
    def extra(self) -> Any:
        """What was saved as ``extra=``, None if nothing was. Each access reads the storage."""
        return self.state("extra") if "extra" in self.parts else None

    def restore(
        self,
        model: Any = None,
        optimizer: Any = None,
        *,
        rng: bool = False,
        strict: bool = True,
        only: KeyPatterns = None,
        skip: KeyPatterns = None,
        rename: Mapping[str, Any] | None = None,
        dtype: Literal["own"] | None = None,
        **parts: Any,
    ) -> Audit:
        """Put this version's state into live objects, in place.

        Everything is read and checked before anything is touched. Modules keep their mode, their
        device and their memory; optimizers are matched by their parameters' names.

        Args:
            model: The module, or None to leave it.
            optimizer: The optimizer, or None to leave it.
            rng: Also put the process's random generators back, last.
            strict: False leaves what does not fit as it is, with a warning, instead of raising: a
                part that was not saved; keys of a module that were not saved, that it lacks, or
                that have another shape. The answer lists them.
            only: Put back these keys of modules alone, e.g. ``"encoder.*"``, or several patterns;
                of the others nothing is read, and they stay as they are. Patterns are those of
                :class:`~ckptstore.reading.LoadOptions`. A dict says it for single parts:
                ``{"model": "encoder.*"}``.
            skip: Patterns of keys of modules to leave as they are; likewise.
            rename: What prefixes of saved keys are in the modules, ``{"backbone.": "encoder."}``;
                the optimizer's parameters are known by their new names too. A dict of such dicts
                says it for single parts.
            dtype: ``"own"`` converts floating tensors to the dtypes that the modules have; None
                takes only the dtypes that were saved.
            **parts: Further objects by the names they were saved under.

        Returns:
            What was done, and what was not.

        Raises:
            VersionNotFoundError: A part was not saved, and *strict* is true.
            RetiredError: The version is retired.
            MismatchError: Something does not fit; it lists every mismatch.
            IntegrityError: Some bytes are not what was saved.
        """
        given = {"model": model, "optimizer": optimizer, **parts}
        keys = {"only": only, "skip": skip, "rename": rename, "dtype": dtype}
        return self._source.restore(self, given, rng=rng, strict=strict, keys=keys)


class Package(Entry):
    """A version for inference. Loaded through ``store.load_package``, it has its model."""

    def __init__(
        self,
        head: Head,
        source: Source,
        facts: VersionFacts = NOTHING_LATER,
        *,
        loaded: LoadedPackage | None = None,
    ) -> None:
        super().__init__(head, source, facts)
        self._loaded = loaded

    @property
    def class_names(self) -> list[Any] | None:
        """One name a class, in the order of the model's outputs; None if none were given."""
        names = (self.head.package or {}).get("class_names")
        decoded: list[Any] | None = decode(names, f"{self.ref}, class names")
        return decoded

    @property
    def model(self) -> torch.nn.Module:
        """The module, in eval mode on its device."""
        return self._need().model

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """``{"mean": …, "std": …}`` as float64 arrays, None if there is no preprocessing."""
        return self._need().preprocessing

    def predict(self, samples: Any) -> Any:
        """Return the class name of one sample, or a list of names for a batch.

        Args:
            samples: NumPy, nested lists or a tensor: one sample, or a batch of shape (N, *sample).

        Raises:
            ArgumentError: The input has another shape than the package's samples.
            MismatchError: There are no class names, the model raised, or the output is not
                (N, number of classes).
        """
        return self._need().predict(samples)

    def predict_proba(self, samples: Any) -> Any:
        """Return each class's probability, the softmax of the outputs, as a NumPy array.

        Args:
            samples: As for :meth:`predict`.

        Returns:
            Shape (classes,) for one sample, else (N, classes).
        """
        return self._need().predict_proba(samples)

    def _need(self) -> LoadedPackage:
        if self._loaded is None:
            raise AttributeError(
                f"{self.ref} was looked up, not loaded: store.load_package(ModelClass, "
                f"{self.ref!r}) has its model"
            )
        return self._loaded


@dataclass(frozen=True)
class LoadedPackage:
    """What ``load_package`` adds to a package."""

    model: torch.nn.Module
    preprocessing: dict[str, Any] | None
    predict: Callable[[Any], Any]
    predict_proba: Callable[[Any], Any]
