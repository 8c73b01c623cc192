"""Which Redis the settings mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from beam_serving.errors import ConfigError
from beam_serving.transport.address import Address, hash_tag
from beam_serving.transport.connection import RedisAt
from beam_serving.transport.routes import route_of

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings


def redis_at(settings: Settings) -> RedisAt:
    """Return the address from `data: src` and the rest from the section `redis`.

    Raises:
        ConfigError: it is a cluster, which would spread what the service needs over several nodes.
    """
    address = Address.parse(settings.data.src)
    if address.kind == "cluster":
        _check_tags(settings)
    host, port = address.hosts[0]
    return RedisAt(
        host=host,
        port=port,
        db=address.db,
        tls=address.tls,
        username=settings.redis.username or address.username,
        password_file=settings.redis.password_file,
        ca_file=settings.redis.ca_file,
        timeout_s=settings.redis.timeout_s,
        route=route_of(address, settings.data.streams[0]),
    )


def _check_tags(settings: Settings) -> None:
    """Refuse names that a cluster would keep in several slots: what is written at once has to be on one node.

    Raises:
        ConfigError: the name of the service and those of its streams have not one hash tag.
    """
    names = [settings.name, *settings.data.streams]
    tags = [hash_tag(name.encode()) for name in names]
    if all(tags) and len(set(tags)) == 1:
        return
    wanted = next(filter(None, tags), b"?")
    odd = next(name for name, tag in zip(names, tags, strict=True) if tag != wanted)
    reported = (
        "on a Redis Cluster name and data: streams need one hash tag, as in name: '{digits}' and "
        f"streams: '{{digits}}_stream', so that one node has all that is written at once; {odd!r} has another or none"
    )
    if "image_stream" in names:
        reported += "; clients of Cluster Serving 0.7 and 0.8 know image_stream only, and cannot be served on a cluster"
    raise ConfigError(reported)
