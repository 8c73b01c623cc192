"""Which keys there are in Redis, and which names of streams would make one key mean two things.

<stream>, <stream>:dead, <stream>:rows, <stream>:owner:<group>    a stream of requests and what belongs to it
cluster-serving_<stream>:<uri>                                    results
result:<uri>                                                      results of clients of 0.7 and 0.8
beam-serving:...                                                  what services say of themselves
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

DEAD_LETTERS = b":dead"
"""Appended to a stream's name, it names the stream that keeps what was given up."""
IMAGE_STREAM = b"image_stream"
"""The stream of Cluster Serving 0.7 and 0.8, whose clients cannot be told another one."""
_IMAGE_PROTOCOL = "image"
"""`ProtocolVersion.IMAGE`, without the import of NumPy that `records` takes: commands that only look need none."""
_TAKEN_STARTS = ("cluster-serving_", "result:", "beam-serving:")
_TAKEN_ENDS = (":dead", ":rows")
_OWNER = ":owner:"


def result_key(protocol: str, stream: bytes, uri: bytes) -> bytes:
    """Return the key of the hash in which a client of this version looks for its result.

    The key is also the name of the channel on which the result is announced. Clients of protocol version IMAGE know one
    stream only, so theirs is the one place where a result may be at `result:`: on other streams a request does not
    choose among keys that services share.

    Args:
        protocol: the version of the request.
        stream: the name of the stream that it came by.
        uri: that of the request, as it was sent.
    """
    if protocol == _IMAGE_PROTOCOL and stream == IMAGE_STREAM:
        return b"result:" + uri
    return b"cluster-serving_" + stream + b":" + uri


def owner_key(stream: str, group: str) -> str:
    """Name the key that says who serves a stream and group."""
    return f"{stream}:owner:{group}"


def parents(stream: str) -> Iterator[str]:
    """Yield the names whose results would be among those of this stream: of `a:b:c` these are `a:b` and `a`."""
    while ":" in stream:
        stream = stream.rpartition(":")[0]
        yield stream


def shared_keys(stream: str, streams: Iterable[str] = ()) -> str | None:
    """Say why a stream cannot have this name, beside these others of the same service; None where it can."""
    if starts := [start for start in _TAKEN_STARTS if stream.startswith(start)]:
        return f"stream {stream!r}: names that start with {starts[0]} are those of other keys of ours"
    if stream.endswith(_TAKEN_ENDS) or _OWNER in stream:
        return f"stream {stream!r}: names with :dead or :rows at the end, or {_OWNER} within, are those of our own keys"
    if not stream.isprintable():
        return f"stream {stream!r}: wants a name without control characters"
    if both := sorted(set(parents(stream)) & set(streams)):
        return (
            f"streams {both[0]!r} and {stream!r}: the result of a request of one could be at the key of the other "
            f"(cluster-serving_{stream}:<uri>); one of them wants another name"
        )
    return None
