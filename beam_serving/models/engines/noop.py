"""The model that computes nothing: what is left of a measurement is the pipeline itself."""

from collections.abc import Mapping

import numpy as np

from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, listed_shapes, numbered
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats.registry import NOOP


class NoopModel:
    """Takes any tensors and gives, per row, the first value of the first input as `output`, float32[1]."""

    engine = NOOP
    outputs: tuple[TensorSpec, ...] = (TensorSpec("output", (1,), np.dtype(np.float32)),)
    class_names: Mapping[str, tuple[str, ...]] = {}
    one_by_one = False

    def __init__(self, inputs: tuple[TensorSpec, ...] = ()) -> None:
        self.inputs = inputs

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `LoadedModel.predict`; a row without values gives 0."""
        rows = next(iter(batch.values()))
        if not rows.size:
            return {"output": np.zeros((len(rows), 1), np.float32)}
        return {"output": rows.reshape(len(rows), -1)[:, :1].astype(np.float32)}


def load_noop(_files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Return the no-op model; with `input_shape` it takes only float32 tensors of these shapes."""
    if options.input_shape is None:
        return NoopModel()
    shapes = options.input_shape
    if not isinstance(shapes, Mapping):
        listed = listed_shapes(shapes)
        shapes = dict(zip(options.input_names or numbered("input", len(listed)), listed, strict=True))
    return NoopModel(tuple(TensorSpec(name, shape, np.dtype(np.float32)) for name, shape in shapes.items()))
