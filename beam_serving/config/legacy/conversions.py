"""What the values of old keys become, one function per kind of value.

Each takes the value and the other values of the file, by the names that 2.x has for their keys. A ValueError says what
was wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

STREAMS = ("image_stream", "serving_stream")
"""The streams of clients that were given no name: up to 0.8, and from 0.9 on."""

_FILTER = re.compile(r"\s*(topN|pickTopN)\s*\(\s*(\d+)\s*\)\s*", re.IGNORECASE)
_PEM = (".pem", ".crt", ".cer", ".cert")


class Outcome(NamedTuple):
    """What one key became: new keys (`params.workers`) with their values, and a remark.

    The remark is a warning (`warns`) where something that the file asks for is not done.
    """

    new: dict[str, object]
    remark: str = ""
    warns: bool = False


Old = Mapping[str, object]
Convert = Callable[[object, Old], Outcome]


def moved(new: str, remark: str = "") -> Convert:
    """Return the conversion of a key that only has a new name."""
    return lambda value, _: Outcome({new: value}, remark)


def unused(reason: str, *harmless: object) -> Convert:
    """Return the conversion of a key that nothing is done with; `harmless` values, or lists of these, ask for none."""

    def convert(value: object, _: Old) -> Outcome:
        values = value if isinstance(value, list) else [value]
        lowered = [one.lower() if isinstance(one, str) else one for one in values]
        return Outcome({}, reason, any(one not in harmless for one in lowered))

    return convert


def encrypted_model(value: object, _: Old) -> Outcome:
    """Take the files of a model that are encrypted as the old servers wanted them."""
    if not is_on(value):
        return Outcome({"model.encryption": "none"})
    remark = (
        "the hash model_secured in Redis is not read: put its secret and salt into BEAM_SERVING_MODEL_SECRET and "
        "BEAM_SERVING_MODEL_SALT, or a file for model: secret_file; AES-CBC shows no tampering: "
        "beam-serving model encrypt --from cbc makes files for model: encryption: gcm; a secret of fewer than 16 "
        "characters wants model: allow_weak_secret: true in a file of the new form (beam-serving config migrate)"
    )
    return Outcome({"model.encryption": "cbc"}, remark, warns=True)


def encrypted_records(value: object, _: Old) -> Outcome:
    """Take encrypted images, and tensors in clear beside them, as the old servers did."""
    if not is_on(value):
        return Outcome({"data.encryption": "none"})
    remark = (
        "the key that all old servers had built in is refused: choose a secret and a salt, for the clients and for "
        "BEAM_SERVING_RECORD_SECRET and BEAM_SERVING_RECORD_SALT, or a file for data: secret_file"
    )
    return Outcome({"data.encryption": "images"}, remark, warns=True)


def service_name(value: object, _: Old) -> Outcome:
    """Make the name of a job the name of the service, and its stream one of those that are served."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError("wants a name")
    stream = str(value)
    name = "".join(sign if sign in "_.-" or sign.isalpha() or sign.isdecimal() else "-" for sign in stream)[:64]
    if stream in STREAMS:
        return Outcome({"name": name, "data.streams": [*STREAMS]})
    remark = f"the stream {stream!r} is served beside those of clients without a name"
    if name != stream:
        remark += f"; the service is called {name!r}"
    return Outcome({"name": name, "data.streams": [*STREAMS, stream]}, remark)


def address(value: object, old: Old) -> Outcome:
    """Take where Redis is, over TLS where another key of the file says so."""
    if not isinstance(value, str) or not _over_tls(old):
        return Outcome({"data.src": value})
    parts = urlsplit(value if "://" in value else f"redis://{value}")
    return Outcome({"data.src": parts._replace(scheme="rediss").geturl()})


def tls(value: object, old: Old) -> Outcome:
    """Turn TLS on by the scheme of Redis's address."""
    if not is_on(value):
        return Outcome({}, "off, as without rediss:// in data: src")
    src = address(old.get("redisUrl", "localhost:6379"), old).new["data.src"]
    if _is_pem(old.get("redisSecureTrustStorePath")):
        return Outcome({"data.src": src})
    remark = "the system's certificates decide whom to trust; set redis: ca_file to a PEM file where Redis has its own"
    return Outcome({"data.src": src}, remark, warns=True)


def trust_store(value: object, old: Old) -> Outcome:
    """Take certificates in PEM form; a Java key store cannot be read here."""
    if not _over_tls(old):
        return Outcome({}, "not used while TLS is off")
    if _is_pem(value):
        return Outcome({"redis.ca_file": value})
    remedy = "export its certificate with keytool -exportcert -rfc and name that file in redis: ca_file"
    return Outcome({}, f"a Java key store cannot be read here; {remedy}", warns=True)


def trust_store_password(_: object, old: Old) -> Outcome:
    """Drop it: a PEM file has none."""
    remark = "redis: ca_file needs no password; that of Redis comes from redis: password_file or the environment"
    return Outcome({}, remark, _over_tls(old))


def post_processing(value: object, _: Old) -> Outcome:
    """Read `topN(n)` and `pickTopN(n)`."""
    found = _FILTER.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[2]) == 0:
        raise ValueError("wants topN(n) or pickTopN(n) with n from 1")
    step = "topN" if found[1].lower() == "topn" else "pickTopN"
    return Outcome({"params.post_processing": f"{step}({int(found[2])})"})


def cores(value: object, old: Old) -> Outcome:
    """Share the cores of a machine among copies of the model: as many as there are cores unless the file says."""
    if isinstance(value, int) and value < 0:
        return Outcome({}, "unset, by the old servers' convention")
    count, copies = _count(value), old.get("modelParallelism")
    if copies is None:
        return Outcome({"params.workers": count}, "a worker process per core, each with model: threads")
    shares = copies if isinstance(copies, int) and copies > 0 else 1
    return Outcome({"model.threads": max(1, count // shares)}, f"{count} cores for {shares} workers")


def threads(value: object, old: Old) -> Outcome:
    """Take the threads of a copy, unless the cores of the machine are given: these decided in the old servers too."""
    decides = old.get("coreNumberPerMachine")
    if isinstance(decides, int) and decides > 0:
        return Outcome({}, "coreNumberPerMachine decides, as in the old servers")
    return Outcome({"model.threads": value})


def milliseconds(value: object, _: Old) -> Outcome:
    """Turn a timeout into seconds."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number < float("inf"):
        raise ValueError("wants milliseconds, more than 0")
    return Outcome({"redis.timeout_s": number / 1000 if number % 1000 else number // 1000}, "in seconds now")


def image_resize(value: object, old: Old) -> Outcome:
    """Say what replaces `height,width`, which says neither channels nor the order of the axes."""
    parts = str(value).split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) != 2 or not all(str(part).strip().isdecimal() for part in parts):
        raise ValueError("wants height,width, as 224,224")
    if "data.shape" in old:
        return Outcome({}, "data: shape says it")
    height, width = (int(part) for part in parts)
    remedy = f"set data: shape: 3,{height},{width} (of TensorFlow {height},{width},3) where the model does not say it"
    return Outcome({}, f"images are resized to the model's input; {remedy}", warns=True)


def image_shape(value: object, old: Old) -> Outcome:
    """Take the shape of images, unless the data are tensors whose shapes stand there too."""
    if "data.tensor_shape" in old and _are_tensors(old):
        return Outcome({}, "data_type says tensor, and tensor_shape their shape")
    return Outcome({"data.shape": value})


def tensor_shape(value: object, old: Old) -> Outcome:
    """Take the shape of one input, `1,2` or `[[1,2]]`, and those of several, `[[1,2],[3]]` or `[1,2],[3]`."""
    if "data.image_shape" in old and not _are_tensors(old):
        return Outcome({}, "data_type says image, and image_shape their shape")
    shape = _list_of(value) if isinstance(value, str) else value
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], list):
        shape = shape[0]
    return Outcome({"data.shape": shape})


def queue(value: object, _: Old) -> Outcome:
    """Accept the only queue there is."""
    if str(value).lower() != "redis":
        raise ValueError("wants redis: no other queue is served")
    return Outcome({}, "Redis is the only queue")


def is_on(value: object) -> bool:
    """Read a switch as the old servers' files have it."""
    text = str(value).strip().lower()
    if text not in ("true", "false", "yes", "no", "on", "off"):
        raise ValueError("wants true or false")
    return text in ("true", "yes", "on")


def _are_tensors(old: Old) -> bool:
    return str(old.get("data.data_type", "image")).strip().lower() == "tensor"


def _list_of(text: str) -> object:
    for written in (text, f"[{text}]"):
        try:
            found = json.loads(written)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    raise ValueError("wants a list of numbers, as [1,2]")


def _over_tls(old: Old) -> bool:
    try:
        return is_on(old.get("redisSecureEnabled", False))
    except ValueError:
        return False  # said of that key itself


def _count(value: object) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or int(str(value)) == 0:
        raise ValueError("wants a whole number from 1")
    return int(str(value))


def _is_pem(path: object) -> bool:
    return isinstance(path, str) and path.lower().endswith(_PEM)
