"""An engine of this package alone: `python -m benchmarks.engine_loop JOB`.

It is ordered like `plain_loop`.

JOB is JSON: model, engine, input_shape (null where the file has it), threads, batch_size. It predicts one and the same
batch again and again: nothing is decoded and nothing ranked.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np

from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import find_model
from beam_serving.models.loading import load
from benchmarks.plain_loop import answer_orders


def main() -> None:
    """Load the model and predict."""
    job = json.loads(sys.argv[1])
    shape = tuple(job["input_shape"]) if job["input_shape"] else None
    options = ModelOptions(job["engine"], job["threads"], input_shape=shape, full_batch=job["batch_size"])
    model = load(find_model(job["model"]), options)
    (spec,) = model.inputs
    random = np.random.default_rng(0)
    batch = random.uniform(-1, 1, (job["batch_size"], *(size or 1 for size in spec.shape or ()))).astype(np.float32)

    def serve(_: Sequence[bytes]) -> np.ndarray:
        return next(iter(model.predict({spec.name: batch}).values()))

    answer_orders(serve, [b""], job["batch_size"])


if __name__ == "__main__":
    main()
