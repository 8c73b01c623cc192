"""What Python programs hold as an image, and what they are told where it is none."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import redis

from beam_serving.client import AsyncInputQueue, ClientError, ImageFileError, InputError, InputQueue, RedisQueue
from beam_serving.client.images import as_image
from beam_serving.records import Image
from tests.client.conftest import STREAM, StandIn

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()


def opened(tmp_path: Path) -> Any:
    (tmp_path / "a.png").write_bytes(PNG)
    return (tmp_path / "a.png").open("rb")


HELD: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda _: PNG,
    "bytearray": lambda _: bytearray(PNG),
    "memoryview": lambda _: memoryview(PNG),
    "strided memoryview": lambda _: memoryview(bytes(byte for value in PNG for byte in (value, 0)))[::2],
    "BytesIO": lambda _: io.BytesIO(PNG),
    "file": opened,
    "Path": lambda folder: Path(opened(folder).name),
    "Image": lambda _: Image(PNG),
}


@pytest.mark.parametrize("held", HELD)
async def test_a_file_is_sent_as_it_is_however_it_is_held(
    held: str, url: str, service: StandIn, tmp_path: Path
) -> None:
    with InputQueue(url) as queue, InputQueue(stream=STREAM, host=url) as old, RedisQueue(src=url) as oldest:
        queue.enqueue("a", HELD[held](tmp_path))
        queue.enqueue_image("b", HELD[held](tmp_path))
        queue.enqueue_many([("c", {"x": HELD[held](tmp_path)})])
        old.enqueue("d", t=HELD[held](tmp_path))
        oldest.enqueue_image("e", HELD[held](tmp_path))
    async with AsyncInputQueue(url) as queue_of_coroutines:
        await queue_of_coroutines.enqueue("f", HELD[held](tmp_path))
        await queue_of_coroutines.enqueue_image("g", HELD[held](tmp_path))
    payloads = service.payloads() + StandIn(service.valkey, "image_stream").payloads()
    assert [list(payload.inputs.values()) for payload in payloads] == [[Image(PNG)]] * 7


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_an_image_of_pil_is_sent_without_loss(mode: str, url: str, service: StandIn) -> None:
    image = PIL.Image.fromarray(PIXELS[:, :, ::-1]).convert("I" if mode == "I;16" else mode)
    image = image.convert("I;16") if mode == "I;16" else image
    with InputQueue(url) as queue:
        queue.enqueue("a", image)
        queue.enqueue_image("b", image)
    for payload in service.payloads():
        sent = PIL.Image.open(io.BytesIO(payload.inputs[""].encoded))
        assert (sent.format, sent.size) == ("PNG", image.size)
        np.testing.assert_array_equal(np.asarray(sent.convert("RGBA")), np.asarray(image.convert("RGBA")))


def test_a_pil_image_that_was_turned_by_its_camera_is_sent_as_pil_shows_it() -> None:
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(PIXELS).save(file, "JPEG", exif=exif)
    held = PIL.Image.open(file)
    read = cv2.imdecode(np.frombuffer(as_image(held, "png").encoded, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[:, :, ::-1], np.asarray(held))


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
@pytest.mark.parametrize(
    "pixels",
    [
        PIXELS,
        PIXELS[:, :, 0],
        PIXELS[:, :, :1],
        np.dstack([PIXELS, PIXELS[:, :, 0]]),
        PIXELS[::-1, ::2],
        PIXELS[:3, :4],
    ],
)
def test_an_array_is_encoded_and_nothing_is_written(
    pixels: np.ndarray, encoding: str, capfd: pytest.CaptureFixture[str]
) -> None:
    encoded = np.frombuffer(as_image(pixels, encoding).encoded, np.uint8)
    read = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert read.shape[:2] == pixels.shape[:2]
    if encoding == "png":
        np.testing.assert_array_equal(read.reshape(pixels.shape), pixels)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_in_front_are_those_of_the_end(channels: int) -> None:
    last = np.arange(5 * 7 * channels, dtype=np.uint8).reshape(5, 7, channels)
    assert as_image(last.transpose(2, 0, 1), "png") == as_image(last, "png")


def test_where_both_ends_may_be_channels_the_last_is() -> None:
    read = cv2.imdecode(np.frombuffer(as_image(np.zeros((3, 5, 4), np.uint8), "png").encoded, np.uint8), -1)
    assert read.shape == (3, 5, 4)


def test_what_has_an_array_is_an_array() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return PIXELS

    assert as_image(Tensor(), "png").encoded == PNG
    assert as_image(memoryview(PIXELS), "png").encoded == PNG


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((3, 4, 2), np.uint8), "image is uint8[3, 4, 2], of 2 channels; wanted is uint8[height, width, 3] in "
         "the order blue, green, red, or uint8[height, width]"),
        (np.zeros((4, 4, 3)), "image is float64[4, 4, 3], wanted is uint8[height, width, 3] in the order blue, green, "
         "red, or uint8[height, width]"),
        (np.zeros((0, 4, 3), np.uint8), "image is uint8[0, 4, 3], wanted is uint8[height, width, 3] in the order blue, "
         "green, red, or uint8[height, width]"),
        (np.zeros((1, 4, 4, 3), np.uint8), "image is uint8[1, 4, 4, 3], wanted is uint8[height, width, 3] in the order "
         "blue, green, red, or uint8[height, width]"),
        (np.zeros((1, 70_000), np.uint8), "image is uint8[1, 70000], JPEG has at most 65500 pixels a side; wanted is "
         "encoding='png'"),
        (np.ma.array(PIXELS, mask=True), "image is a masked array, whose mask cannot be sent; choose the values with "
         ".filled(...)"),
        (b"", "image is empty, of no bytes"),
        (bytearray(), "image is empty, of no bytes"),
        (io.BytesIO(), "image is a file that stands at its end, or is empty; use file.seek(0) before"),
        (io.StringIO("text"), "image is a file opened as text, wanted is one in binary mode: open(path, 'rb')"),
        (PIL.Image.new("CMYK", (2, 2)), "image has the mode 'CMYK' of PIL, which PNG does not have; use "
         "image.convert('RGB'), or send the file itself"),
        (None, "image is NoneType, wanted is an array, the bytes or path of an image file, a file opened in binary "
         "mode, or a PIL image"),
        ([[1]], "image is list, wanted is an array, the bytes or path of an image file, a file opened in binary mode, "
         "or a PIL image"),
        (5, "image is int, wanted is an array, the bytes or path of an image file, a file opened in binary mode, or a "
         "PIL image"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(url: str, valkey: redis.Redis, image: Any, said: str) -> None:
    with InputQueue(url) as queue, pytest.raises(InputError) as caught:
        queue.enqueue_image("a", image)
    assert str(caught.value) == said
    assert isinstance(caught.value, ClientError)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    assert not valkey.exists(STREAM)


def test_a_file_that_cannot_be_read_is_named(url: str, valkey: redis.Redis, tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    with InputQueue(url) as queue, InputQueue(stream=STREAM, host=url) as old:
        for enqueue in (queue.enqueue_image, lambda uri, path: old.enqueue_image(uri, str(path))):
            with pytest.raises(ImageFileError) as caught:
                enqueue("a", gone)
            assert str(caught.value) == f"the image file {str(gone)!r} cannot be read: No such file or directory"
            assert isinstance(caught.value, OSError)
        for named in (lambda: queue.enqueue("a", x=gone), lambda: old.enqueue("a", x=str(gone))):
            with pytest.raises(
                ImageFileError, match=r"^input 'x': the image file '.*gone.jpg' cannot be read: No such"
            ):
                named()
        with pytest.raises(ImageFileError, match=r"cannot be read: Is a directory$"):
            queue.enqueue_image("a", tmp_path)
        with pytest.raises(ImageFileError, match=r"embedded null byte$"):
            queue.enqueue_image("a", "a\0b")
        closed = io.BytesIO(PNG)
        closed.close()
        with pytest.raises(
            ImageFileError, match=r"^the image cannot be read from its file: I/O operation on closed fil"
        ):
            queue.enqueue_image("a", closed)
    assert not valkey.exists(STREAM)


def test_a_pil_image_that_is_cut_off_is_told() -> None:
    file = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(file, "JPEG")
    cut = PIL.Image.open(io.BytesIO(file.getvalue()[:-500]))
    with pytest.raises(ImageFileError, match=r"^the PIL image cannot be written as PNG: image file is truncated"):
        as_image(cut, "png")
