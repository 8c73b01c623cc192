"""The checks before a service starts, without Beam: model, secrets, Redis, streams; and how the model is served."""

import logging
import time
from typing import NamedTuple

import redis
from redis.exceptions import RedisError

from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import CODE, Settings
from beam_serving.encryption.records import RecordEncryption
from beam_serving.encryption.secrets import MODEL, RECORDS, warn_of_readers
from beam_serving.errors import ConnectError
from beam_serving.io.group import Group
from beam_serving.io.ownership import Ownership
from beam_serving.io.results import check_rights
from beam_serving.models.detect import ModelFiles
from beam_serving.models.encrypted import look_at
from beam_serving.models.formats.registry import NOOP, loader_of
from beam_serving.models.labels import read_labels
from beam_serving.models.opening import decided_model
from beam_serving.models.options import model_options
from beam_serving.models.store import PrivateCopy
from beam_serving.records import ProtocolVersion
from beam_serving.transport.connection import RedisAt, check, fatal
from beam_serving.transport.keys import DEAD_LETTERS, result_key
from beam_serving.transport.retry import retry_until

_log = logging.getLogger(__name__)
_FULL = 0.9


def preflight(settings: Settings) -> ModelFiles:
    """Check what can be checked without Beam: the model directory, secrets, Redis, the streams and their group.

    Waits up to `redis: wait_s` for Redis.

    Raises:
        ModelLoadError: the directory holds no model that can be served.
        ConfigError: the file of labels cannot be used, a secret is missing, or another service serves a stream.
        ConnectError: Redis does not answer, or refuses us.
    """
    files = check_files(settings)
    at = redis_at(settings)
    client = at.client()
    patience_s = settings.redis.wait_s
    try:
        retry_until(
            lambda: _prepare(settings, at, client),
            lambda _: True,
            report=lambda err: _log.warning(
                "Redis at %s does not answer yet (%s); waiting up to %g s", at, err, patience_s
            ),
            give_up_at=time.monotonic() + patience_s,
        )
    except RedisError as err:
        raise at.unreachable(err) from err
    _warn_of_memory(at, client)
    client.close()
    return files


def check_files(settings: Settings) -> ModelFiles:
    """Check what the configuration names on this machine: model, secrets, labels, code of the operator's.

    Raises:
        ModelLoadError, ConfigError: see `preflight`.
    """
    model, data = settings.model, settings.data
    warn_of_readers(secret_files(settings))
    files = look_at(model.path, model_options(settings))
    if model.encryption == "cbc":
        _log.warning("%s: AES-CBC shows no tampering; `model encrypt --from cbc` makes files for gcm", model.path)
    RecordEncryption(data.encryption, data.secret_file, data.allow_weak_secret).decryptor()
    read_labels(settings.model.labels)
    for own in filter(None, map(settings.own_code, CODE)):
        own.look()
    return files


def _prepare(settings: Settings, at: RedisAt, client: redis.Redis) -> None:
    check(at, client)
    for stream in settings.data.streams:
        _ensure_group(at, client, stream, settings.data.group)
    if settings.data.max_result_bytes is not None:
        _check_measuring(settings, at, client)
    Ownership(settings).take(client)


def _check_measuring(settings: Settings, at: RedisAt, client: redis.Redis) -> None:
    try:
        check_rights(client, settings.name)
    except RedisError as err:
        if reason := fatal(err):
            raise ConnectError(f"Redis at {at}: {reason}; data: max_result_bytes wants it") from err
        raise


def secret_files(settings: Settings) -> list[tuple[str, str | None]]:
    """Return the files with secrets that a configuration names, each with its key."""
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
        client.delete(result_key(ProtocolVersion.NATIVE, name, b""))
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
