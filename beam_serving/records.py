"""The values that travel through the pipeline: one immutable value per stage, which holds many records in columns.

    Block --Decode--> Examples --BatchElements--> [Examples] --Infer--> Predictions --TopN--> Ranked or [Result]

A record crosses Beam with its neighbours, since crossing alone costs more than all that is done with it. `Flush`
travels along from the source to the batching step and ends there: it says that what was read at once is complete, so
that a batch never waits for more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

MOST_FIELDS = 256
MOST_REQUEST_BYTES = 128 << 20
"""What the protocol has in one request at most; a service may take less."""


class ProtocolVersion(StrEnum):
    """Which version of the protocol a client speaks, and so in which form it reads its result.

    These are the known ones; a further codec of `beam_serving.protocol` may have a name of its own.
    """

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


class Block(NamedTuple):
    """Entries of one stream that were read at once, in the order of their ids.

    `fields` has a list for each entry: names and values in turn, as the server sends them. `consumer` holds their
    lease. `deliveries` is above 1 for an entry that was handed out before; such a one is alone in its block, and so is
    one with `unread` (see `Entry`).
    """

    stream: bytes
    consumer: bytes
    ids: Sequence[bytes]
    fields: Sequence[list[bytes]]
    deliveries: int = 1
    unread: str = ""

    @classmethod
    def of(cls, entry: Entry) -> "Block":
        """Return a block of one entry."""
        flat = [part for pair in entry.fields.items() for part in pair]
        return cls(entry.stream, entry.consumer, (entry.entry_id,), (flat,), entry.deliveries, entry.unread)

    def entries(self, places: Iterable[int]) -> Iterator[Entry]:
        """Yield the entries at these places."""
        for place in places:
            flat = self.fields[place]
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            yield Entry(self.stream, self.ids[place], fields, self.consumer, self.deliveries, self.unread)


class Flush(NamedTuple):
    """Marks the end of one read batch of one reader."""


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
    protocol: str
    request_id: bytes = b""


class Origin(NamedTuple):
    """Where a request came from and how its result goes back; it accompanies the data to the sink."""

    stream: bytes
    entry_id: bytes
    uri: bytes
    protocol: str
    request_id: bytes = b""
    consumer: bytes = b""


class Origins(NamedTuple):
    """The origins of some records of one stream, in columns, in the order of the entries' ids."""

    stream: bytes
    consumer: bytes
    protocol: str
    ids: Sequence[bytes]
    uris: Sequence[bytes]
    request_ids: Sequence[bytes]

    @classmethod
    def of(cls, origins: Sequence[Origin]) -> "Origins":
        """Put origins of one stream, consumer and protocol version into columns."""
        first = origins[0]
        ids, uris, request_ids = zip(*((one.entry_id, one.uri, one.request_id) for one in origins), strict=True)
        return cls(first.stream, first.consumer, first.protocol, ids, uris, request_ids)

    def part(self, low: int, high: int) -> "Origins":
        """Return those of the records from `low` up to `high`."""
        if low == 0 and high == len(self.ids):
            return self
        columns = (column[low:high] for column in (self.ids, self.uris, self.request_ids))
        return Origins(self.stream, self.consumer, self.protocol, *columns)

    def failed(self, reason: str) -> "list[Result]":
        """Return an error result for each of the records, with a reason that its client may read."""
        return [Result(origin, Failure(reason)) for origin in self.each()]

    def each(self) -> list[Origin]:
        """Return them one by one."""
        return [
            Origin(self.stream, entry_id, uri, self.protocol, request_id, self.consumer)
            for entry_id, uri, request_id in zip(self.ids, self.uris, self.request_ids, strict=True)
        ]


class Examples(NamedTuple):
    """Decoded requests.

    Attributes:
        origins: where they came from, in the order of the rows.
        tensors: by input name of the model, of shape (records, ...), in the model's types.
    """

    origins: Origins
    tensors: Mapping[str, np.ndarray]

    def part(self, low: int, high: int) -> "Examples":
        """Return those of the records from `low` up to `high`; the tensors are views.

        Args:
            low: the place of the first one, from 0.
            high: the place behind the last one.
        """
        return Examples(self.origins.part(low, high), {name: rows[low:high] for name, rows in self.tensors.items()})


class Predictions(NamedTuple):
    """What the model gave for some records.

    Attributes:
        origins: where the records came from.
        outputs: by name, each of shape (records, ...): row i belongs to record i of `origins`.
    """

    origins: Origins
    outputs: Mapping[str, np.ndarray]


class Ranked(NamedTuple):
    """The best classes of the only output of some records.

    Attributes:
        origins: where the records came from, in the order of the rows.
        name: of the output.
        classes: 0-based indices, integers of shape (records, n), best first; n is at most the number of classes.
        scores: those of the classes, of the same shape, in the type of the output.
        labels: the names of all classes, empty where there are none.
        as_lists: see `Answer`.
    """

    origins: Origins
    name: str
    classes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...] = ()
    as_lists: bool = False

    def each(self) -> "list[Result]":
        """Return the results one by one."""
        return [
            Result(origin, Answer({self.name: TopClasses(classes, scores)}, self.labels, self.as_lists))
            for origin, classes, scores in zip(self.origins.each(), self.classes, self.scores, strict=True)
        ]


class TopClasses(NamedTuple):
    """The best classes of one output row: 0-based indices and their scores, best first, both of shape (n,)."""

    classes: np.ndarray
    scores: np.ndarray


class Answer(NamedTuple):
    """The served result of one request: by output name, its best classes or, without top-N, the whole tensor.

    `labels` are the names of all classes, where the operator gave some. `as_lists` concerns version IMAGE only:
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
    """The end of one request.

    Attributes:
        origin: which entry is acknowledged with it, and where its client looks for it.
        outcome: what is written for it.
    """

    origin: Origin
    outcome: "Answer | Failure"
