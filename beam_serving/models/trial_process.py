"""Tries a model in a process of its own: `python -P -m beam_serving.models.trial_process ANSWER < JOB`.

ANSWER holds the engine that is at work, so that a crash can be told, and in the end the verdict or the refusal.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_serving.cores import available_cores
from beam_serving.errors import ConfigError
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.loading import probe
from beam_serving.models.store import write_json


def main(answer: Path, job: Mapping[str, Any]) -> None:
    """Probe the model of a job and write the answer."""
    known_format, model, weights = job["files"]
    files = ModelFiles(known_format, Path(model), weights and Path(weights))
    options = _options({**job["options"], "threads": available_cores()})
    try:
        verdict = probe(
            files, options, without=job["without"], on_engine=lambda engine: write_json(answer, {"engine": engine})
        )
    except ConfigError as err:
        write_json(answer, {"refusal": str(err)})
        return
    write_json(answer, {"verdict": verdict.encode()})


def _options(plain: Mapping[str, Any]) -> ModelOptions:
    """Give back the tuples that JSON made lists of."""
    changed = {name: tuple(value) for name, value in plain.items() if name in ("input_names", "output_names")}
    changed |= {name: _shapes(plain[name]) for name in ("input_shape", "sample")}
    return ModelOptions(**{**plain, **changed})


def _shapes(plain: Any) -> Any:
    if isinstance(plain, Mapping):
        return {name: tuple(shape) for name, shape in plain.items()}
    return tuple(map(_shapes, plain)) if isinstance(plain, list) else plain


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(Path(sys.argv[1]), json.load(sys.stdin))
    # What frameworks do at their end, threads and devices, is of no interest any more, and now and then a crash.
    sys.stdout.flush()
    os._exit(0)
