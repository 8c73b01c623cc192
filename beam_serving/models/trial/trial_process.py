"""Tries a model in a process of its own, which `beam_serving.models.trial.sandbox` starts.

Its argument is ANSWER, its input the job.
ANSWER holds the engine that is at work, so that a crash can be told, and in the end the verdict or the refusal.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beam_serving.errors import ConfigError
from beam_serving.models.base import ModelOptions
from beam_serving.models.batch_size import best_batch_size
from beam_serving.models.batches import check_shapes
from beam_serving.models.cpu import available_cores
from beam_serving.models.detect import ModelFiles
from beam_serving.models.info import ModelInfo
from beam_serving.models.loading import load, probe
from beam_serving.models.store import write_json
from beam_serving.models.trial.probing import Verdict
from beam_serving.models.trial.sandbox import STATE

_EXTREMES_S = 60
"""How long the trial of the largest numbers may take; where one is a size, it may be endless."""


def main(answer: Path, job: Mapping[str, Any]) -> None:
    """Probe the model of a job and write the answer."""
    known_format, model, weights = job["files"]
    files = ModelFiles(known_format, Path(model), weights and Path(weights))
    options = _options({**job["options"], "threads": available_cores(), "alone_threads": 0})

    def on_engine(engine: str) -> None:
        signal.alarm(0)
        write_json(answer, {"engine": engine})

    def on_extremes() -> bool:
        if job["extremes"]:
            write_json(answer, {"extremes": True})
            signal.alarm(_EXTREMES_S)
        return bool(job["extremes"])

    try:
        if job["verdict"]:
            verdict = Verdict.decode(job["verdict"])
            on_engine(verdict.engine)
            if job["describe"]:
                write_json(answer, {"info": _described(files, _options(job["options"]), verdict, **job["describe"])})
                return
            load(files, options, verdict)
        else:
            verdict = probe(files, options, job["without"], on_engine, on_extremes)
    except ConfigError as err:
        write_json(answer, {"refusal": str(err)})
        return
    write_json(answer, {"verdict": replace(verdict, sandbox=os.environ.get(STATE, "")).encode()})


def _described(files: ModelFiles, options: ModelOptions, verdict: Verdict, batch_size: int | None) -> dict[str, Any]:
    """Say what the model is as it will serve, and which batch size serves most where none is asked for."""
    model = load(files, replace(options, full_batch=batch_size), verdict)
    check_shapes(model, options, verdict.shapes)
    return ModelInfo.of(model, batch_size or best_batch_size(model, shapes=verdict.shapes)).encode()


def _bound_memory() -> None:
    """Leave others their memory: what a trial may allocate is bounded by what is free, less a tenth."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free_kb = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(free_kb * 1024 * 0.9), most))
    except (OSError, ValueError, StopIteration):
        # No Linux, or no right to: then there is no bound.
        return


def _options(plain: Mapping[str, Any]) -> ModelOptions:
    """Give back the tuples that JSON made lists of."""
    changed = {name: tuple(value) for name, value in plain.items() if name in ("input_names", "output_names")}
    changed |= {name: _shapes(plain[name]) for name in ("input_shape", "sample")}
    return ModelOptions(**{**plain, **changed})


def _shapes(plain: object) -> Any:
    if isinstance(plain, Mapping):
        return {name: tuple(shape) for name, shape in plain.items()}
    return tuple(map(_shapes, plain)) if isinstance(plain, list) else plain


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _bound_memory()
    main(Path(sys.argv[1]), json.load(sys.stdin))
    # What frameworks do at their end, threads and devices, is of no interest any more, and now and then a crash.
    sys.stdout.flush()
    os._exit(0)
