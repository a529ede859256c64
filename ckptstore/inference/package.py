"""Packages: what is saved for inference, and the module, statistics and names read back from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ckptstore.entry import Checkpoint, LoadedPackage, Package
from ckptstore.errors import ArgumentError, VersionNotFoundError
from ckptstore.format.tree import encode
from ckptstore.inference import preprocessing
from ckptstore.inference.arrays import real_array
from ckptstore.inference.predict import Predictor
from ckptstore.inference.preprocessing import Preprocessing

PREPROCESSING_PART = "preprocessing"


@dataclass(frozen=True)
class Contents:
    """What a package holds beside its model."""

    preprocessing: Preprocessing | None
    class_names: tuple[Any, ...] | None
    sample_shape: tuple[int, ...] | None
    integers: bool

    def head(self) -> dict[str, Any]:
        """Return what the manifest's head says of it, as plain JSON."""
        return {
            "class_names": None
            if self.class_names is None
            else encode(list(self.class_names), "class_names"),
            "sample_shape": None if self.sample_shape is None else list(self.sample_shape),
            "integers": self.integers,
            "preprocessing": None if self.preprocessing is None else "statistics",
        }

    def state(self) -> dict[str, Any] | None:
        """Return the statistics as state to be saved, None if there are none."""
        return None if self.preprocessing is None else self.preprocessing.tree()


def contents(statistics: object, class_names: object, sample: object) -> Contents:
    """Check what ``save_package`` was given beside the model.

    Raises:
        ArgumentError: Statistics, names or sample are not usable; the message says what is wrong.
    """
    checked = None if statistics is None else preprocessing.check(statistics)
    kind = "f" if sample is None else real_array(sample, "sample=").dtype.kind
    return Contents(
        checked,
        _names(class_names),
        preprocessing.sample_shape(checked, sample),
        integers=checked is None and kind in "iu",
    )


def load_package(
    package: Checkpoint | Package,
    factory: Callable[..., torch.nn.Module],
    *,
    device: str | int | torch.device | None,
    model_config: Mapping[str, Any] | None,
    dtype: torch.dtype | None = None,
) -> LoadedPackage:
    """Load a package's module and what turns raw samples into class names with it.

    Raises:
        VersionNotFoundError: It is a checkpoint.
        CkptStoreError: As :meth:`ckptstore.Store.load`.
    """
    if not isinstance(package, Package):
        raise VersionNotFoundError(
            f"{package.ref} is a checkpoint, not a package: store.load() builds its model, and "
            f"store.save_package({package.ref!r}) makes a package of it"
        )
    said = package.metadata["package"]
    shape = said.get("sample_shape")
    has_statistics = PREPROCESSING_PART in package.parts
    statistics = preprocessing.check(package.state(PREPROCESSING_PART)) if has_statistics else None
    module = package.load(factory, device=device, model_config=model_config, dtype=dtype)
    predictor = Predictor(
        module,
        statistics,
        package.class_names,
        None if shape is None else tuple(shape),
        integers=bool(said.get("integers")),
        ref=package.ref,
    )
    return LoadedPackage(
        module,
        None if statistics is None else statistics.tree(),
        predictor.predict,
        predictor.predict_proba,
    )


def _names(class_names: object) -> tuple[Any, ...] | None:
    if class_names is None:
        return None
    if isinstance(class_names, (str, bytes)) or not isinstance(class_names, (Sequence, np.ndarray)):
        raise ArgumentError(
            f"class_names= takes a list with one name a class, not {class_names!r:.80}"
        )
    names = [name.item() if isinstance(name, np.generic) else name for name in class_names]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise ArgumentError(
                f"class_names=: a class is named by a string or an int, not {name!r:.80}"
            )
    if len(set(names)) != len(names):
        raise ArgumentError(
            "class_names=: two classes have one name, so a prediction could mean either"
        )
    return tuple(names)
