"""RedisQueue: the client of the very first Cluster Serving, for code that was written for it."""

import os
from pathlib import Path
from types import TracebackType

from beam_serving.client.images import as_image
from beam_serving.client.output_queue import take_all
from beam_serving.client.requests import Request, Uri, checked, encode_uri, new_request_id
from beam_serving.errors import ConfigError, ResultError
from beam_serving.protocol import image as image_wire
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.protocol.replies import Reply
from beam_serving.records import ProtocolVersion
from beam_serving.text_files import expanded, read_text_file
from beam_serving.transport.client_connection import Server
from beam_serving.transport.keys import IMAGE_STREAM, result_key

_DEFAULT_FILE = Path("config.yaml")
_DEFAULT_SRC = "localhost:6379"
_STREAM = IMAGE_STREAM.decode()


class RedisQueue:
    """Queues images and takes their results, in the format of Cluster Serving 0.7.

    An instance may be shared by threads, but not by processes. The password is that of the URL, else of the environment
    variable BEAM_SERVING_REDIS_PASSWORD. A request is delivered at least once, as by `InputQueue`.

    Args:
        file_path: a configuration file whose `data: src` says where Redis is, else it is at localhost:6379; None is
            ./config.yaml, where that is there.
        src: where Redis is, `host:port` or a URL; the file is not read then.
        timeout_s: seconds for what a call asks of Redis, None for no limit; see `InputQueue`.

    Raises:
        ConfigError: the file cannot be read.
        InputError: the URL has another scheme or form, or `timeout_s` is none that can be.
    """

    def __init__(self, file_path: str | None = None, *, src: str | None = None, timeout_s: float | None = 5.0) -> None:
        address = src or _src_of(file_path) or _DEFAULT_SRC
        self._server = Server.at(address, password=None, max_connections=4, timeout_s=timeout_s, stream=_STREAM)
        self._redis = self._server.client()

    def enqueue_image(self, uri: Uri, data: object) -> str:
        """Queue an image and return its request id.

        Args:
            uri: the name of the request: text, bytes, a whole number or a `Path`, of 1 to 4096 bytes.
            data: the image as `InputQueue.enqueue_image` takes it; an array is uint8 in BGR order, and sent as JPEG of
                quality 95.

        Returns:
            The request id; results go by uri.

        Raises:
            InputError: this is no image, or it is above a limit of docs/protocol.md.
            ImageFileError: the file cannot be read.
            ClientError: it is an array, and OpenCV, which encodes it, is not installed.
            QueueFullError: Redis has no room; nothing was queued.
            ConnectError: Redis cannot be reached, or refuses us.
        """
        request_id = new_request_id()
        fields = image_wire.encode_request(encode_uri(uri), request_id.encode(), as_image(data, "jpeg"))
        request = checked(Request(request_id, fields), DEFAULT_LIMITS.max_payload_bytes)
        with self._server.call():
            self._redis.execute_command(*request.command(_STREAM))
        return request_id

    def get_results(self) -> dict[str, Reply | ResultError]:
        """Take all results that are there and delete them. Each goes to one caller only.

        Returns:
            By uri, a dict from class index to probability, best first. An image that could not be served has its
            ResultError as a value.

        Raises:
            ConnectError: Redis cannot be reached, or refuses us.
        """
        prefix = result_key(ProtocolVersion.IMAGE, IMAGE_STREAM, b"")
        return take_all(self._server, self._redis, prefix, by_label=False)

    def get_result(self) -> dict[str, Reply | ResultError]:
        """Return what `get_results` does: its other name.

        Raises:
            ConnectError: Redis cannot be reached, or refuses us.
        """
        return self.get_results()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def __enter__(self) -> "RedisQueue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _src_of(file_path: str | None) -> str | None:
    """Return `data: src` of a configuration file, None where it says nothing."""
    path = _DEFAULT_FILE if file_path is None else Path(file_path)
    if file_path is None and not path.exists():
        return None
    try:
        import yaml
    except ImportError as err:
        raise ConfigError(
            f"reading {path} needs PyYAML: pip install 'beam-serving[legacy]', or say src=, where Redis is"
        ) from err
    try:
        config = yaml.safe_load(read_text_file(path))
    except (ValueError, yaml.YAMLError) as err:
        raise ConfigError(f"configuration {path} cannot be read: {err}") from err
    section = config.get("data") if isinstance(config, dict) else None
    src = section.get("src") if isinstance(section, dict) else None
    try:
        return None if src is None else expanded(str(src), os.environ) or None
    except ValueError as err:
        raise ConfigError(f"configuration {path}: data.src: {err}") from err
