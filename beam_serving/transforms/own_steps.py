"""The operator's own steps before and after the model, beside the built-in image rules and best classes.

`data: preprocess` and `params: post_processing` name a function of one record. What it raises ends that record alone:
the text of a `ValueError` goes to its client, of anything else only that the step failed, and the log has all of it.
Where it returns what cannot go on, its client is told what came and what was wanted.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

import numpy as np

from beam_serving.config.own_code import OwnCode
from beam_serving.errors import ConfigError, ModelError, RequestError, printable
from beam_serving.models.base import STRING
from beam_serving.protocol.limits import MOST_VALUE_BYTES, quote
from beam_serving.records import Answer, Failure, Image, Payload, Predictions, Ranked, Result
from beam_serving.telemetry.logs import of_request

_log = logging.getLogger(__name__)
UNNAMED = "output"
"""The name of an output that a function returns without one."""

Inputs = Mapping[str, "bytes | np.ndarray"]
"""What a request carries, by input name: image files as bytes, tensors and texts as arrays; "" is the only input."""


class Preprocess(Protocol):
    """Turns what a request carries into what the model takes; images that are left are decoded by the image rules."""

    def __call__(self, payload: Payload) -> Payload:
        """Return the payload with other inputs.

        Raises:
            RequestError: the request cannot be served; the message is for its client.
        """
        ...


class Postprocess(Protocol):
    """Turns what the model gave for some records into what is served of it."""

    def __call__(self, predictions: Predictions) -> Ranked | list[Result]:
        """Return a result for each record, in their order."""
        ...


def own_preprocess(code: OwnCode) -> Preprocess:
    """Make a step of the operator's function from the inputs of a request to those of the model.

    Args:
        code: names it. It takes and returns a dict as `Inputs`; what it returns without a name is the only input.

    Raises:
        ConfigError: it cannot be imported, or is no function.
    """
    function = _function(code)

    def step(payload: Payload) -> Payload:
        plain = {name: value.encoded if isinstance(value, Image) else value for name, value in payload.inputs.items()}
        try:
            returned = function(plain)
            inputs = {name: _input(value, what) for name, value, what in _named(returned, "", "input")}
        except (Exception, SystemExit) as err:  # whatever the operator's code raises
            raise RequestError(f"request {quote(payload.uri)}: {_reason(err, code)}") from err
        return payload._replace(inputs=inputs)

    return step


def own_postprocess(code: OwnCode) -> Postprocess:
    """Make a step of the operator's function from the outputs of the model to those that are served.

    Args:
        code: names it. It takes the outputs of one record by name, without a batch axis, and returns a dict of what is
            served, or one value of it: an array, a number, a text, or a list of these.

    Raises:
        ConfigError: it cannot be imported, or is no function.
    """
    function = _function(code)

    def answer(outputs: Mapping[str, np.ndarray]) -> Answer | Failure:
        try:
            returned = function(outputs)
            return Answer({name: _output(value, what) for name, value, what in _named(returned, UNNAMED, "output")})
        except (Exception, SystemExit) as err:  # noqa: BLE001 - whatever the operator's code raises
            return Failure(_reason(err, code))

    def step(predictions: Predictions) -> list[Result]:
        rows = [
            {name: output[row, ...] for name, output in predictions.outputs.items()}
            for row in range(len(predictions.origins.ids))
        ]
        return [Result(origin, answer(row)) for origin, row in zip(predictions.origins.each(), rows, strict=True)]

    return step


def _function(code: OwnCode) -> Callable[[object], object]:
    found = code.load()
    if not callable(found):
        raise ConfigError(f"{code}: is no function; wanted is one that takes a dict by name")
    return cast(Callable[[object], object], found)


class _ReturnError(TypeError):
    """What a function returned cannot go on; the message has nothing that is not for a client."""


def _reason(err: BaseException, code: OwnCode) -> str:
    if isinstance(err, ValueError | RequestError | ModelError):
        return printable(str(err))
    _log.error("%s failed", code, exc_info=err, extra=of_request())
    failed = f"the service's own step {code.name!r} failed"
    return f"{failed}: {err}" if isinstance(err, _ReturnError) else failed


def _named(returned: object, only: str, kind: str) -> Iterator[tuple[str, object, str]]:
    """Yield the name and the value of each input or output, and how a message about it begins.

    Raises:
        _ReturnError: there is none, or a name is no text.
    """
    if not isinstance(returned, Mapping):
        yield only, returned, "what it returned"
        return
    if not returned:
        raise _ReturnError(f"it returned no {kind}, its {type(returned).__name__} is empty; wanted is at least one")
    for name, value in returned.items():
        if not isinstance(name, str):
            raise _ReturnError(f"the name of an {kind} is of type {type(name).__name__}, wanted is str")
        if not _is_unicode(name):
            raise _ReturnError(f"the name {quote(name)} of an {kind} has half of a surrogate pair, which is no text")
        yield name, value, f"{kind} {quote(name)}"


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _input(value: object, what: str) -> Image | np.ndarray:
    return Image(bytes(value)) if isinstance(value, bytes | bytearray | memoryview) else _array(value, what)


def _output(value: object, what: str) -> np.ndarray:
    array = _array(value, what)
    if array.nbytes > MOST_VALUE_BYTES:
        raise _ReturnError(f"{what} is {array.nbytes} bytes, at most {MOST_VALUE_BYTES} fit into Redis")
    return array


def _array(value: object, what: str) -> np.ndarray:
    kind = type(value).__name__
    if isinstance(value, np.ma.MaskedArray):
        raise _ReturnError(f"{what} is a masked array, whose mask cannot be sent; choose the values with .filled(...)")
    try:
        array = np.asarray(value)
    except ValueError as err:
        if not isinstance(value, list | tuple):
            raise
        raise _ReturnError(
            f"{what} is a {kind} of lists that differ in length or depth; wanted are alike ones"
        ) from err
    if array.dtype.kind in "US":
        array = array.astype(STRING)
    is_texts = array.dtype == STRING and all(isinstance(one, str | bytes) for one in array.flat)
    if array.dtype.kind not in "fiub" and not is_texts:
        came = kind if isinstance(value, np.generic) else f"{kind}, for NumPy of type {array.dtype}"
        raise _ReturnError(f"{what} is of type {came}; wanted are numbers or texts, arrays or lists of these")
    return array
