"""The pipeline, as one sentence: read, decode, batch, infer, rank, write.

Errors leave the way at two places, `refused` by Decode and `failed` by Infer, and are written as results like all
others. They are not flattened into one collection with these: Beam's local runner ends the fused stage at a Flatten,
and an unbounded stage never ends, so nothing would ever be written.
"""

from dataclasses import dataclass

import apache_beam as beam

from beam_serving.config.own_code import OwnCode
from beam_serving.config.post_processing import PostProcessing
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.encryption.records import RecordEncryption
from beam_serving.io.consumer import Reading
from beam_serving.io.readers import Readers
from beam_serving.io.sink import DeadLetters, WriteToRedis
from beam_serving.io.source import ReadFromRedisStream
from beam_serving.models.labels import read_labels
from beam_serving.models.options import model_options
from beam_serving.models.shared import SharedModel
from beam_serving.protocol import Limits
from beam_serving.transforms import Batch, Decode, ImageRules, Infer, TopN


@dataclass(frozen=True)
class Serving:
    """The steps of one service, each ready to be applied, and the model that they share in each worker process.

    Attributes:
        model: the model of decode, infer and top_n, loaded once in each worker process.
        read: emits `Block`s and `Flush`es.
        decode: emits `Examples` and `Flush`es as `examples`, and error results as `refused`.
        batch: emits lists of `Examples`.
        infer: emits `Predictions` as `predictions`, and error results as `failed`.
        top_n: emits `Ranked`, or lists of `Result` records.
        write: writes results, the errors among them, and acknowledges their entries.
    """

    model: SharedModel
    read: ReadFromRedisStream
    decode: Decode
    batch: Batch
    infer: Infer
    top_n: TopN
    write: WriteToRedis


def build(pipeline: beam.Pipeline, serving: Serving) -> None:
    """Apply the steps to a pipeline, each under a label of its own; nothing runs yet.

    Args:
        pipeline: one that does not have these steps.
        serving: the steps.
    """
    entries = pipeline | "Read requests" >> serving.read
    examples, refused = entries | "Decode" >> serving.decode
    predictions, failed = examples | "Batch" >> serving.batch | "Infer" >> serving.infer
    results = predictions | "Top N" >> serving.top_n
    for label, written in (("results", results), ("refusals", refused), ("failures", failed)):
        _ = written | f"Write {label}" >> serving.write


def image_rules(settings: Settings) -> ImageRules:
    """Return what the configuration says of images."""
    data = settings.data
    return ImageRules(
        data.color,
        data.layout,
        data.mean,
        data.scale,
        data.max_pixels,
        data.resize,
        data.resize_to,
        data.strict_images,
        data.resize_filter,
        data.max_decode_mb << 20,
    )


def _served(settings: Settings) -> PostProcessing | OwnCode | None:
    """Return what is served of the outputs; None leaves it to the model."""
    params = settings.params
    if own := settings.own_code("params.post_processing"):
        return own
    if params.post_processing:
        return PostProcessing.of(params.post_processing)
    return None if params.top_n == "auto" else PostProcessing(params.top_n)


def steps(settings: Settings, readers: Readers) -> Serving:
    """Make the steps that the configuration asks for.

    With `batch_size: auto` the model is loaded and measured here, in the process that serves it. A drain that has an
    output keeps its results for it, to be written to files when it has ended (`beam_serving.export.drain`).
    """
    model, data, params = settings.model, settings.data, settings.params
    at = redis_at(settings)
    shared_model = SharedModel(
        model.path, model_options(settings), None if params.batch_size == "auto" else params.batch_size, readers.busy
    )
    batch_size = shared_model.batch_size()
    reading = Reading(
        at,
        data.streams,
        data.group,
        batch_size,
        params.poll_s,
        params.reclaim_idle_s,
        data.max_request_bytes,
        settings.name,
        data.max_result_bytes,
    )
    return Serving(
        model=shared_model,
        read=ReadFromRedisStream(reading, readers, params.checkpoint_interval_s),
        decode=Decode(
            shared_model,
            image_rules(settings),
            Limits(max_payload_bytes=data.max_request_bytes, max_decode_bytes=data.max_decode_mb << 20),
            params.max_deliveries,
            batch_size,
            RecordEncryption(data.encryption, data.secret_file, data.allow_weak_secret),
            params.inference_timeout_s,
            settings.own_code("data.preprocess"),
        ),
        batch=Batch(batch_size),
        infer=Infer(shared_model, params.inference_timeout_s),
        top_n=TopN(_served(settings), read_labels(model.labels), shared_model),
        write=WriteToRedis(
            at,
            data.group,
            data.result_ttl_s,
            keep_outbox=readers.drain and data.output is not None,
            dead_letters=DeadLetters.of(data.max_dead_letters, data.max_dead_letters_mb),
        ),
    )
