"""TorchScript archives, what `torch.jit.save` writes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.openvino_engine import first_reason
from beam_serving.models.torch_archive import was_traced
from beam_serving.models.torch_conversion import (
    Sample,
    TorchSource,
    convert,
    named_inputs,
    run_natively,
    torch_device,
)

_DAMAGED = (RuntimeError, ValueError, LookupError, EOFError, OSError)


def load_converted(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a module into OpenVINO.

    The file names no shapes: they are those it was traced with, or `input_shape`.
    """
    module = _read(files.model)
    return convert(_source(module, files.model, options), options)


def load_native(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a module into torch."""
    module = _frozen(_read(files.model, torch_device(options, files.model)))
    return run_natively(_source(module, files.model, options), options)


def _source(module: Any, path: Path, options: ModelOptions) -> TorchSource:
    names = named_inputs(_input_names(module, path), options, path)
    return TorchSource(path, module, module, names, _samples(path, len(names), options))


def _read(path: Path, device: str = "cpu", *, restore_shapes: bool = False) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location=device, _restore_shapes=restore_shapes).eval()
    except _DAMAGED as err:
        raise ModelLoadError(f"{path}: torch cannot read it: {first_reason(err)}") from err


def _input_names(module: Any, path: Path) -> list[str]:
    names = []
    for argument in module.forward.schema.arguments[1:]:
        if str(argument.type) == "Tensor":
            names.append(argument.name)
        elif not argument.has_default_value():
            raise ModelLoadError(f"{path}: input {argument.name!r} is of the type {argument.type}, wanted is Tensor")
    return names


def _samples(path: Path, inputs: int, options: ModelOptions) -> list[Sample] | None:
    traced = _traced_samples(path, inputs)
    if options.input_shape is None:
        return traced
    if inputs != 1:
        raise ModelLoadError(f"{path}: input_shape is for models with one input, this one has {inputs}")
    batch, dtype = (traced[0].shape[0], traced[0].dtype) if traced else (1, np.dtype(np.float32))
    return [Sample((batch, *options.input_shape), dtype, options.input_shape)]


def _traced_samples(path: Path, inputs: int) -> list[Sample] | None:
    """Gives what the module was traced with, as torch restores it into the types of the graph's inputs."""
    if not was_traced(path):
        return None
    samples = []
    for value in list(_read(path, restore_shapes=True).graph.inputs())[1:]:
        kind = value.type()
        if kind.kind() != "TensorType" or not kind.sizes() or kind.dtype() is None:
            return None
        shape = tuple(kind.sizes())
        samples.append(Sample(shape, torch.empty(0, dtype=kind.dtype()).numpy().dtype, shape[1:]))
    return samples if len(samples) == inputs else None


def _frozen(module: Any) -> Any:
    """Folds the weights into the graph, which is up to 1.5 times faster; not every module can be frozen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.freeze(module)
    except RuntimeError:
        return module
