"""Small ONNX models for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
Tensor = Any
"""Name, type and shape (None where it is unknown), or what ONNX itself has for this."""


def node(operator: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> Any:
    """Give a node whose inputs and outputs are named in words."""
    return helper.make_node(operator, inputs.split(), outputs.split(), domain=domain, **attributes)


def saved(
    directory: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> Path:
    """Write `model.onnx` into a directory, which is given back; floats among the constants become float32."""
    arrays = {name: np.asarray(value) for name, value in (constants or {}).items()}
    stored = [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)
        for name, array in arrays.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        list(map(_info, inputs)),
        list(map(_info, outputs)),
        stored,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(directory / "model.onnx"))
    return directory


def _info(tensor: Tensor) -> Any:
    return helper.make_tensor_value_info(*tensor) if isinstance(tensor, tuple) else tensor
