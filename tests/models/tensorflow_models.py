"""Small models of TensorFlow in its formats, made where a test needs one."""

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load


@lru_cache
def tensorflow() -> Any:
    """Import TensorFlow, behind the compiler of torch: the other way round, their LLVMs end the process."""
    importlib.import_module("torch._dynamo")
    return importlib.import_module("tensorflow")


def loaded(directory: Path, **options: Any) -> LoadedModel:
    """Load the model of a directory in TensorFlow."""
    given = ModelOptions(**{"engine": "tensorflow"} | options)
    return load(find_model(directory, given.engine), given)


def refusal(directory: Path, **options: Any) -> str:
    """Give what is said of a model that is not loaded."""
    with pytest.raises(ModelLoadError) as refused:
        loaded(directory, **options)
    return str(refused.value)


def saved(directory: Path, function: Callable[..., Any], *specs: Any, **parts: Any) -> Path:
    """Save a function as a SavedModel; `parts` are variables and tables that it uses."""
    tf = tensorflow()
    module = tf.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    module.serve = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(directory), signatures=module.serve.get_concrete_function())
    return directory


def frozen(directory: Path, build: Callable[[Any], Any]) -> Path:
    """Write the graph that `build` makes with `tf.compat.v1`."""
    tf = tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        build(tf.compat.v1)
    directory.mkdir(exist_ok=True)
    (directory / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return directory


def lite(directory: Path, function: Callable[..., Any], *specs: Any, **settings: Any) -> Path:
    """Convert a function to TensorFlow Lite; `settings` are those of the converter."""
    tf = tensorflow()
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    for name, value in settings.items():
        setattr(converter, name, value)
    directory.mkdir(exist_ok=True)
    (directory / "model.tflite").write_bytes(converter.convert())
    return directory


def in_turn(model: LoadedModel, records: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Give what each record, for the model's only input, gets alone."""
    (spec,) = model.inputs
    return [
        {name: rows[0] for name, rows in model.predict({spec.name: record[np.newaxis]}).items()} for record in records
    ]
