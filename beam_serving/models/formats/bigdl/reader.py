"""Reads a BigDL `.model` file (and its weights file) into an `openvino.Model`."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import openvino as ov
import openvino.opset15 as ops

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl.decode import decode_model
from beam_serving.models.formats.bigdl.layer import Activity, Layer, UnsupportedLayerError, flat, sizes
from beam_serving.models.formats.bigdl.records import ModelFile, Module, ShapeValue
from beam_serving.models.formats.bigdl.registry import builder_of
from beam_serving.models.formats.bigdl.weights import Weights, read_weights_file
from beam_serving.models.formats.protowire import ProtoError, map_file

InputShapes: TypeAlias = tuple[int, ...] | tuple[tuple[int, ...], ...]
"""The shape of one example, or one for each input of a model with several; without the batch axis."""

_JAVA_SERIALISATION = b"\xac\xed\x00\x05"
_BUILD_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
MAX_INPUT_ELEMENTS = 1 << 28
MAX_LAYERS = 50_000
"""Layers built for a model, counting each time a layer of a table or of a loop is built."""


def read_bigdl(model: Path, weights: Path | None = None, input_shape: InputShapes | None = None) -> ov.Model:
    """Build the model with a free batch dimension, float32 inputs and BigDL's evaluation mode.

    `input_shape` stands in where the file does not say its own (Keras-style models do); the file's has precedence.
    Raises ModelLoadError when the files cannot be read as a model, or hold layers that are not supported.
    """
    file = _decode(model)
    try:
        storages = dict(file.storages)
        if weights is not None:
            storages.update(read_weights_file(weights))
        parameters = _parameters(file.root, input_shape)
        tensors = Weights(storages, weights is not None)
        job = _Job(tensors, itertools.count())
        with np.errstate(all="ignore"):  # weights and options that overflow are the model's affair
            results = _build(job, file.root, parameters[0] if len(parameters) == 1 else list(parameters))
        return _finish(file.root, results, parameters)
    except UnsupportedLayerError as err:
        names = dict.fromkeys(str(module) for module in _unsupported(file.root))
        listed = f"; all layers that are not supported: {', '.join(names)}" if len(names) > 1 else ""
        raise ModelLoadError(f"{model}: {err}{listed}") from err
    except ModelLoadError as err:
        raise ModelLoadError(str(err) if str(model.parent) in str(err) else f"{model}: {err}") from err
    except (*_BUILD_ERRORS, OSError, MemoryError, RecursionError) as err:
        raise ModelLoadError(f"{model}: the model cannot be built: {_first_line(err)}") from err


def _decode(model: Path) -> ModelFile:
    try:
        file = map_file(model)
        if bytes(file.view[:4]) == _JAVA_SERIALISATION:
            raise ModelLoadError(f"{model}: an old file of Java objects; load it in BigDL and save it with saveModule")
        return decode_model(file)
    except ProtoError as err:
        raise ModelLoadError(f"{model}: not a BigDL model, or a damaged or cut one: {err}; copy it again") from err
    except (OSError, RecursionError, MemoryError) as err:
        raise ModelLoadError(f"{model}: cannot be read: {err}") from err


def _parameters(root: Module, given: InputShapes | None) -> list[ov.op.Parameter]:
    """Return the inputs of the model, each with a free batch dimension."""
    names = _input_names(root)
    shapes = _stored_shapes(root) or _given_shapes(given, len(names))
    if shapes is None:
        raise ModelLoadError("the file does not say its input shape; set data: shape, as in 3,224,224")
    if len(shapes) != len(names):
        names = [f"input{index}" for index in range(len(shapes))]
    parameters = []
    for name, shape in zip(names, shapes, strict=True):
        if any(size < 1 for size in shape) or np.prod(shape, dtype=object) > MAX_INPUT_ELEMENTS:
            raise ModelLoadError(f"input {name} has the shape {shape}")
        parameter = ops.parameter([-1, *shape], np.float32, name=name)
        parameter.output(0).set_names({name})
        parameters.append(parameter)
    return parameters


def _input_names(root: Module) -> list[str]:
    """Name of the inputs: those of the graph's input nodes, else `input`."""
    module = root
    while module.kind != "StaticGraph" and len(module.submodules) == 1:
        module = module.submodules[0]
    names = module.attributes.get("inputNames")
    if isinstance(names, tuple) and names and all(isinstance(name, str) for name in names):
        return [str(name) for name in names] if len(names) > 1 else ["input"]
    return ["input"]


def _stored_shapes(root: Module) -> list[tuple[int, ...]] | None:
    """Return the shapes of a Keras-style model, without the batch; of a plain container, what its first layer says."""
    first = root
    while first.submodules and first.kind in ("Sequential", "Merge") and not _merged(first):
        first = first.submodules[0]
    if merged := _merged(first):
        # A Merge of layers says the shapes of its layers' outputs; what they take, they say themselves.
        shapes = [module.input_shape for module in merged]
        return [tuple(shape[1:]) for shape in shapes if shape] if all(map(_is_single, shapes)) else None
    shape = root.input_shape or first.input_shape
    if not shape:
        return None
    entries: tuple[ShapeValue, ...] = shape if isinstance(shape[0], tuple) else (shape,)
    return [tuple(entry[1:]) for entry in entries] if all(map(_is_single, entries)) else None


def _merged(module: Module) -> tuple[Module, ...]:
    layers = module.attributes.get("layers") if module.kind == "Merge" else None
    return tuple(item for item in layers if isinstance(item, Module)) if isinstance(layers, tuple) else ()


def _is_single(shape: ShapeValue | None) -> bool:
    """Return whether it is the shape of one tensor with everything but the batch known."""
    return bool(shape) and all(isinstance(size, int) for size in shape or ()) and min((shape or ())[1:], default=1) > 0


def _given_shapes(given: InputShapes | None, inputs: int) -> list[tuple[int, ...]] | None:
    """Shapes as the operator gives them; a single one stands for every input."""
    if given is None:
        return None
    if given and isinstance(given[0], tuple):
        return [tuple(shape) for shape in given]
    return [tuple(given)] * inputs  # type: ignore[arg-type]


class _Job(NamedTuple):
    """What building a model needs everywhere: its weights, and the number of layers built so far."""

    weights: Weights
    built: Iterator[int]


def _build(job: _Job, module: Module, x: Activity) -> Activity:
    """Build one module; errors name it."""
    builder = builder_of(module.class_name)
    if builder is None:
        raise UnsupportedLayerError(f"layer {module} is not supported")
    if next(job.built) >= MAX_LAYERS:
        raise ModelLoadError(f"the model unfolds to more than {MAX_LAYERS} layers")
    try:
        return builder(Layer(module, job.weights, lambda inner, y: _build(job, inner, y)), x)
    except ModelLoadError as err:
        if "layer " in str(err):
            raise
        raise ModelLoadError(f"layer {module}: {err}") from err
    except _BUILD_ERRORS as err:
        raise ModelLoadError(f"layer {module}: {_first_line(err)}") from err


def _finish(root: Module, results: Activity, parameters: list[ov.op.Parameter]) -> ov.Model:
    outputs = flat(results)
    if not outputs:
        raise ModelLoadError("the model has no outputs")
    if len({id(output) for output in outputs}) < len(outputs) or any(output in parameters for output in outputs):
        outputs = [ops.convert(ops.convert(output, "f32"), "f32") for output in outputs]
    results_ = []
    for index, output in enumerate(outputs):
        sizes(output)
        result = ops.result(output)
        result.output(0).set_names({"output" if len(outputs) == 1 else f"output{index}"})
        results_.append(result)
    return ov.Model(results_, parameters, root.name or "bigdl")


def _unsupported(module: Module) -> Iterator[Module]:
    """Every module in the tree that no builder knows."""
    if builder_of(module.class_name) is None:
        yield module
    for inner in (*module.submodules, *(value for value in module.attributes.values() if isinstance(value, Module))):
        yield from _unsupported(inner)


def _first_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__
