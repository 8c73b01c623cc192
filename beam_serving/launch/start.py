"""From settings to a running pipeline: what differs between runners, and the checks before anything starts."""

import argparse
import difflib
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import RedisError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.encryption.records import RecordEncryption
from beam_serving.encryption.secrets import MODEL, RECORDS, warn_of_readers
from beam_serving.errors import ConfigError, ConnectError, UnreachableError
from beam_serving.io.group import Group
from beam_serving.io.ownership import Ownership
from beam_serving.io.readers import Readers
from beam_serving.io.stop import STOP
from beam_serving.models.base import STRING, LoadedModel
from beam_serving.models.detect import ModelFiles
from beam_serving.models.encrypted import look_at
from beam_serving.models.formats.registry import NOOP, loader_of
from beam_serving.models.labels import check_labels, read_labels
from beam_serving.models.opening import decided_model
from beam_serving.models.options import model_options
from beam_serving.models.store import PrivateCopy
from beam_serving.records import Generation
from beam_serving.telemetry.busy import BusyFile
from beam_serving.transport.connection import RedisAt, backoff, check, fatal
from beam_serving.transport.keys import DEAD_LETTERS, result_key

_log = logging.getLogger(__name__)
_FULL = 0.9
LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner")
FLINK_RUNNER = "FlinkRunner"
SPARK_RUNNER = "SparkRunner"


def preflight(settings: Settings) -> ModelFiles:
    """Checks what can be checked without Beam: the model directory, secrets, Redis, the streams and their group.

    Waits up to `redis: wait_s` for Redis.

    Raises:
        ModelLoadError: the directory holds no model that can be served.
        ConfigError: the file of labels cannot be used, a secret is missing, or another service serves a stream.
        ConnectError: Redis does not answer, or refuses us.
    """
    model, data = settings.model, settings.data
    warn_of_readers(secret_files(settings))
    files = look_at(model.path, model_options(settings))
    if model.encryption == "cbc":
        _log.warning("%s: AES-CBC shows no tampering; `model encrypt --from cbc` makes files for gcm", model.path)
    RecordEncryption(data.encryption, data.secret_file, data.allow_weak_secret).opening()
    read_labels(settings.model.labels)
    at = redis_at(settings)
    client = at.client()
    give_up_at = time.monotonic() + settings.redis.wait_s
    for attempt, wait_s in enumerate(backoff()):
        try:
            check(at, client)
            for stream in settings.data.streams:
                _ensure_group(at, client, stream, settings.data.group)
            Ownership(settings).take(client)
        except RedisError as err:
            if time.monotonic() + wait_s >= give_up_at:
                raise UnreachableError(
                    f"Redis at {at} cannot be reached ({err}); start one there, or set data: src to where it is"
                ) from err
            if attempt == 0:
                _log.warning("Redis at %s does not answer yet (%s); waiting up to %g s", at, err, settings.redis.wait_s)
            time.sleep(wait_s)
        else:
            break
    _warn_of_memory(at, client)
    client.close()
    return files


def secret_files(settings: Settings) -> list[tuple[str, str | None]]:
    """Returns the files with secrets that a configuration names, each with its key."""
    return [
        (MODEL.file_key, settings.model.secret_file),
        (RECORDS.file_key, settings.data.secret_file),
        ("redis: password_file", settings.redis.password_file),
        ("flink: worker_pool_secret_file", settings.flink.worker_pool_secret_file),
    ]


class Decision(NamedTuple):
    """The private copy of a model, the engine that serves it, and the module that loads it there."""

    copy: PrivateCopy
    engine: str
    module: str


def decided_copy(settings: Settings) -> Decision | None:
    """Make the private copy of the model that all workers of this machine serve, and decide how it is served.

    Workers find both when they load it. None for the no-op model.

    Raises:
        ModelLoadError: the model cannot be served.
    """
    options = model_options(settings)
    if NOOP in (options.engine, settings.model.path):
        return None
    with decided_model(settings.model.path, options) as (files, verdict, copy):
        module, _ = loader_of(files.format, verdict.engine)
        return Decision(copy, verdict.engine, module)


def _ensure_group(at: RedisAt, client: redis.Redis, stream: str, group: str) -> None:
    """Make the group, and touch what the first result and the first dead letter will want to write.

    Raises:
        ConnectError: the server refuses it.
    """
    name = stream.encode()
    try:
        Group(client, name, group, b"").ensure()
        client.delete(result_key(Generation.NATIVE, name, b""))
        client.xdel(name + DEAD_LETTERS, "0-0")
    except RedisError as err:
        if reason := fatal(err):
            raise ConnectError(f"Redis at {at}, stream {stream!r}: {reason}") from err
        raise


def _warn_of_memory(at: RedisAt, client: redis.Redis) -> None:
    try:
        about = client.info("memory")
    except RedisError as err:
        _log.debug("cannot ask Redis for its memory: %s", err)
        return
    policy, used, limit = about.get("maxmemory_policy", "noeviction"), about["used_memory"], about.get("maxmemory", 0)
    if limit and used > _FULL * limit:
        _log.warning(
            "Redis at %s uses %.0f %% of its maxmemory: raise it, or delete results that were read",
            at,
            100 * used / limit,
        )
    if policy != "noeviction":
        _log.warning("Redis at %s deletes queued requests when memory is short (maxmemory-policy %s)", at, policy)
        _log.warning("set its maxmemory-policy to noeviction: then producers are told instead")


def check_beam_arguments(arguments: Sequence[str], own_flags: Sequence[str], runner_flags: Sequence[str] = ()) -> None:
    """Refuses flags that neither we nor Beam know, which Beam itself would drop with a warning.

    `runner_flags` are those that only the runner's own side knows; each takes a value.

    Raises:
        ConfigError: a flag is unknown, or would lose records.
    """
    if not arguments:
        return
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for options in PipelineOptions.__subclasses__():
        add = getattr(options, "_add_argparse_args", None)
        if add is not None:
            _add_once(parser, add)
    for flag in set(runner_flags) - set(parser._option_string_actions):
        parser.add_argument(flag)
    known = set(parser._option_string_actions)
    flags = [argument.split("=", 1)[0] for argument in arguments if argument.startswith("-")]
    for flag in flags:
        if flag not in known:
            close = difflib.get_close_matches(flag, [*own_flags, *sorted(known)], n=1)
            hint = f"; did you mean {close[0]}?" if close else "; --help lists ours, Beam's documentation the rest"
            raise ConfigError(f"unknown flag {flag}{hint}")
    try:
        parsed, rest = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as err:
        raise ConfigError(str(err)) from err
    if rest:
        raise ConfigError(f"argument {rest[0]!r} belongs to no flag")
    if getattr(parsed, "direct_num_workers", 1) != 1:
        raise ConfigError("--direct_num_workers would lose records of an endless source; use --workers N")


def _add_once(parser: argparse.ArgumentParser, add: object) -> None:
    """Adds the flags of one of Beam's option classes; several classes declare the same flag."""
    from apache_beam.options.pipeline_options import _BeamArgumentParser

    part = _BeamArgumentParser(add_help=False)
    add(part)  # type: ignore[operator]
    for action in part._actions:
        if not set(action.option_strings) & set(parser._option_string_actions):
            parser._add_action(action)


def checked_steps(settings: Settings, readers: Readers) -> Any:  # a Serving, whose module imports Beam
    """Make the steps, load their model and check what is configured against it, so that errors arrive as they are.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: labels, image rules or post-processing do not fit the model.
    """
    from beam_serving.pipeline import image_rules, steps
    from beam_serving.transforms.image import check_inputs

    serving = steps(settings, readers)
    model = serving.model.acquire().model
    check_labels(settings.model.labels, model)
    if reason := check_inputs(model.inputs, image_rules(settings)):
        raise ConfigError(f"{settings.model.path}: {reason}")
    _check_post_processing(settings, model)
    return serving


def _check_post_processing(settings: Settings, model: LoadedModel) -> None:
    """Refuse best classes of a model that has no scores, whose every request would fail."""
    params = settings.params
    asks = params.post_processing or (f"top_n: {params.top_n}" if params.top_n not in ("auto", 0) else "")
    texts = [spec.name for spec in model.outputs if spec.dtype == STRING]
    if asks and asks != "none" and len(texts) == len(model.outputs):
        raise ConfigError(f"params: {asks}: output {texts[0]!r} of {settings.model.path} is text; set top_n: 0 or auto")


def forget_model() -> None:
    """Frees the model that was checked, which only the workers need: Beam keeps alive what was shared last."""
    from apache_beam.utils.shared import Shared

    Shared().acquire(lambda: STOP)


def run_pipeline(
    settings: Settings, consumers: Sequence[str], arguments: Sequence[str], drain: bool, busy: BusyFile | None = None
) -> str:
    """Runs the pipeline in this process until it ends, and gives its last state ("DONE").

    `busy` is where this process and the other workers of its machine tell each other whether they hold requests.

    Raises:
        ConfigError: see `checked_steps`.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_serving.pipeline import FN_API_RUNNER, build

    serving = checked_steps(settings, Readers(consumers, drain, busy=busy))
    # Beam's "DirectRunner" would first try to download another runner; this is the local one by name.
    options = PipelineOptions([*arguments, f"--runner={FN_API_RUNNER}"])
    pipeline = beam.Pipeline(options=options)
    build(pipeline, serving)
    result = pipeline.run()
    return str(result.wait_until_finish() or result.state)
