"""Decode: a request becomes the tensors that the model takes, or an error result that says why not."""

import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import redis
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.io.aside import Consumers
from beam_serving.models.base import STRING, ModelOptions, TensorSpec
from beam_serving.models.shared import SharedModel
from beam_serving.protocol import Limits
from beam_serving.records import Block, Entry, Examples, Flush, Image, Payload, ProtocolVersion, Result
from beam_serving.telemetry.context import service_context
from beam_serving.transforms import Decode, ImageRules
from beam_serving.transforms.decode import tensors_for
from beam_serving.transforms.image_cost import takes_long
from beam_serving.transforms.watchdog import EXIT_HUNG
from beam_serving.transport.connection import RedisAt
from tests.hostile import files
from tests.transforms.images import encode, noise

F32 = np.dtype(np.float32)
X = TensorSpec("x", (2,), F32)
Y = TensorSpec("y", (None, 3), F32)
PICTURE = TensorSpec("picture", (3, 4, 4), F32)
PNG = encode(noise(4, 4, 3), ".png")


def payload(protocol: ProtocolVersion = ProtocolVersion.NATIVE, uri: bytes = b"a", **inputs: Any) -> Payload:
    return Payload(uri, {"" if name == "unnamed" else name: value for name, value in inputs.items()}, protocol)


def values(*numbers: float, dtype: str = "float32") -> np.ndarray:
    return np.array(numbers, dtype)


def tensors(request: Payload, *inputs: TensorSpec) -> dict[str, np.ndarray]:
    return tensors_for(request, inputs, ImageRules())


def refusal(request: Payload, *inputs: TensorSpec) -> str:
    with pytest.raises(RequestError) as caught:
        tensors(request, *inputs)
    return str(caught.value)


def assert_tensors(came: Mapping[str, np.ndarray], **wanted: np.ndarray) -> None:
    assert list(came) == list(wanted)
    for name, tensor in came.items():
        assert tensor.dtype == wanted[name].dtype
        np.testing.assert_array_equal(tensor, wanted[name])


def test_values_go_to_the_input_of_their_name() -> None:
    y = np.zeros((5, 3), np.float32)
    assert_tensors(tensors(payload(y=y, x=values(1, 2)), X, Y), x=values(1, 2), y=y)


@pytest.mark.parametrize("protocol", ProtocolVersion)
def test_an_unnamed_value_goes_to_the_only_input(protocol: ProtocolVersion) -> None:
    assert_tensors(tensors(payload(protocol, unnamed=values(1, 2)), X), x=values(1, 2))


def test_old_clients_name_freely_and_are_matched_by_position() -> None:
    y = np.zeros((5, 3), np.float32)
    assert_tensors(tensors(payload(ProtocolVersion.ARROW, t=values(1, 2), u=y), X, Y), x=values(1, 2), y=y)


def test_a_native_client_must_use_the_names_of_the_model() -> None:
    assert refusal(payload(t=values(1, 2)), X) == "request 'a': its inputs are ['t'], the model takes ['x']"


@pytest.mark.parametrize("protocol", ProtocolVersion)
def test_another_number_of_inputs_is_refused(protocol: ProtocolVersion) -> None:
    said = refusal(payload(protocol, x=values(1, 2)), X, Y)
    assert said == "request 'a': its inputs are ['x'], the model takes ['x', 'y']"
    said = refusal(payload(protocol, x=values(1, 2), z=values(1)), X)
    assert said == "request 'a': its inputs are ['x', 'z'], the model takes ['x']"


def test_a_model_that_says_nothing_gets_tensors_as_they_came() -> None:
    came = values(1, 2, dtype="int8")
    assert_tensors(tensors(payload(t=came)), t=came)


def test_a_model_that_says_nothing_takes_no_images() -> None:
    assert refusal(payload(t=Image(PNG))) == (
        "request 'a': the model does not say what it takes, so it takes no images; set data: shape"
    )


def test_a_batch_axis_of_one_is_taken_off() -> None:
    assert_tensors(tensors(payload(x=values(1, 2)[None])), x=values(1, 2)[None])
    assert_tensors(tensors(payload(x=values(1, 2)[None]), X), x=values(1, 2))


@pytest.mark.parametrize(
    ("value", "spec", "said"),
    [
        (values(1, 2, 3), X, "input 'x' has shape [3], the model takes [2]"),
        (values(1), X, "input 'x' has shape [1], the model takes [2]"),
        (np.float32(1), X, "input 'x' has shape [], the model takes [2]"),
        (np.zeros((2, 2), np.float32), X, "input 'x' has shape [2, 2], the model takes [2]"),
        (np.zeros((2, 4), np.float32), Y, "input 'y' has shape [2, 4], the model takes ['any', 3]"),
        (np.zeros((0, 2), np.float32), X, "input 'x' has shape [0, 2], the model takes [2]"),
    ],
)
def test_another_shape_is_refused(value: np.ndarray, spec: TensorSpec, said: str) -> None:
    assert refusal(payload(unnamed=np.asarray(value)), spec) == f"request 'a': {said}"


@pytest.mark.parametrize(
    ("came", "wanted", "numbers"),
    [
        ("float64", "float32", (0.5, 2)),
        ("float32", "float16", (0.5, 2)),
        ("uint8", "float32", (0, 255)),
        ("int64", "float32", (-1, 2)),
        ("int64", "int32", (-1, 2)),
        ("float32", "int32", (-1, 2)),
        ("float32", "uint8", (0, 255)),
        ("bool", "float32", (0, 1)),
        ("int64", "uint8", (0, 255)),
        ("int64", "float64", (2**53, -(2**63))),
        ("float64", "int64", (-(2.0**63), 2.0**53)),
        ("float64", "float32", (np.inf, np.nan)),
        ("float64", "float32", (0.1, 1e-60)),
        ("uint64", "int64", (2**63 - 1, 0)),
    ],
)
def test_numbers_become_those_of_the_model(came: str, wanted: str, numbers: tuple[float, float]) -> None:
    spec = TensorSpec("x", (2,), np.dtype(wanted))
    assert_tensors(tensors(payload(x=values(*numbers, dtype=came)), spec), x=values(*numbers, dtype=wanted))


@pytest.mark.parametrize(
    ("came", "wanted", "numbers", "said"),
    [
        ("complex64", "float32", (1, 2), "has type complex64, the model takes float32"),
        ("int64", "uint8", (1, -2), "has int64 values that are no uint8, such as -2"),
        ("float32", "bool", (0, 1), "has type float32, the model takes bool"),
        ("float32", "int32", (0.5, 1), "has float32 values that are no int32, such as 0.5"),
        ("float32", "int32", (np.nan, 1), "has float32 values that are no int32, such as nan"),
        ("float32", "int32", (np.inf, 1), "has float32 values that are no int32, such as inf"),
        ("float32", "uint8", (256, 1), "has float32 values that are no uint8, such as 256.0"),
        ("float32", "uint8", (-1, 1), "has float32 values that are no uint8, such as -1.0"),
        ("int64", "int32", (2**31, 1), "has int64 values that are no int32, such as 2147483648"),
        ("int64", "float32", (2**24 + 1, 1), "has int64 values that are no float32, such as 16777217"),
        ("int64", "float64", (2**53 + 1, 1), "has int64 values that are no float64, such as 9007199254740993"),
        ("int64", "float64", (2**63 - 1, 1), "has int64 values that are no float64, such as 9223372036854775807"),
        ("float64", "int64", (2.0**63, 1), "has float64 values that are no int64, such as 9.223372036854776e+18"),
        ("int64", "uint64", (-1, 1), "has int64 values that are no uint64, such as -1"),
        ("uint64", "int64", (2**63, 1), "has uint64 values that are no int64, such as 9223372036854775808"),
        ("uint64", "float16", (2**17, 1), "has uint64 values that are no float16, such as 131072"),
        ("float64", "float32", (1e39, 1), "has float64 values that are infinite as float32, such as 1e+39"),
        ("float32", "float16", (-1e5, 1), "has float32 values that are infinite as float16, such as -100000.0"),
    ],
)
def test_numbers_that_the_model_cannot_hold_are_refused(
    came: str, wanted: str, numbers: tuple[float, float], said: str
) -> None:
    spec = TensorSpec("x", (2,), np.dtype(wanted))
    assert refusal(payload(x=values(*numbers, dtype=came)), spec) == f"request 'a': input 'x' {said}"


TYPES = some.sampled_from(
    [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)] + ["float16", "float32", "float64"]
)


@given(TYPES, TYPES, some.data())
def test_a_whole_number_is_the_same_or_refused(came: str, wanted: str, data: some.DataObject) -> None:
    limits = np.iinfo(came) if "int" in came else None
    numbers = some.integers(int(limits.min), int(limits.max)) if limits else some.integers(-(2**64), 2**64)
    sent = np.array([data.draw(numbers)], np.float64 if limits is None else came)
    with np.errstate(over="ignore"):
        sent = sent.astype(came)
    try:
        got = tensors(payload(x=sent), TensorSpec("x", (1,), np.dtype(wanted)))["x"]
    except RequestError:
        if "int" in wanted and np.isfinite(sent.astype(float)).all():
            assert not np.iinfo(wanted).min <= int(sent[0]) <= np.iinfo(wanted).max
        return
    if "int" in came or "int" in wanted:
        assert int(got[0]) == int(sent[0])
    else:
        assert np.isfinite(got[0]) or not np.isfinite(sent[0])


def test_a_refusal_begins_with_the_uri_shown_safely() -> None:
    said = refusal(payload(uri=b"\xff\n" + b"b" * 100, x=values(1)), X)
    assert said == rf"request '\\xff\n{'b' * 59}': input 'x' has shape [1], the model takes [2]"


def test_images_and_tensors_may_come_together() -> None:
    came = tensors(payload(x=values(1, 2), picture=Image(PNG)), PICTURE, X)
    assert_tensors(came, picture=noise(4, 4, 3).transpose(2, 0, 1).astype(np.float32), x=values(1, 2))


def test_an_image_that_cannot_be_read_is_refused() -> None:
    said = "request 'a': this format is not supported: 4 bytes that start with b'text'; wanted a file of JPEG, "
    assert refusal(payload(unnamed=Image(b"text")), PICTURE).startswith(said)


def test_a_tensor_may_come_where_an_image_may() -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    assert_tensors(tensors(payload(unnamed=pixels), PICTURE), picture=pixels.astype(np.float32))


def entry(number: int, deliveries: int = 1, **fields: bytes) -> Entry:
    good = {"uri": f"r{number}".encode(), "id": b"i", "tensor:": bytes(8), "dtype:": b"float32", "shape:": b"2"}
    names = {name.encode(): value for name, value in {**good, **fields}.items() if value}
    return Entry(b"stream", f"{number}-0".encode(), names, b"worker", deliveries)


def summary(result: Result) -> tuple[Any, ...]:
    outcome: Any = result.outcome
    return (result.origin.entry_id, result.origin.uri, outcome.reason, outcome.dead_letter is not None)


def shown(element: Examples | Flush) -> list[Any]:
    if isinstance(element, Flush):
        return ["flush"]
    origins = enumerate(element.origins.each())
    return [(origin, {name: rows[row].tolist() for name, rows in element.tensors.items()}) for row, origin in origins]


def read_at_once(*entries: Entry) -> Block:
    """Gives entries of one stream as the source does."""
    fields = [[part for pair in one.fields.items() for part in pair] for one in entries]
    return Block(entries[0].stream, entries[0].consumer, [one.entry_id for one in entries], fields)


def blocks_of(entries: list[Entry | Flush]) -> list[Block | Flush]:
    return [one if isinstance(one, Flush) else Block.of(one) for one in entries]


def decode(entries: list[Entry | Flush], wanted_examples: list[Any], wanted_refusals: list[tuple[Any, ...]]) -> None:
    """Runs Decode for the no-op model of one input of two values, and checks both of its outputs."""
    decode_blocks(blocks_of(entries), wanted_examples, wanted_refusals)


def decode_blocks(
    blocks: list[Block | Flush], wanted_examples: list[Any], wanted_refusals: list[tuple[Any, ...]]
) -> None:
    model = SharedModel("noop", ModelOptions(input_shape=(2,)), 1)
    step = Decode(model, ImageRules(), Limits(max_payload_bytes=1000), max_deliveries=3, batch_size=2)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        examples, refused = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: blocks) | step
        assert_that(examples | "Show" >> beam.FlatMap(shown), equal_to(wanted_examples), label="examples")
        assert_that(
            refused | beam.FlatMap(lambda results: map(summary, results)), equal_to(wanted_refusals), label="refused"
        )


def test_entries_become_examples_and_a_flush_passes_through() -> None:
    native = ProtocolVersion.NATIVE
    origins = [(b"stream", b"%d-0" % number, b"r%d" % number, native, b"i", b"worker") for number in (1, 2)]
    decode([entry(1), entry(2), Flush()], [*((origin, {"input": [0.0, 0.0]}) for origin in origins), "flush"], [])
    assert sum(service_context().stats.stages["decode"].counts.values()) == 2
    assert service_context().stats.counts["refused"] == 0


def test_a_bad_request_does_not_stop_a_good_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    good = ((b"stream", b"1-0", b"r1", ProtocolVersion.NATIVE, b"i", b"worker"), {"input": [0.0, 0.0]})
    wrong_shape = "request 'r2': input 'input' has shape [1], the model takes [2]"
    too_large = "request 'r3': request is 2050 bytes, at most 1000 are served"
    decode(
        [entry(2, **{"tensor:": bytes(4), "shape:": b"1"}), entry(3, padding=bytes(2000)), entry(1)],
        [good],
        [(b"2-0", b"r2", wrong_shape, False), (b"3-0", b"r3", too_large, False)],
    )
    assert service_context().stats.counts["refused"] == 2
    assert f"refused an entry of 'stream': {wrong_shape}" in caplog.messages


def test_of_a_block_each_record_has_its_own_outcome() -> None:
    def good(number: int) -> tuple[Any, ...]:
        origin = (b"stream", b"%d-0" % number, b"r%d" % number, ProtocolVersion.NATIVE, b"i", b"worker")
        return (origin, {"input": [float(number), 0.0]})

    def of(number: int, **fields: bytes) -> Entry:
        return entry(number, **{"tensor:": np.array([number, 0], np.float32).tobytes(), **fields})

    odd = [of(2, **{"dtype:": b"float64"}), of(4, uri=b""), of(6, **{"shape:": b"1,2"})]
    block = read_at_once(of(1), odd[0], of(3), odd[1], of(5), odd[2], of(7))
    payload = "request 'r2': payload is 8 bytes, float64[2] needs 16"
    missing = "request without uri: field 'uri' is missing, the fields are 'id', 'tensor:', 'dtype:', 'shape:'"
    wanted = [good(1), good(3), good(5), good(6), good(7)]
    decode_blocks([block, Flush()], [*wanted, "flush"], [(b"2-0", b"r2", payload, False), (b"4-0", b"", missing, True)])


def test_a_request_that_no_client_waits_for_becomes_a_dead_letter() -> None:
    missing = "request without uri: field 'uri' is missing, the fields are 'id', 'tensor:', 'dtype:', 'shape:'"
    decode([entry(1, uri=b"")], [], [(b"1-0", b"", missing, True)])


def test_an_entry_is_given_up_after_its_last_delivery() -> None:
    good = ((b"stream", b"1-0", b"r1", ProtocolVersion.NATIVE, b"i", b"worker"), {"input": [0.0, 0.0]})
    reason = "given up after 3 deliveries without a result: it may have ended its workers"
    decode([entry(1, deliveries=3), entry(2, deliveries=4)], [good], [(b"2-0", b"r2", reason, True)])


def test_an_entry_that_was_not_read_is_refused_with_the_reason() -> None:
    unread = Entry(b"stream", b"1-0", {b"uri": b"r1"}, b"worker", 1, "request is 7 bytes, at most 1 are served")
    decode([unread], [], [(b"1-0", b"r1", "request 'r1': request is 7 bytes, at most 1 are served", False)])


def test_the_letter_of_an_entry_that_was_not_read_is_what_redis_holds_of_it() -> None:
    reason = "request has 300 fields, at most 256 are served"
    unread = Entry(b"stream", b"1-0", {b"id": b"i"}, b"worker", 1, reason)
    model = SharedModel("noop", ModelOptions(input_shape=(2,)), 1)
    step = Decode(model, ImageRules(), Limits(), max_deliveries=3, batch_size=2)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _, refused = pipeline | beam.Create([0]) | beam.FlatMap(lambda _: [Block.of(unread)]) | step
        letters = refused | beam.FlatMap(lambda results: [result.outcome.dead_letter for result in results])
        assert_that(letters, equal_to([{}]))


IMAGES = tuple(TensorSpec(str(number), (3, 8, 8), np.dtype(np.float32)) for number in range(8))


def test_the_images_of_a_request_are_work_together() -> None:
    large = encode(np.zeros((5000, 5000), np.uint8), ".png")
    files = {str(number): Image(large) for number in range(8)}
    with pytest.raises(RequestError, match=r"^request 'r': 8 images take about 4\.0 s to decode: more work than"):
        tensors_for(Payload(b"r", files, ProtocolVersion.NATIVE), IMAGES, ImageRules())


def test_files_for_inputs_of_text_are_no_work() -> None:
    texts = tuple(TensorSpec(str(number), (), STRING) for number in range(8))
    files = {str(number): Image(b"no image") for number in range(8)}
    assert len(tensors_for(Payload(b"r", files, ProtocolVersion.NATIVE), texts, ImageRules())) == 8


def test_tensors_of_free_sizes_are_batched_up_to_so_many_bytes() -> None:
    model = SharedModel("noop", ModelOptions(), 1)
    half = b"%d" % (4 << 20)
    large = [entry(number, **{"tensor:": bytes(16 << 20), "shape:": half}) for number in range(3)]
    entries = [*large, entry(3), Flush(), *large[:2]]
    step: Any = Decode(model, ImageRules(), Limits(), max_deliveries=3, batch_size=8)._step
    step.setup()
    given = [element for one in blocks_of(entries) for element in step.process(one)]
    step.teardown()
    sizes = ["flush" if isinstance(one, Flush) else next(iter(one.tensors.values())).size for one in given]
    assert sizes == [4 << 20, 4 << 20, "flush", 4 << 20, 2, "flush", 4 << 20, 4 << 20]


def test_what_a_request_makes_of_all_its_inputs_is_bounded() -> None:
    rules = ImageRules(max_decode_bytes=100_000)
    specs = tuple(TensorSpec(name, None, np.dtype(np.float64)) for name in "ab")
    inputs = {name: np.zeros(8000, np.uint8) for name in "ab"}
    with pytest.raises(RequestError, match=r"^request 'a': a tensor of float64 takes 1 MB to decode, at most 0 MB are"):
        tensors_for(Payload(b"a", inputs, ProtocolVersion.NATIVE), specs, rules)
    assert len(tensors_for(Payload(b"a", inputs, ProtocolVersion.NATIVE), specs, ImageRules())) == 2


HANGING = """\
import os
from beam_serving.models.base import ModelOptions
from beam_serving.models.shared import SharedModel
from beam_serving.records import Block, Entry
from beam_serving.transforms import Decode, ImageRules, image_cost
from beam_serving.protocol import Limits
from tests.hostile import files

image_cost._MOST_VISITS = 1 << 60
image_cost._MOST_NS_PER_PIXEL = 1 << 60
file = files.with_scans(files.jpeg(4000, 4000, progressive=True), 3000)
step = Decode(SharedModel("noop", ModelOptions(input_shape=(3, 8, 8)), 1), ImageRules(), Limits(), 3, 1, timeout_s=0.3)
step._step.setup()
list(step._step.process(Block.of(Entry(b"s", b"1-0", {b"uri": b"u", b"image:": file}))))
"""


def test_a_decoding_that_hangs_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == EXIT_HUNG, ended.stderr
    assert "decoding a request runs for more than 0.3 s: ending this worker" in ended.stderr


def test_an_image_that_takes_long_is_decoded_beside_the_others(at: RedisAt, client: redis.Redis) -> None:
    """It goes on with a later flush, and its neighbours with their own."""
    client.xgroup_create("stream", "serving", "0", mkstream=True)
    for uri, file in (("large", files.png(2000, 2000)), ("small", files.png(8, 8)), ("bad", b"no image")):
        client.xadd("stream", {"uri": uri, "image:": file})
    ((_, rows),) = client.xreadgroup("serving", "me", {"stream": ">"}, count=3)
    block = read_at_once(*(Entry(b"stream", entry_id, fields, b"me") for entry_id, fields in rows))
    aside = service_context().shared(Consumers).open(b"me", "serving", at.client())
    step: Any = Decode(SharedModel("noop", ModelOptions(input_shape=(3, 8, 8)), 1), ImageRules(), Limits(), 3, 8)._step
    step.setup()
    examples, refused = step.process(block)
    assert examples.origins.uris == (b"small",)
    assert [result.origin.uri for result in refused.value] == [b"bad"]
    assert aside.finished(within_s=30)
    late, flush = step.process(Flush())
    assert late.origins.uris == (b"large",)
    assert late.tensors["input"].shape == (1, 3, 8, 8)
    assert flush == Flush()
    step.teardown()
    aside.close()


@pytest.mark.parametrize(
    ("file", "long"),
    [
        (files.png(999, 1000), False),
        (files.png(1000, 1000), True),
        (files.jpeg(4000, 3000), False),
        (files.jpeg(4000, 3000, progressive=True), True),
        (files.with_scans(files.jpeg(64, 64, progressive=True), 100), True),
        (b"no image", False),
        (b"", False),
    ],
)
def test_what_takes_long_is_known_before(file: bytes, long: bool) -> None:
    assert takes_long(file) == long
