"""A module of torch, served by OpenVINO, which is 2 to 3 times as fast on a CPU, or by torch as it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import torch

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, chosen, engine_threads
from beam_serving.models.fixed_batch import agree
from beam_serving.models.openvino_engine import OPENVINO_ERRORS, compile_model, first_reason
from beam_serving.models.torch_engine import TorchModel


class Sample(NamedTuple):
    """An input that the module surely takes, batch axis first; `sizes`, without it, are None where they are free."""

    shape: tuple[int, ...]
    dtype: np.dtype
    sizes: tuple[int | None, ...]


@dataclass(frozen=True)
class TorchSource:
    """What a file of torch holds: `graph` is what OpenVINO converts, `module` what torch calls.

    `names` are those of the inputs, `samples` describe them; None where the file does not.
    """

    path: Path
    graph: Any
    module: Callable[..., Any]
    names: list[str]
    samples: list[Sample] | None

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The inputs as a model says them."""
        samples = self.samples or []
        return tuple(TensorSpec(name, one.sizes, one.dtype) for name, one in zip(self.names, samples, strict=True))

    @property
    def batch(self) -> int:
        """A batch that the module surely takes."""
        return self.samples[0].shape[0] if self.samples else 1


def named_inputs(names: list[str], options: ModelOptions, path: Path) -> list[str]:
    """Gives the names of the inputs: those that the options give, else the module's own."""
    if options.input_names and len(options.input_names) != len(names):
        given = list(options.input_names)
        raise ModelLoadError(f"{path}: input_names are {given}, the model has {len(names)} inputs")
    return list(options.input_names) or names


def convert(source: TorchSource, options: ModelOptions) -> LoadedModel:
    """Converts the module with a free batch or, where that changes its results, with the batch of the samples.

    Raises:
        ModelLoadError: OpenVINO cannot convert it, or gives other results than torch.
    """
    try:
        return _converted(source, replace(options, input_names=tuple(source.names)))
    except OPENVINO_ERRORS as err:
        raise ModelLoadError(f"{source.path}: cannot be converted to OpenVINO: {first_reason(err)}") from err


def _converted(source: TorchSource, options: ModelOptions) -> LoadedModel:
    path, specs, batch = source.path, source.specs if source.samples else (), source.batch
    if source.samples is None:
        return compile_model(openvino.convert_model(source.graph), options, path)
    native = _tried(source, "cpu")
    for free in (True, False):
        wanted = [
            ((-1 if free else one.shape[0], *(-1 if size is None else size for size in one.sizes)), one.dtype.type)
            for one in source.samples
        ]
        graph = openvino.convert_model(source.graph, input=wanted)
        for port, spec in zip(graph.outputs, native.outputs, strict=True):
            port.get_tensor().set_names({spec.name})
        exact = compile_model(graph, replace(options, precision="f32", output_names=()), path)
        if agree(partial(_rows, exact), native.infer, specs, batch):
            plain = options.precision == "f32" and not options.output_names
            return exact if plain else compile_model(graph, options, path)
    raise ModelLoadError(f"{path}: cannot be converted to OpenVINO: its results there are not those in torch")


def run_natively(source: TorchSource, options: ModelOptions) -> LoadedModel:
    """Serves the module by torch, on a CUDA device where that is asked for.

    Raises:
        ModelLoadError: the options ask for what torch or this machine does not have, or a trial failed.
    """
    path = source.path
    if options.precision != "f32":
        raise ModelLoadError(f"{path}: {options.precision} is asked for, torch runs this model in f32 only")
    if source.samples is None:
        raise ModelLoadError(f"{path}: has no input shape in the file; set input_shape")
    device = torch_device(options, path)
    if threads := engine_threads(options):
        torch.set_num_threads(threads)
    model = _tried(source, device)
    model.select(chosen([spec.name for spec in model.outputs], options, path))
    return model


def torch_device(options: ModelOptions, path: Path) -> str:
    """Gives the device that the options mean on this machine.

    Raises:
        ModelLoadError: CUDA is asked for and there is none.
    """
    device = options.device.lower()
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        found = f"torch {torch.__version__} finds no CUDA device"
        raise ModelLoadError(f"{path}: device cuda is asked for and {found}; set device to cpu or auto")
    if device not in ("auto", "cpu", "cuda"):
        raise ModelLoadError(f"{path}: device is {options.device!r}, torch runs models on cpu or cuda")
    return "cuda" if has_cuda and device != "cpu" else "cpu"


def _tried(source: TorchSource, device: str) -> TorchModel:
    try:
        return TorchModel(source.module, source.specs, source.batch, device)
    except ModelError as err:
        # torch gives its reason last, after a traceback of the module's own source.
        reason = str(err.__cause__).strip().splitlines()[-1]
        raise ModelLoadError(f"{source.path}: a trial inference failed: {err}: {reason}") from err


def _rows(model: LoadedModel, arrays: list[np.ndarray]) -> list[np.ndarray]:
    batch = {spec.name: array for spec, array in zip(model.inputs, arrays, strict=True)}
    return list(model.predict(batch).values())
