"""What one request costs a worker: the most memory it takes and its CPU time, each request in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beam_serving.config.schema import Data
from beam_serving.models.base import TensorSpec
from beam_serving.protocol import Limits
from beam_serving.transforms.image import ImageRules

LIMITS = Limits(max_payload_bytes=Data().max_request_bytes, max_decode_bytes=Data().max_decode_mb << 20)
"""Those of a service without any in its configuration."""
FLOAT32 = np.dtype(np.float32)
FIXED = (TensorSpec("x", (3, 224, 224), FLOAT32),)
FREE = (TensorSpec("x", (3, None, None), FLOAT32),)


class Case(NamedTuple):
    """A request: how its fields are made, and the model and rules that meet it."""

    fields: Callable[[], Mapping[bytes, bytes]]
    inputs: tuple[TensorSpec, ...] = FIXED
    rules: ImageRules = ImageRules()


class Cost(NamedTuple):
    """What a request took; `answer` is how it was refused, empty where it was served."""

    name: str
    wire_bytes: int
    peak_mb: float
    cpu_s: float
    answer: str


def costs(names: Iterable[str] = ()) -> list[Cost]:
    """Measures the requests of these names, else all, in a process with the environment of a worker."""
    from beam_serving.launch.worker import worker_environment

    command = [sys.executable, "-m", "tests.hostile.measure", *names]
    # A worker imports nothing from the current directory, where the tests are.
    environment = {**worker_environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [Cost(*json.loads(line)) for line in ended.stdout.splitlines()]


def _forked(work: Callable[[], None]) -> int:
    """Gives the wait status of a process that does this and ends."""
    sys.stdout.flush()
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        import traceback

        traceback.print_exc()
        os._exit(9)


def _resident_mb(what: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1000


def _serve(case: Case, fields: Mapping[bytes, bytes]) -> str:
    from beam_serving.errors import RequestError
    from beam_serving.protocol import decode_request
    from beam_serving.transforms.decode import tensors_for

    try:
        payload = decode_request(fields, LIMITS)
        tensors_for(payload, case.inputs, case.rules)
    except RequestError as err:
        return str(err)
    return ""


def _measured(name: str, case: Case, file: Path) -> Cost:
    before = _resident_mb("VmRSS")
    with file.open("rb") as stream:
        fields = {}
        for size, key in json.loads(stream.readline()):
            fields[key.encode("latin-1")] = stream.read(size)
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    answer = _serve(case, fields)
    spent = time.process_time() - started
    size = sum(len(key) + len(value) for key, value in fields.items())
    return Cost(name, size, round(_resident_mb("VmHWM") - before, 1), round(spent, 3), answer[:300])


def _measure(name: str, case: Case, folder: Path) -> None:
    file = folder / "request"

    def make() -> None:
        fields = {b"uri": b"u", **case.fields()}
        with file.open("wb") as stream:
            sizes = [(len(value), key.decode("latin-1")) for key, value in fields.items()]
            stream.write(json.dumps(sizes).encode() + b"\n")
            stream.writelines(fields.values())

    assert _forked(make) == 0, name
    status = _forked(lambda: print(json.dumps(_measured(name, case, file))))
    if status:
        print(json.dumps(Cost(name, file.stat().st_size, -1, -1, f"ended its process: wait status {status}")))
    sys.stdout.flush()


def _warm_up() -> None:
    from tests.hostile import files, requests

    _serve(Case(dict, FIXED), {b"uri": b"u", b"image:": files.jpeg(64, 64)})
    _serve(Case(dict, FIXED), {b"uri": b"u", b"image:": files.png(64, 64)})
    _serve(Case(dict, FIXED), {b"uri": b"u", **requests.arrow_tensor()})
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def main(names: list[str]) -> None:
    """Measures and prints a line of JSON for each request."""
    import cv2

    from tests.hostile.requests import CASES

    cv2.setNumThreads(1)
    _warm_up()
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            if not names or any(name.startswith(start) for start in names):
                _measure(name, case, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
