"""What the bytes look like: one codec per protocol version, told apart by the fields of a request.

    field `image`                            IMAGE    Cluster Serving 0.7, 0.8       beam_serving.protocol.image
    field `data`                             ARROW    Cluster Serving 0.9 and later  beam_serving.protocol.arrow
    fields `image:`, `tensor:`, `text:...`   NATIVE   this project's clients         beam_serving.protocol.native

Encrypted requests have the same forms (beam_serving.protocol.encrypted).

Everything here is a pure function from bytes to values or back. Whatever the bytes are, decoding gives a value or
raises RequestError: no code in a request is ever run, and no uri is ever opened.

The names of `__all__` are imported when they are used: a client has one module of all this in hand, and does not pay
for the formats of others.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beam_serving.protocol.codecs import CODECS as CODECS
    from beam_serving.protocol.codecs import Identity as Identity
    from beam_serving.protocol.codecs import codec_of as codec_of
    from beam_serving.protocol.codecs import decode_request as decode_request
    from beam_serving.protocol.codecs import encode_ranked as encode_ranked
    from beam_serving.protocol.codecs import encode_result as encode_result
    from beam_serving.protocol.codecs import identify as identify
    from beam_serving.protocol.limits import DEFAULT_LIMITS as DEFAULT_LIMITS
    from beam_serving.protocol.limits import Limits as Limits
    from beam_serving.transport.keys import IMAGE_STREAM as IMAGE_STREAM
    from beam_serving.transport.keys import result_key as result_key

_MODULES = {
    "protocol.codecs": (
        *("CODECS", "Identity", "codec_of", "decode_request", "encode_ranked", "encode_result", "identify"),
    ),
    "protocol.limits": ("DEFAULT_LIMITS", "Limits"),
    "transport.keys": ("IMAGE_STREAM", "result_key"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"beam_serving.{_MODULE_OF[name]}"), name)
