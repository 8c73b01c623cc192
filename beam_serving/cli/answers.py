"""Results on a terminal: a table for people, JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_serving.cli.tables import listed
from beam_serving.encryption.secrets import RECORDS
from beam_serving.errors import ClientError
from beam_serving.protocol.replies import Reply
from beam_serving.protocol.text import is_text
from beam_serving.transport.connection import RedisAt

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings

Answer = Reply | ClientError
"""What became of a request: its result, or why there is none."""

_MOST_SHOWN = 8
_MOST_CHARS = 200


def json_line(uri: str, answer: Answer) -> str:
    """Return a result as one line of JSON: `uri`, and `result` or `error`; what is no number is null."""
    if isinstance(answer, ClientError):
        return json.dumps({"uri": uri, "error": str(answer)})
    return json.dumps({"uri": uri, "result": _plain(answer)}, default=str)


def table(answers: Mapping[str, Answer]) -> str:
    """Return results as text for people; of a large output its type and shape."""
    rows = [("uri", "result"), *((_printable(uri), _text(answer)) for uri, answer in answers.items())]
    return listed(rows)


def failed(answers: Mapping[str, Answer]) -> bool:
    """Return whether a request has no result."""
    return any(isinstance(answer, ClientError) for answer in answers.values())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        numbers = value.astype(object)
        numbers[~np.isfinite(value)] = None
        return numbers.tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _printable(uri: str) -> str:
    """Return a uri without what a terminal could not take: a file's name may be no UTF-8."""
    return uri.encode("utf-8", "backslashreplace").decode()


def _text(answer: Answer) -> str:
    if isinstance(answer, ClientError):
        return f"error: {answer}"
    if isinstance(answer, list):
        return "; ".join(map(_output, answer))
    if isinstance(answer, dict) and any(isinstance(of, dict | np.ndarray | str) for of in answer.values()):
        return "; ".join(f"{name}: {_output(of)}" for name, of in answer.items())
    return _output(answer)


def _output(output: Any) -> str:
    if isinstance(output, str):
        # unlike a text itself, its repr has no control characters for a terminal
        return repr(output if len(output) <= _MOST_CHARS else f"{output[:_MOST_CHARS]}…")
    if isinstance(output, dict):
        return ", ".join(f"{key}: {score:.6g}" for key, score in output.items()) or "no class"
    if output.size > _MOST_SHOWN:
        return f"{'string' if is_text(output) else output.dtype}{list(output.shape)}"
    if is_text(output):
        return " ".join(_output(text) for text in output.reshape(-1).tolist())
    return " ".join(json.dumps(_plain(output), default=str).split())


def queue_arguments(at: RedisAt, stream: str) -> dict[str, Any]:
    """Return the arguments of a client's queue for a stream of this Redis."""
    return {"url_or_host": at.url(), "stream": stream, "password": at.password(), "ca_file": at.ca_file}


def secret_arguments(settings: Settings) -> dict[str, Any]:
    """Return what the requests of a service that takes encrypted ones are encrypted with, as arguments of a queue."""
    if settings.data.encryption == "none":
        return {}
    return asdict(RECORDS.read_to_encrypt(settings.data.secret_file))
