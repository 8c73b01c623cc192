"""The torch engine: runs a module as it is, on a GPU or where OpenVINO cannot take it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from beam_serving.errors import ModelError
from beam_serving.models.base import TensorSpec, describe, numbered, readable, zeros
from beam_serving.models.fixed_batch import agree, infer_rows


class TorchModel:
    """A module on `device`; `trial_batch` is a batch that it surely takes: the one it was traced with.

    The outputs are named by their position, or as the module names them where it returns a dictionary.
    """

    engine = "torch"

    def __init__(self, module: Any, inputs: tuple[TensorSpec, ...], trial_batch: int, device: str = "cpu") -> None:
        self._module = module
        self._device = device
        self._wanted: list[str] = []
        self.inputs = inputs
        trial = self._run([zeros(spec, trial_batch) for spec in inputs])
        self.outputs = tuple(TensorSpec(name, rows.shape[1:], rows.dtype) for name, rows in trial.items())
        self._fixed_batch = None if agree(self.infer, self.infer, inputs, trial_batch) else trial_batch

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`."""
        rows = infer_rows(self.infer, [batch[spec.name] for spec in self.inputs], self._fixed_batch)
        return {spec.name: column for spec, column in zip(self.outputs, rows, strict=True)}

    def infer(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Runs the module on its inputs in order; see `fixed_batch.Infer`."""
        given = self._run(arrays)
        return [given[name] for name in self._wanted] if self._wanted else list(given.values())

    def select(self, names: list[str]) -> None:
        """Serves these outputs only, in this order."""
        by_name = {spec.name: spec for spec in self.outputs}
        self._wanted = names
        self.outputs = tuple(by_name[name] for name in names)

    def _run(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        try:
            with torch.inference_mode():
                given = self._module(*[torch.from_numpy(readable(array)).to(self._device) for array in arrays])
                return {name: _owned(tensor) for name, tensor in _named(given)}
        except (RuntimeError, TypeError) as err:
            shapes = ", ".join(describe(array.dtype, array.shape) for array in arrays)
            raise ModelError(f"the model failed on a batch of {shapes}") from err


def _named(given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, dict):
        return list(given.items())
    tensors = list(given) if isinstance(given, tuple | list) else [given]
    return list(zip(numbered("output", len(tensors)), tensors, strict=True))


def _owned(tensor: Any) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"the module returned a {type(tensor).__name__}, wanted are tensors")
    # A module may return its input or a weight: the copy belongs to the caller.
    owned: np.ndarray = tensor.detach().cpu().numpy().copy()
    return owned
