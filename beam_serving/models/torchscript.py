"""TorchScript archives: converted to OpenVINO, which is 2 to 3 times faster, or run by torch where that fails."""

import logging
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import torch

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, engine_threads
from beam_serving.models.detect import ModelFiles
from beam_serving.models.fixed_batch import agree
from beam_serving.models.openvino_engine import OPENVINO_ERRORS, compile_model, first_reason
from beam_serving.models.torch_archive import was_traced
from beam_serving.models.torch_engine import TorchModel

_LOG = logging.getLogger(__name__)
_DAMAGED = (RuntimeError, ValueError, LookupError, EOFError, OSError)


class _Sample(NamedTuple):
    """The shape, batch axis first, and type of an input that the module surely takes."""

    shape: tuple[int, ...]
    dtype: np.dtype


def load_torchscript(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a TorchScript module.

    The file names no shapes: they are those it was traced with, or `input_shape`.
    """
    path = files.model
    module = _read(path)
    names = _input_names(module, options, path)
    samples = _samples(path, len(names), options)
    if options.engine == "torch":
        return _native(module, names, samples, options, path)
    try:
        return _converted(module, names, samples, options, path)
    except (ModelLoadError, *OPENVINO_ERRORS) as err:
        if options.engine == "openvino":
            raise ModelLoadError(f"{path}: cannot be converted to OpenVINO: {first_reason(err)}") from err
        _LOG.info("%s: runs in torch, not in OpenVINO: %s", path, first_reason(err))
    return _native(module, names, samples, options, path)


def _read(path: Path, *, restore_shapes: bool = False) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu", _restore_shapes=restore_shapes).eval()
    except _DAMAGED as err:
        raise ModelLoadError(f"{path}: torch cannot read it: {first_reason(err)}") from err


def _input_names(module: Any, options: ModelOptions, path: Path) -> list[str]:
    names = []
    for argument in module.forward.schema.arguments[1:]:
        if str(argument.type) == "Tensor":
            names.append(argument.name)
        elif not argument.has_default_value():
            raise ModelLoadError(f"{path}: input {argument.name!r} is of the type {argument.type}, wanted is Tensor")
    if options.input_names and len(options.input_names) != len(names):
        given = list(options.input_names)
        raise ModelLoadError(f"{path}: input_names are {given}, the model has {len(names)} inputs")
    return list(options.input_names) or names


def _samples(path: Path, inputs: int, options: ModelOptions) -> list[_Sample] | None:
    traced = _traced_samples(path, inputs)
    if options.input_shape is None:
        return traced
    if inputs != 1:
        raise ModelLoadError(f"{path}: input_shape is for models with one input, this one has {inputs}")
    batch, dtype = (traced[0].shape[0], traced[0].dtype) if traced else (1, np.dtype(np.float32))
    return [_Sample((batch, *options.input_shape), dtype)]


def _traced_samples(path: Path, inputs: int) -> list[_Sample] | None:
    """Gives what the module was traced with, as torch restores it into the types of the graph's inputs."""
    if not was_traced(path):
        return None
    samples = []
    for value in list(_read(path, restore_shapes=True).graph.inputs())[1:]:
        kind = value.type()
        if kind.kind() != "TensorType" or not kind.sizes() or kind.dtype() is None:
            return None
        samples.append(_Sample(tuple(kind.sizes()), torch.empty(0, dtype=kind.dtype()).numpy().dtype))
    return samples if len(samples) == inputs else None


def _converted(
    module: Any, names: list[str], samples: list[_Sample] | None, options: ModelOptions, path: Path
) -> LoadedModel:
    """Converts the module with a free batch or, where that changes its results, with the batch of the samples."""
    options = replace(options, input_names=tuple(names))
    if samples is None:
        return compile_model(openvino.convert_model(module), options, path)
    specs, batch = _specs(names, samples), samples[0].shape[0]
    native = _tried(module, specs, batch, path)
    for free in (True, False):
        wanted = [((-1, *one.shape[1:]) if free else one.shape, one.dtype.type) for one in samples]
        graph = openvino.convert_model(module, input=wanted)
        exact = compile_model(graph, replace(options, precision="f32"), path)
        if agree(partial(_rows, exact), native.infer, specs, batch):
            return exact if options.precision == "f32" else compile_model(graph, options, path)
    raise ModelLoadError("its results in OpenVINO are not those in torch")


def _native(
    module: Any, names: list[str], samples: list[_Sample] | None, options: ModelOptions, path: Path
) -> LoadedModel:
    if options.precision != "f32" or options.device.lower() != "cpu":
        asked = f"{options.precision} on {options.device}"
        raise ModelLoadError(f"{path}: {asked} is asked for, torch runs this model in f32 on cpu only")
    if options.output_names:
        raise ModelLoadError(f"{path}: output_names are {list(options.output_names)}, torch serves all outputs only")
    if samples is None:
        raise ModelLoadError(f"{path}: has no input shape in the file; set input_shape")
    if threads := engine_threads(options):
        torch.set_num_threads(threads)
    return _tried(_frozen(module), _specs(names, samples), samples[0].shape[0], path)


def _tried(module: Any, specs: tuple[TensorSpec, ...], batch: int, path: Path) -> TorchModel:
    try:
        return TorchModel(module, specs, batch)
    except ModelError as err:
        # torch gives its reason last, after a traceback of the module's own source.
        reason = str(err.__cause__).strip().splitlines()[-1]
        raise ModelLoadError(f"{path}: a trial inference failed: {err}: {reason}") from err


def _frozen(module: Any) -> Any:
    """Folds the weights into the graph, which is up to 1.5 times faster; not every module can be frozen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.freeze(module)
    except RuntimeError:
        return module


def _specs(names: list[str], samples: list[_Sample]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, one.shape[1:], one.dtype) for name, one in zip(names, samples, strict=True))


def _rows(model: LoadedModel, arrays: list[np.ndarray]) -> list[np.ndarray]:
    batch = {spec.name: array for spec, array in zip(model.inputs, arrays, strict=True)}
    return list(model.predict(batch).values())
