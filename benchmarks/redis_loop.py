"""The loop behind a Redis stream that one writes in an afternoon: read, decode, infer, write, acknowledge.

`python -m benchmarks.redis_loop JOB`, where JOB is JSON: port, stream, consumer, model, threads,
top_n, batch_size. It serves until it is killed. It validates nothing, recovers nothing and isolates no bad request.
"""

import json
import os
import sys
from typing import Any

import cv2
import redis

from beam_serving.transport.connection import PASSWORD_VARIABLE
from benchmarks.handwritten import Steps

GROUP = "serving"


def main() -> None:
    """Serve."""
    job = json.loads(sys.argv[1])
    cv2.setNumThreads(1)
    steps = Steps(job["model"], job["threads"], job["top_n"])
    field = b"tensor:" if job["model"] == "noop" else b"image:"
    client = redis.Redis(port=job["port"], password=os.environ.get(PASSWORD_VARIABLE), protocol=2)
    print("{}", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        reply: Any = client.xreadgroup(
            GROUP, job["consumer"], {job["stream"]: ">"}, count=job["batch_size"], block=1000
        )
        for _, entries in reply:
            best = steps.serve([fields[field] for _, fields in entries])
            pipeline = client.pipeline(transaction=False)
            for (_, fields), (classes, scores) in zip(entries, best, strict=True):
                value = json.dumps(list(zip(classes.tolist(), scores.tolist(), strict=True)))
                key = f"cluster-serving_{job['stream']}:{fields[b'uri'].decode()}"
                pipeline.hset(key, mapping={"value": value, "id": fields[b"id"]})
            pipeline.xack(job["stream"], GROUP, *[entry_id for entry_id, _ in entries])
            pipeline.execute()


if __name__ == "__main__":
    main()
