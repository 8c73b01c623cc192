"""The plain loop: `python -m benchmarks.plain_loop JOB`.

Its input says line by line what to run.

JOB is JSON: model, its format if it is not OpenVINO's, threads, top_n, batch_size, and the folder of the payloads. Each
line of the input is answered by one line: `{"seconds": s}` by how many records were served in that time,
`{"seconds": s, "in_flight": n}` by the latency of every record of a closed loop.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence, Sized
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2

from benchmarks.handwritten import Steps

_MOST_LATENCIES = 50_000

Serve = Callable[[Sequence[bytes]], Sized]
"""Returns one result per payload."""


def main() -> None:
    """Serve the payloads."""
    job = json.loads(sys.argv[1])
    cv2.setNumThreads(1)
    steps = Steps(job["model"], job["threads"], job["top_n"], job.get("format", "openvino"))
    payloads = [path.read_bytes() for path in sorted(Path(job["payloads"]).iterdir())]
    answer_orders(steps.serve, payloads, job["batch_size"])


def answer_orders(serve: Serve, payloads: Sequence[bytes], batch_size: int) -> None:
    """Answer until the input ends."""
    serve(payloads)
    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "in_flight" in order:
            answer = _closed_loop(serve, payloads, batch_size, order)
        else:
            answer = _burst(serve, payloads, batch_size, order["seconds"])
        print(json.dumps(answer), flush=True)


def _burst(serve: Serve, payloads: Sequence[bytes], batch_size: int, seconds: float) -> dict[str, Any]:
    endless = cycle(payloads)
    started, records = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - started) < seconds:
        records += len(serve(list(islice(endless, batch_size))))
    return {"records": records, "seconds": elapsed_s}


def _closed_loop(serve: Serve, payloads: Sequence[bytes], batch_size: int, order: dict[str, Any]) -> dict[str, Any]:
    """Keep `in_flight` records waiting; each that is done is followed by the next."""
    endless = cycle(payloads)
    ends_at = time.perf_counter() + order["seconds"]
    queued_at = deque([time.perf_counter()] * order["in_flight"])
    latencies_s: list[float] = []
    while time.perf_counter() < ends_at and len(latencies_s) < _MOST_LATENCIES:
        records = min(batch_size, len(queued_at))
        serve(list(islice(endless, records)))
        done_at = time.perf_counter()
        latencies_s += [done_at - queued_at.popleft() for _ in range(records)]
        queued_at.extend([done_at] * records)
    return {"latencies_s": latencies_s}


if __name__ == "__main__":
    main()
