"""What there is to know of a model in a process that does not serve it: drivers build a pipeline and load nothing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from beam_serving.models.base import STRING, LoadedModel, TensorSpec, type_name


class ModelInfo(NamedTuple):
    """A model as the pipeline meets it.

    Attributes:
        engine: what runs it.
        inputs: those that requests send; empty where it takes whatever comes.
        outputs: those that are served.
        batch_size: the most records in one inference: as asked for, or else the size that serves most.
    """

    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_size: int

    @classmethod
    def of(cls, model: LoadedModel, batch_size: int) -> "ModelInfo":
        """Take from a loaded model what others may want to know."""
        return cls(model.engine, model.inputs, model.outputs, batch_size)

    def encode(self) -> dict[str, Any]:
        """Return it as plain values of JSON."""
        return {
            "engine": self.engine,
            "batch_size": self.batch_size,
            **{
                name: [{**spec._asdict(), "dtype": type_name(spec.dtype)} for spec in specs]
                for name, specs in (("inputs", self.inputs), ("outputs", self.outputs))
            },
        }

    @classmethod
    def decode(cls, plain: Mapping[str, Any]) -> "ModelInfo":
        """Read what `encode` returned, also after its way through JSON."""
        inputs, outputs = (tuple(map(_spec, plain[name])) for name in ("inputs", "outputs"))
        return cls(str(plain["engine"]), inputs, outputs, int(plain["batch_size"]))


def _spec(plain: Mapping[str, Any]) -> TensorSpec:
    shape, dtype = plain["shape"], plain["dtype"]
    return TensorSpec(
        plain["name"],
        None if shape is None else tuple(shape),
        STRING if dtype == type_name(STRING) else np.dtype(dtype),
        plain["below"],
        plain["nan"],
    )
