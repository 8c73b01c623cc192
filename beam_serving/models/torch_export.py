"""Programs of torch.export, what `torch.export.save` writes."""

import importlib.util
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.openvino_engine import first_reason
from beam_serving.models.torch_conversion import (
    Sample,
    TorchSource,
    convert,
    named_inputs,
    run_natively,
    torch_device,
)
from beam_serving.models.torch_export_archive import reason_to_refuse, sample_inputs

_DAMAGED = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, OSError)


def load_converted(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a program into OpenVINO; its inputs are described in the file."""
    program = _read(files.model)
    return convert(_source(program, files.model, options, "cpu"), options)


def load_native(files: ModelFiles, options: ModelOptions) -> LoadedModel:
    """Loads a program into torch."""
    program = _read(files.model)
    return run_natively(_source(program, files.model, options, torch_device(options, files.model)), options)


def _read(path: Path) -> Any:
    if "tensorflow" in sys.modules and "triton" not in sys.modules and importlib.util.find_spec("triton"):
        # Found with tensorflow 2.21 and triton 3.9: the LLVM inside each registers the same options.
        remedy = "load the program before TensorFlow, or in another process"
        raise ModelLoadError(f"{path}: TensorFlow is loaded already, and torch.export would abort; {remedy}")
    if reason := reason_to_refuse(path):
        raise ModelLoadError(f"{path}: {reason}")
    samples = sample_inputs(path)
    try:
        if samples:
            # torch.export.load tries the same and, whatever goes wrong, falls back to a full unpickling.
            torch.load(io.BytesIO(samples), weights_only=True)
    except Exception as err:
        remedy = "export the model with plain tensors as its inputs"
        raise ModelLoadError(f"{path}: its sample inputs are a pickle of more than tensors; {remedy}") from err
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
    except _DAMAGED as err:
        raise ModelLoadError(f"{path}: torch cannot read it: {first_reason(err)}") from err
    # Python source that would be executed; our own checks of shapes do without it.
    program._guards_code = []
    return program


def _source(program: Any, path: Path, options: ModelOptions, device: str) -> TorchSource:
    inputs = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    tensors = [values.get(name) if isinstance(name, str) else None for name in inputs]
    if not inputs or not all(isinstance(tensor, torch.Tensor) and tensor.dim() for tensor in tensors):
        raise ModelLoadError(f"{path}: its inputs are {list(inputs)}, wanted are tensors with a batch axis")
    samples = [_sample(tensor, options, len(inputs), path) for tensor in tensors]
    names = named_inputs([str(name) for name in inputs], options, path)
    return TorchSource(path, program, _callable(program, device), names, samples)


def _sample(tensor: Any, options: ModelOptions, inputs: int, path: Path) -> Sample:
    sizes = tuple(size if isinstance(size, int) else None for size in tensor.shape[1:])
    if options.input_shape is not None:
        if inputs != 1 or len(sizes) != len(options.input_shape):
            raise ModelLoadError(f"{path}: input_shape is {list(options.input_shape)}, its input takes {list(sizes)}")
        sizes = tuple(options.input_shape)
    # A symbolic batch is tried with 2: exporting takes 0 and 1 for constants.
    batch = tensor.shape[0] if isinstance(tensor.shape[0], int) else 2
    dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return Sample((batch, *(size or 1 for size in sizes)), dtype, sizes)


def _callable(program: Any, device: str) -> Callable[..., Any]:
    """Gives the program as a function of its inputs in order, those by keyword last."""
    module = program.module(check_guards=False).to(device)
    _, keywords = program.example_inputs or ((), {})
    names = list(keywords)

    def call(*inputs: Any) -> Any:
        plain = len(inputs) - len(names)
        return module(*inputs[:plain], **dict(zip(names, inputs[plain:], strict=True)))

    return call
