"""Prediction over HTTP: the front end of Cluster Serving, in place of Redis."""

import base64
import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import numpy as np

from beam_serving.client.images import image_file, refuse_masked
from beam_serving.client.pending_results import seconds_to_wait
from beam_serving.errors import ClientError, ConnectError, InputError, ResultError
from beam_serving.protocol.numbers import float32_holds, from_lists
from beam_serving.protocol.replies import Reply, as_reply
from beam_serving.protocol.results import named
from beam_serving.transport.deadline import LONGEST_S, call_within

_SHOWN_CHARS = 200


def predict_over_http(frontend_url: str, inputs: Mapping[str, object], timeout_s: float | None) -> Reply:
    """Send one instance to `<frontend_url>/predict` and return its output.

    Raises:
        ConnectError: the front end does not answer in `timeout_s`.
        ClientError: it refuses the request.
        ResultError: its answer is a failure, or not readable.
    """
    if not inputs:
        raise InputError("a request needs at least one input")
    try:
        body = json.dumps({"instances": [{name: _as_json(name, value) for name, value in inputs.items()}]})
    except (TypeError, ValueError, RecursionError) as err:
        raise InputError(f"the inputs are none that JSON has: {err}") from err
    status, answer = _post(frontend_url, body.encode(), timeout_s)
    if status != 200:
        raise ClientError(f"front end {frontend_url}: status {status}: {answer[:_SHOWN_CHARS]}")
    try:
        tensor = json.loads(json.loads(json.loads(answer)["predictions"][0])["value"])
        values = from_lists(tensor["data"])
        array = (values.astype(np.float32) if float32_holds(values) else values).reshape(tensor["shape"])
        return as_reply(named("", array))
    except (ValueError, TypeError, KeyError, IndexError) as err:
        raise ResultError(f"front end {frontend_url}: no readable prediction: {answer[:_SHOWN_CHARS]}") from err


def _as_json(name: object, value: object) -> object:
    refuse_masked(value, f"input {name!r}")
    if isinstance(value, Mapping) and "b64" in value:
        return value["b64"]
    if image := image_file(value):
        return base64.b64encode(image.encoded).decode()
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _post(frontend_url: str, body: bytes, timeout_s: float | None) -> tuple[int, str]:
    parts = urlsplit(frontend_url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    wait_s = seconds_to_wait(timeout_s)
    limit_s = None if wait_s > LONGEST_S else wait_s
    connection = kind(parts.hostname or "localhost", parts.port, timeout=limit_s)

    def ask() -> tuple[int, str]:
        path = f"{parts.path.rstrip('/')}/predict"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")

    try:
        return call_within(limit_s, ask)
    except TimeoutError as err:
        raise ConnectError(f"front end {frontend_url}: timed out") from err
    except (OSError, HTTPException) as err:
        raise ConnectError(f"front end {frontend_url}: {err}") from err
    finally:
        connection.close()
