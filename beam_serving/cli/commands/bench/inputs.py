"""What the bench sends: the files that are named, or records that the model of the configuration takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from beam_serving.cli.input_files import ARRAYS, NotUsableError, tensors_of
from beam_serving.client.images import as_image
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError, ModelError, printable
from beam_serving.models.base import TensorSpec, describe
from beam_serving.models.opening import model_info
from beam_serving.models.options import model_options
from beam_serving.models.trial.samples import invented_shapes, records

_MADE = 16
_DEMO_IMAGE = Path(__file__).parents[3] / "demo" / "images" / "digit_2.png"
_ANY = TensorSpec("", (64,), np.dtype(np.float32))
"""What is sent to a model that takes whatever comes."""

Inputs = Mapping[str, Any]
"""What one request carries: an image file or a tensor by input name; "" is the only input."""


class Sent(NamedTuple):
    """The inputs that are sent by turns, and what they are, in words."""

    requests: Sequence[Inputs]
    title: str


def inputs_of_files(paths: Sequence[Path]) -> Sent:
    """Read files: `.npy` is a tensor, `.npz` tensors by input name, anything else an image, sent as it is.

    Raises:
        ConfigError: one cannot be read, or holds no tensors.
    """
    requests = [_read(path) for path in paths]
    return Sent(requests, f"{len(paths)} file{'s' * (len(paths) > 1)}, {paths[0].name}{', ...' * (len(paths) > 1)}")


def inputs_of_model(settings: Settings) -> Sent:
    """Make records of random values as the model declares its inputs; where it cannot be read here, take an image.

    A model that declares nothing takes any tensor.
    """
    try:
        info = model_info(settings.model.path, model_options(settings), 1)
    except (ModelError, ConfigError) as err:
        why = printable(str(err).splitlines()[0])
        title = f"an image, {_DEMO_IMAGE.name}: the model is not here ({why})"
        return Sent([{"": as_image(_DEMO_IMAGE, "png")}], title)
    specs = info.inputs or (_ANY,)
    shapes = next(invented_shapes(specs))
    made = next(records(specs, shapes, _MADE))
    return Sent(made, f"{_MADE} records of random values, {_described(specs, shapes)}")


def _described(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{spec.name} {describe(spec.dtype, shapes[spec.name])}".lstrip() for spec in specs)


def _read(path: Path) -> Inputs:
    if not path.is_file():
        raise ConfigError(f"--input {path}: {'is no file' if path.exists() else 'there is no such file'}")
    try:
        if path.suffix.lower() not in ARRAYS:
            return {"": as_image(path.read_bytes(), "png")}
        return tensors_of(path)
    except OSError as err:
        raise ConfigError(f"--input {path}: cannot be read ({err.strerror or err})") from err
    except NotUsableError as err:
        raise ConfigError(f"--input {path}: {err}") from err
