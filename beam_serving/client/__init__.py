"""The Python client: put requests on the queue, fetch their results.

    queue, results = InputQueue("localhost"), OutputQueue("localhost")
    queue.enqueue_image("cat", "cat.jpg")
    results.query("cat", timeout_s=5)        # {281: 0.83, 282: 0.09, ...}

It imports neither Beam nor a model framework, and OpenCV only to encode an array as an image.
"""

from beam_serving.client.async_input_queue import AsyncInputQueue
from beam_serving.client.async_output_queue import AsyncOutputQueue
from beam_serving.client.input_queue import InputQueue
from beam_serving.client.output_queue import OutputQueue
from beam_serving.client.pandas import to_pandas
from beam_serving.client.redis_queue import RedisQueue
from beam_serving.errors import (
    BeamServingError,
    ClientError,
    ConnectError,
    ImageFileError,
    InputError,
    QueueFullError,
    ResultError,
    ResultTimeoutError,
)
from beam_serving.protocol.results import Reply, TopClass

__all__ = [
    "AsyncInputQueue",
    "AsyncOutputQueue",
    "BeamServingError",
    "ClientError",
    "ConnectError",
    "ImageFileError",
    "InputError",
    "InputQueue",
    "OutputQueue",
    "QueueFullError",
    "RedisQueue",
    "Reply",
    "ResultError",
    "ResultTimeoutError",
    "TopClass",
    "to_pandas",
]
