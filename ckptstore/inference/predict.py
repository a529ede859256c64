"""Predictions as the hand-written recipe makes them: shape checked, statistics, model, argmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ckptstore.errors import ArgumentError, MismatchError
from ckptstore.inference.arrays import real_array
from ckptstore.inference.preprocessing import Preprocessing


class Predictor:
    """A module in eval mode with what turns raw samples into class names.

    Args:
        module: In eval mode.
        preprocessing: Applied in float64 before the input is cast to the module's dtype, or None.
        class_names: One a class, in the order of the module's outputs, or None.
        shape: The shape of one sample, or None where it is unknown: then every input is a batch.
        integers: Whether the module takes integers (tokens) as they are; else input is cast to its
            dtype.
        ref: Names the package in errors.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocessing: Preprocessing | None,
        class_names: Sequence[Any] | None,
        shape: tuple[int, ...] | None,
        *,
        integers: bool,
        ref: str,
    ) -> None:
        self._module = module
        self._preprocessing = preprocessing
        self._class_names = class_names
        self._shape = shape
        self._integers = integers
        self._ref = ref

    def predict(self, samples: Any) -> Any:
        """Return the class name of one sample, or a list of them for a batch.

        Args:
            samples: NumPy, nested lists or a tensor; one sample, or a batch of shape (N, *sample).

        Raises:
            ArgumentError: The input is no numbers, or has another shape than the package's samples.
            MismatchError: The package has no class names, the module raised (its error is the
                cause), or its output is not of shape (N, number of classes).
        """
        batch, single = self._batch(samples)
        scores = self._scores(batch)
        names = self._names()
        chosen = [names[index] for index in scores.argmax(dim=1).tolist()]
        return chosen[0] if single else chosen

    def predict_proba(self, samples: Any) -> Any:
        """Return each class's probability: the softmax of the module's outputs.

        Args:
            samples: As for :meth:`predict`.

        Returns:
            A NumPy array of float32 or float64, shape (classes,) for one sample, else (N, classes).
        """
        batch, single = self._batch(samples)
        scores = self._scores(batch)
        # Half precision would round probabilities to three digits.
        wide = scores if scores.dtype == torch.float64 else scores.float()
        chances = torch.softmax(wide, dim=1).cpu().numpy()
        return chances[0] if single else chances

    def _names(self) -> Sequence[Any]:
        if self._class_names is None:
            raise MismatchError(
                f"{self._ref} cannot name classes",
                ["it was saved without class_names="],
                "Use .model for raw outputs, or save the package with class_names=[…].",
            )
        return self._class_names

    def _batch(self, samples: Any) -> tuple[torch.Tensor, bool]:
        raw, single = self._as_batch(real_array(samples, "predict()"))
        parameter = next((p for p in self._module.parameters() if p.is_floating_point()), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        if self._integers:
            if raw.dtype.kind == "f":
                raise ArgumentError(
                    f"{self._ref}: its model takes whole numbers, not {raw.dtype}: it was saved "
                    "with a sample= of integers"
                )
            return torch.from_numpy(np.array(raw, dtype=np.int64)).to(device), single
        if self._preprocessing is not None:
            raw = self._preprocessing.apply(raw.astype(np.float64))
        ready = torch.from_numpy(np.array(raw))
        return ready.to(parameter.dtype if parameter is not None else torch.float32).to(
            device
        ), single

    def _as_batch(self, raw: Any) -> tuple[Any, bool]:
        if self._shape is None:
            if raw.ndim == 0:
                raise ArgumentError(
                    f"{self._ref}: predict() takes a batch, shape (N, …), not a single number"
                )
            return raw, False
        if raw.shape == self._shape:
            return raw[np.newaxis], True
        if raw.shape[1:] == self._shape:
            return raw, False
        batch = ", ".join(["N", *map(str, self._shape)])
        raise ArgumentError(
            f"{self._ref}: expected one sample of shape {self._shape} or a batch of shape "
            f"({batch}{'' if self._shape else ','}), and got {tuple(raw.shape)}; where the "
            "statistics' shape is not a sample's, save the package with sample="
        )

    def _run(self, batch: torch.Tensor) -> Any:
        try:
            with torch.inference_mode():
                return self._module(batch)
        except (MemoryError, torch.OutOfMemoryError):
            raise  # says itself what is wrong
        except Exception as error:
            raise self._refused(batch, error) from error

    def _refused(self, batch: torch.Tensor, error: Exception) -> MismatchError:
        """Return what the module was given and why, which its own error does not know."""
        if self._integers:
            taken = "whole numbers are given as they are, as the sample= it was saved with was some"
            advice = "If the model takes floats, save the package with a sample= of floats."
        else:
            first = "statistics are applied, and the result" if self._preprocessing else "input"
            taken = f"{first} is cast to the dtype of the model's weights"
            advice = (
                "If the model takes whole numbers, such as tokens, save the package with a sample= "
                "of integers and without preprocessing=."
            )
        return MismatchError(
            f"{self._ref}: its model raised {type(error).__name__} in predict()",
            [
                f"it was given a batch of shape {tuple(batch.shape)} of {batch.dtype}: {taken}",
                f"it said: {error}",
            ],
            f"{advice} Otherwise use .model and prepare its input yourself.",
        )

    def _scores(self, batch: torch.Tensor) -> torch.Tensor:
        output = self._run(batch)
        count = len(self._class_names) if self._class_names is not None else None
        shape = (
            tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__qualname__
        )
        # One logit says yes or no by its sign, which an argmax over one column would hide.
        if not (
            isinstance(output, torch.Tensor)
            and output.dim() == 2  # noqa: PLR2004 - samples by classes
            and output.shape[0] == batch.shape[0]
            and output.shape[1] == (count if count is not None else output.shape[1])
            and output.shape[1] > 1
        ):
            wanted = f"({batch.shape[0]}, {count if count is not None else 'number of classes'})"
            raise MismatchError(
                f"{self._ref} cannot be read as scores of classes",
                [f"the output should have shape {wanted}, two classes at least, and has {shape}"],
                "Use .model and read its output yourself.",
            )
        return output
