"""Any model directory as a Beam `ModelHandler`: for our own pipeline, and for `RunInference` in anyone's."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.batches import UNNAMED, predict_batch
from beam_serving.models.encrypted import opened_model
from beam_serving.models.loading import load

ModelInput = np.ndarray | Mapping[str, np.ndarray]
"""An example without batch axis: the tensor of a model's only input, or all inputs by name."""
Prediction = np.ndarray | Mapping[str, np.ndarray]
"""What the model gives for one example: the row of its only output, or the rows of all outputs by name."""


class DirectoryModelHandler(ModelHandler[ModelInput, Prediction, LoadedModel]):
    """Serves the model in a directory, whatever its format.

    Every worker process loads its own copy. The directory is looked at when a worker loads it, on the worker.
    """

    def __init__(
        self,
        directory: Path | str,
        options: ModelOptions | None = None,
        *,
        min_batch_size: int = 1,
        max_batch_size: int = 32,
    ) -> None:
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size)
        self._directory = str(directory)
        self._options = options or ModelOptions()

    def load_model(self) -> LoadedModel:
        """Loads the model.

        Raises:
            ModelLoadError: the directory does not hold one model that can be served.
        """
        with opened_model(self._directory, self._options) as files:
            return load(files, self._options)

    def run_inference(
        self, batch: Sequence[ModelInput], model: LoadedModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Prediction]:
        """Gives one prediction per example, in their order.

        Raises:
            ModelError: an example does not fit the model, or the model failed.
        """
        self.validate_inference_args(inference_args)
        outputs = predict_batch(model, [_named(example) for example in batch])
        if len(outputs) == 1:
            yield from next(iter(outputs.values()))
            return
        for row in range(len(batch)):
            yield {name: rows[row] for name, rows in outputs.items()}

    def get_num_bytes(self, batch: Sequence[ModelInput]) -> int:
        """Sums the sizes of the tensors of a batch."""
        return sum(array.nbytes for example in batch for array in _named(example).values())

    def get_metrics_namespace(self) -> str:
        """Names the metrics of `RunInference`."""
        return "beam_serving"

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Refuses arguments: a model in a directory takes none."""
        if inference_args:
            raise ValueError(f"inference_args are {sorted(inference_args)}, wanted are none")

    def update_model_path(self, model_path: str | None = None) -> None:
        """Serves another directory from the next load on (Beam's automatic model refresh)."""
        self._directory = model_path or self._directory


def handler_for(
    model_directory: Path | str, *, min_batch_size: int = 1, max_batch_size: int = 32, **options: Any
) -> DirectoryModelHandler:
    """Gives a Beam `ModelHandler` for a model directory; `options` are the fields of `ModelOptions`.

    `handler_for("noop")` is the model that computes nothing.
    """
    return DirectoryModelHandler(
        model_directory, ModelOptions(**options), min_batch_size=min_batch_size, max_batch_size=max_batch_size
    )


def _named(example: ModelInput) -> Mapping[str, np.ndarray]:
    return example if isinstance(example, Mapping) else {UNNAMED: example}
