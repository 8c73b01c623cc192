"""The values that travel through the pipeline: one immutable record per stage.

    Entry --Decode--> Example --BatchElements--> [Example] --Infer--> Predictions --TopN--> [Result]

`Flush` travels along from the source to the batching step and ends there: it says that the entries of one poll are
complete, so that a batch never waits for more.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import numpy as np

MOST_FIELDS = 256
MOST_REQUEST_BYTES = 128 << 20
"""What the protocol has in one request at most; a service may take less."""


class Generation(Enum):
    """Which client generation wrote a request, and so in which form it reads its result. See `beam_serving.wire`."""

    NATIVE = "native"
    """This project's own client: raw bytes in fields of their own (docs/protocol.md)."""
    IMAGE = "image"
    """Cluster Serving 0.7 and 0.8: a base64 JPEG in the field `image`."""
    ARROW = "arrow"
    """Cluster Serving 0.9 and later: base64 of an Arrow stream in the field `data`."""


class Entry(NamedTuple):
    """One entry of a Redis stream as it was delivered.

    `consumer` holds its lease. `deliveries` counts how often the entry was handed out, this time included; above 1
    it was reclaimed. `unread` says why the request must be refused without its contents: these were left in Redis, as
    too much for a worker, and of `fields` there is what an error result needs.
    """

    stream: bytes
    entry_id: bytes
    fields: Mapping[bytes, bytes]
    consumer: bytes = b""
    deliveries: int = 1
    unread: str = ""


class Flush(NamedTuple):
    """Marks the end of one poll of one reader."""


class Image(NamedTuple):
    """An encoded image file (JPEG, PNG, ...) as a request carried it; not decoded yet."""

    encoded: bytes


class Payload(NamedTuple):
    """What a request says, independent of its wire format.

    `inputs` maps input names to values, in the order of the wire. A request that names no input uses the key "".
    Arrays have no batch axis unless the client added one. `request_id` is empty where the client sends none.
    """

    uri: bytes
    inputs: Mapping[str, "Image | np.ndarray"]
    generation: Generation
    request_id: bytes = b""


class Origin(NamedTuple):
    """Where a request came from and how its result goes back; it accompanies the data to the sink."""

    stream: bytes
    entry_id: bytes
    uri: bytes
    generation: Generation
    request_id: bytes = b""
    consumer: bytes = b""


class Example(NamedTuple):
    """A decoded request: `tensors` by input name of the model, without a batch axis, in the model's types."""

    origin: Origin
    tensors: Mapping[str, np.ndarray]


class Predictions(NamedTuple):
    """What the model gave for one batch: `outputs` by name, each with the batch axis first.

    Row i of every output belongs to `origins[i]`.
    """

    origins: tuple[Origin, ...]
    outputs: Mapping[str, np.ndarray]


class TopClasses(NamedTuple):
    """The best classes of one output row: 0-based indices and their scores, best first, both of shape (n,)."""

    classes: np.ndarray
    scores: np.ndarray


class Answer(NamedTuple):
    """The served result of one request: by output name, its best classes or, without top-N, the whole tensor.

    `labels` are the names of all classes, where the operator gave some. `as_lists` concerns the image generation only:
    lists, as 0.8 wrote them, where it is true, else the object of strings of 0.7.
    """

    outputs: Mapping[str, "TopClasses | np.ndarray"]
    labels: tuple[str, ...] = ()
    as_lists: bool = False


class Failure(NamedTuple):
    """Why a request got no answer.

    `dead_letter` holds its original fields when it was given up for good; it is empty where these are to be taken from
    the entry in Redis.
    """

    reason: str
    dead_letter: Mapping[bytes, bytes] | None = None


class Result(NamedTuple):
    """The end of one request: what is written for it, and which entry is acknowledged with it."""

    origin: Origin
    outcome: "Answer | Failure"
