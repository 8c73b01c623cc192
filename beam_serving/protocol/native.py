"""The wire format of this project's own clients: raw bytes, one field per fact (docs/protocol.md).

request   uri, id, and per input   image:<name>                                the image file as it is
                              or   tensor:<name>, dtype:<name>, shape:<name>   little-endian, C order
                              or   text:<name>                                 JSON: a string or nested lists of them
result    id, and   value [labels]   JSON: the best classes
          and/or    tensor:<name>, dtype:<name>, shape:<name>   per output that is served whole
                    or text:<name>, where it is text
          or        error   why there is no result
"""

from collections.abc import Mapping, Sequence

import numpy as np

from beam_serving.errors import ModelError, RequestError
from beam_serving.protocol.codec import Codec
from beam_serving.protocol.limits import DEFAULT_LIMITS, Limits, input_name, names_of, subject
from beam_serving.protocol.scores import labels_json, object_json, top_json, top_json_rows
from beam_serving.protocol.tensors import parse_layout, tensor_fields, view
from beam_serving.protocol.text import decode_text, is_text, text_fields
from beam_serving.records import Answer, Image, ProtocolVersion, Ranked, TopClasses


def decode_inputs(fields: Mapping[bytes, bytes], limits: Limits = DEFAULT_LIMITS) -> dict[str, Image | np.ndarray]:
    """Return the inputs of a request by name, in the order of its fields; unknown fields are ignored.

    Raises:
        RequestError: no input, or one that is incomplete or not what its fields say.
    """
    inputs: dict[str, Image | np.ndarray] = {}
    for key, raw in fields.items():
        if key.startswith(b"tensor:"):
            name = key[7:]
            decoded: Image | np.ndarray = _decode_tensor(name, raw, fields, limits)
        elif key.startswith(b"image:"):
            name = key[6:]
            if not raw:
                raise RequestError(f"{subject(name)}image is empty")
            decoded = Image(raw)
        elif key.startswith(b"text:"):
            name = key[5:]
            decoded = _decode_text(name, raw, limits)
        else:
            continue
        readable = input_name(name, limits)
        if readable in inputs:
            raise RequestError(f"{subject(name)}more than one of an image, a tensor and a text, wanted is one")
        inputs[readable] = decoded
    if not inputs:
        raise RequestError(
            "payload is missing, wanted is a field 'image:<name>', 'tensor:<name>', 'text:<name>', 'image' or 'data', "
            f"the fields are {names_of(fields)}"
        )
    return inputs


def _decode_tensor(name: bytes, raw: bytes, fields: Mapping[bytes, bytes], limits: Limits) -> np.ndarray:
    dtype, shape = fields.get(b"dtype:" + name), fields.get(b"shape:" + name)
    if dtype is None or shape is None:
        missing = "dtype:" if dtype is None else "shape:"
        raise RequestError(f"{subject(name)}field '{missing}<name>' of the tensor is missing")
    try:
        return view(raw, parse_layout(dtype, shape, limits.max_rank))
    except RequestError as err:
        raise RequestError(f"{subject(name)}{err}") from err


def _decode_text(name: bytes, raw: bytes, limits: Limits) -> np.ndarray:
    try:
        return decode_text(raw, limits)
    except RequestError as err:
        raise RequestError(f"{subject(name)}{err}") from err


def encode_request(uri: bytes, request_id: bytes, inputs: Mapping[str, Image | np.ndarray]) -> dict[bytes, bytes]:
    """Return the fields of a request; the inverse of `decode_inputs`.

    Raises:
        TypeError: a tensor has a dtype that the wire does not know.
        ValueError: an array of texts has something else among them.
    """
    fields = {b"uri": uri, b"id": request_id}
    for name, value in inputs.items():
        if isinstance(value, Image):
            fields[b"image:" + name.encode()] = value.encoded
        elif is_text(value):
            fields.update(text_fields(name.encode(), value))
        else:
            fields.update(tensor_fields(name.encode(), value))
    return fields


def encode_answer(answer: Answer) -> dict[bytes, bytes]:
    """Return the hash fields of an answer: `value` for best classes, tensor or text fields for what is served whole.

    Raises:
        ModelError: an output has a dtype that no client could read, or what is no text among its texts.
    """
    outputs = answer.outputs
    if len(outputs) == 1:
        (only,) = outputs.values()
        if isinstance(only, TopClasses):
            value = {b"value": top_json(only)}
            if answer.labels:
                value[b"labels"] = labels_json(only, answer.labels).encode()
            return value
    fields: dict[bytes, bytes] = {}
    tops: dict[str, TopClasses] = {}
    for name, output in outputs.items():
        if isinstance(output, TopClasses):
            tops[name] = output
        else:
            fields.update(_output_fields(name, output))
    if tops:
        fields[b"value"] = object_json([(name, top_json(top).decode()) for name, top in tops.items()]).encode()
        if answer.labels:
            texts = [(name, labels_json(top, answer.labels)) for name, top in tops.items()]
            fields[b"labels"] = object_json(texts).encode()
    return fields


def encode_ranked(ranked: Ranked) -> dict[bytes, Sequence[bytes]]:
    """Return the hash fields of `encode_answer` for many records, in columns."""
    columns: dict[bytes, Sequence[bytes]] = {b"value": top_json_rows(ranked.classes, ranked.scores)}
    if ranked.labels:
        tops = map(TopClasses, ranked.classes, ranked.scores)
        columns[b"labels"] = [labels_json(top, ranked.labels).encode() for top in tops]
    return columns


def _output_fields(name: str, output: np.ndarray) -> dict[bytes, bytes]:
    # bfloat16 (ml_dtypes) has no numpy name; float32 holds each of its values
    tensor = output.astype(np.float32) if output.dtype.name == "bfloat16" else output
    try:
        return text_fields(name.encode(), tensor) if is_text(tensor) else tensor_fields(name.encode(), tensor)
    except TypeError as err:
        raise ModelError(f"output cannot be sent: {err}") from err
    except ValueError as err:
        raise ModelError(f"output {name!r} cannot be sent: {err}; name the others in model: outputs") from err


def encode_failure(_: str) -> dict[bytes, bytes]:
    """Return nothing: these clients read `error`."""
    return {}


CODEC = Codec(ProtocolVersion.NATIVE, lambda _: True, decode_inputs, encode_answer, encode_failure, encode_ranked)
