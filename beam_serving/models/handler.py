"""Any model directory as a Beam `ModelHandler`: for our own pipeline, and for `RunInference` in anyone's."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from beam_serving.errors import ModelError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec
from beam_serving.models.batches import UNNAMED, alike, predict_batch
from beam_serving.models.inputs import as_array, resolve_input
from beam_serving.models.opening import open_model
from beam_serving.models.options import checked_options

Tensor = np.ndarray | Sequence[Any] | float | str
"""A tensor without batch axis: an array, nested lists, a number or a text."""
ModelInput = Tensor | Mapping[str, Tensor]
"""An example: the tensor of a model's only input, or all inputs by name."""
Inference = np.ndarray | Mapping[str, np.ndarray]
"""What the model gives for one example: the row of its only output, or the rows of all outputs by name."""


class Prediction(PredictionResult):
    """Beam's `PredictionResult`; `prediction["name"]` is an output of a model with several."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        return self.inference[key] if isinstance(key, str) else tuple.__getitem__(self, key)


class DirectoryModelHandler(ModelHandler[ModelInput, Prediction, LoadedModel]):
    """Serves the model in a directory, whatever its format, as the service does.

    Every worker process loads its own copy. The directory is looked at when a worker loads it, on the worker; the files
    that it has then are served until the next load, whatever happens to them.

    Args:
        directory: that of the model, on the workers; "noop" is the model that computes nothing.
        options: how to load it; None for the defaults.
        min_batch_size: the fewest examples in one batch, but for the last one of a bundle.
        max_batch_size: the most examples in one batch.

    Raises:
        ConfigError: an option has a value that it cannot have.
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
        self._options = checked_options(options or ModelOptions())

    def load_model(self) -> LoadedModel:
        """Load the model in this process; the first load of its files tries them in another one.

        Returns:
            The model, ready to predict.

        Raises:
            ModelLoadError: the directory does not hold one model that can be served.
            ConfigError: the secret of an encrypted model is missing, or weak where that is not allowed.
        """
        return open_model(self._directory, self._options).model

    def run_inference(
        self, batch: Sequence[ModelInput], model: LoadedModel, inference_args: dict[str, object] | None = None
    ) -> Iterable[Prediction]:
        """Yield one prediction per example, in their order.

        Args:
            batch: examples without a batch axis, or with one of size 1: the tensor of a model's only input, or all
                inputs by name. They may differ in shape. Numbers of another width than the model's are converted where
                no whole number changes and none becomes infinite.
            model: what `load_model` returned.
            inference_args: None or empty: a model in a directory takes none.

        Yields:
            The example and what the model gave for it: the row of its only output, or the rows of all outputs by name.

        Raises:
            ValueError: there are `inference_args`.
            RequestError: an example does not fit the model; the message says which input and what it takes.
            ModelError: the model failed.
        """
        self.validate_inference_args(inference_args)
        examples = [_example(one, model.inputs) for one in batch]
        inferences: list[Inference] = [{} for _ in batch]
        for places in alike(examples, model.one_by_one):
            for place, rows in zip(places, _predicted(model, [examples[place] for place in places]), strict=True):
                inferences[place] = next(iter(rows.values())) if len(rows) == 1 else rows
        for one, inference in zip(batch, inferences, strict=True):
            yield Prediction(one, inference, self._directory)

    def get_num_bytes(self, batch: Sequence[ModelInput]) -> int:
        """Return the size of the tensors of a batch, in bytes.

        Args:
            batch: examples as `run_inference` takes them.
        """
        return sum(np.asarray(tensor).nbytes for example in batch for tensor in _named(example).values())

    def get_metrics_namespace(self) -> str:
        """Return the namespace of the metrics of `RunInference`."""
        return "beam_serving"

    def validate_inference_args(self, inference_args: dict[str, object] | None) -> None:
        """Refuse arguments: a model in a directory takes none.

        Args:
            inference_args: those of `RunInference`.

        Raises:
            ValueError: there are some.
        """
        if inference_args:
            raise ValueError(f"inference_args are {sorted(inference_args)}, wanted are none")

    def update_model_path(self, model_path: str | None = None) -> None:
        """Serve another directory from the next load on (Beam's automatic model refresh).

        Args:
            model_path: that directory; None or "" changes nothing.
        """
        self._directory = model_path or self._directory


def handler_for(
    model_directory: Path | str, *, min_batch_size: int = 1, max_batch_size: int = 32, **options: Any
) -> DirectoryModelHandler:
    """Return a Beam `ModelHandler` for a model directory.

    Args:
        model_directory: that of the model, on the workers, where it is first looked at; "noop" is the model that
            computes nothing.
        min_batch_size: the fewest examples in one batch, but for the last one of a bundle.
        max_batch_size: the most examples in one batch.
        **options: the fields of `ModelOptions`.

    Raises:
        ConfigError: an option has a value that it cannot have.
        TypeError: there is no such option.
    """
    return DirectoryModelHandler(
        model_directory, ModelOptions(**options), min_batch_size=min_batch_size, max_batch_size=max_batch_size
    )


def _predicted(model: LoadedModel, examples: Sequence[Mapping[str, np.ndarray]]) -> list[Mapping[str, np.ndarray]]:
    """Return the outputs of each example; a batch that fails is predicted one by one, as in the service."""
    try:
        outputs = predict_batch(model, examples)
    except ModelError:
        if len(examples) == 1:
            raise
        return [rows for example in examples for rows in _predicted(model, [example])]
    return [{name: output[row, ...] for name, output in outputs.items()} for row in range(len(examples))]


def _named(example: ModelInput) -> Mapping[str, Tensor]:
    return example if isinstance(example, Mapping) else {UNNAMED: example}


def _example(example: ModelInput, inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    named = {name: as_array(tensor) for name, tensor in _named(example).items()}
    if len(inputs) == 1 and UNNAMED in named:
        named = {inputs[0].name: named[UNNAMED]}
    specs = {spec.name: spec for spec in inputs}
    return {name: resolve_input(array, specs[name]) if name in specs else array for name, array in named.items()}
