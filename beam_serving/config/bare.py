"""The settings of a command that reads no configuration: Redis is where `--src` says, all else is the default.

They need neither the check of a configuration nor what that is made of, which the client alone does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from beam_serving.transport.address import Address

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings


@dataclass(frozen=True)
class _Data:
    src: str
    streams: tuple[str, ...] = ("image_stream", "serving_stream")
    group: str = "serving"
    max_request_bytes: int = 64 << 20
    encryption: str = "none"
    secret_file: str | None = None


@dataclass(frozen=True)
class _Redis:
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    timeout_s: float = 5.0


@dataclass(frozen=True)
class Bare:
    """What such commands look at of `Settings`."""

    data: _Data
    redis: _Redis = field(default_factory=_Redis)
    name: str = "beam-serving"


def bare_settings(src: str) -> Settings:
    """Return the settings for an address.

    Args:
        src: as `data: src` has it, without a password.

    Raises:
        ValueError: it is no address, or has a password.
    """
    if Address.parse(src).password:
        raise ValueError(
            "a password must not stand on the command line; set BEAM_SERVING_REDIS_PASSWORD or redis: password_file"
        )
    return cast("Settings", Bare(_Data(src)))
