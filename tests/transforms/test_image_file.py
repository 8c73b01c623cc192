"""What a file says of its size is right, whatever is cut off is seen, and no bytes do harm."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.transforms.image_file import image_size
from tests.transforms.images import encode, noise, png, rotated

COLOR, GREY, ALPHA = noise(13, 17, 3), noise(13, 17), noise(13, 17, 4)
SIZE = (17, 13)
SUPPORTED = "JPEG, PNG, BMP, WebP, TIFF, GIF, AVIF, HEIC, JPEG 2000, PNM, PAM, PFM, Sun raster or Radiance HDR"

FILES = {
    "jpeg": encode(COLOR, ".jpg"),
    "progressive jpeg": encode(COLOR, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg with restarts": encode(COLOR, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "grey jpeg": encode(GREY, ".jpg"),
    "jpeg with exif": rotated(encode(COLOR, ".jpg"), 6),
    "png": encode(COLOR, ".png"),
    "grey png": encode(GREY, ".png"),
    "png with alpha": encode(ALPHA, ".png"),
    "16-bit png": encode(COLOR.astype(np.uint16) * 257, ".png"),
    "bmp": encode(COLOR, ".bmp"),
    "grey bmp": encode(GREY, ".bmp"),
    "bmp with alpha": encode(ALPHA, ".bmp"),
    "lossy webp": encode(COLOR, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless webp": encode(COLOR, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp with alpha": encode(ALPHA, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
}


def refusal(encoded: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        image_size(encoded)
    return str(caught.value)


def size_or_refusal(encoded: bytes) -> tuple[int, int] | None:
    try:
        return image_size(encoded)[:2]
    except RequestError:
        return None


def os2_bmp(width: int, height: int) -> bytes:
    """Gives a 24-bit BMP file with the short header of OS/2."""
    rows = bytes((width * 3 + 3) // 4 * 4 * height)
    return (
        b"BM" + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26) + struct.pack("<IHHHH", 12, width, height, 1, 24) + rows
    )


@pytest.mark.parametrize("kind", FILES)
def test_the_size_is_read_from_the_header(kind: str) -> None:
    assert image_size(FILES[kind])[:2] == SIZE


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_off_anywhere_is_refused(kind: str) -> None:
    whole = FILES[kind]
    assert [length for length in range(len(whole)) if size_or_refusal(whole[:length])] == []


@given(
    some.sampled_from([".jpg", ".png", ".webp", ".bmp"]),
    some.integers(1, 40),
    some.integers(1, 40),
    some.sampled_from([(), (3,), (4,)]),
    some.integers(0, 2**32),
    some.integers(0, 300),
)
def test_a_file_is_refused_or_whole(
    suffix: str, height: int, width: int, channels: tuple[int, ...], seed: int, cut_bytes: int
) -> None:
    pixels = noise(height, width, *channels, seed=seed)
    whole = encode(pixels[:, :, :3] if suffix == ".jpg" and channels == (4,) else pixels, suffix)
    size = size_or_refusal(whole[: max(0, len(whole) - cut_bytes)])
    assert size == ((width, height) if cut_bytes == 0 else None)


@pytest.mark.parametrize("kind", FILES)
def test_what_follows_the_end_of_a_file_does_not_count(kind: str) -> None:
    assert image_size(FILES[kind] + b"\0\xff\xd9 more")[:2] == SIZE


@given(some.binary(max_size=400))
def test_random_bytes_raise_nothing_but_a_request_error(encoded: bytes) -> None:
    size_or_refusal(encoded)


@given(
    some.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x20\0\0\0WEBP", b"RIFF\x20\0\0\0WEBPVP8X"]),
    some.binary(max_size=400),
)
def test_random_bytes_after_a_good_start_raise_nothing_but_a_request_error(start: bytes, rest: bytes) -> None:
    size_or_refusal(start + rest)


@given(some.sampled_from(sorted(FILES)), some.integers(0, 2000), some.integers(1, 255))
def test_a_damaged_header_never_announces_less_than_is_decoded(kind: str, at: int, change: int) -> None:
    damaged = bytearray(FILES[kind])
    damaged[at % len(damaged)] ^= change
    size = size_or_refusal(bytes(damaged))
    if size is None:
        return
    try:
        decoded = cv2.imdecode(np.frombuffer(bytes(damaged), np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return
    if decoded is not None:
        assert decoded.shape[0] * decoded.shape[1] <= size[0] * size[1]


WANTED = (
    "wanted a file of JPEG, PNG, BMP, WebP, TIFF, GIF, AVIF, HEIC, JPEG 2000, PNM, PAM, PFM, Sun raster or Radiance HDR"
)


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (b"", f"an image of 0 bytes; {WANTED}"),
        (b"hello world", f"this format is not supported: 11 bytes that start with b'hello wo'; {WANTED}"),
        (b"GIF89a" + bytes(20), "corrupt GIF: no block at byte 13 of 26"),
        (b"\xff\xd8\xff", "truncated JPEG: 3 bytes without an end-of-image marker"),
        (b"\xff\xd8\xff\xe0\x00\x01", "corrupt JPEG: a segment of 1 bytes at byte 2"),
        (b"\xff\xd8\xff\xe0\x00\x02\x00\x00\x00\x00", "corrupt JPEG: no marker at byte 6 of 10"),
        (FILES["jpeg"][:-2], f"truncated JPEG: {len(FILES['jpeg']) - 2} bytes without an end-of-image marker"),
        (FILES["png"][:20], "truncated PNG: 20 bytes without a whole header"),
        (FILES["png"][:-1], f"truncated PNG: {len(FILES['png']) - 1} bytes without an end chunk"),
        (b"BM", "truncated BMP: 2 bytes without a whole header"),
        (FILES["bmp"][:-1], f"truncated BMP: {len(FILES['bmp']) - 1} bytes, its header says {len(FILES['bmp'])}"),
        (
            FILES["lossy webp"][:-1],
            f"truncated WebP: {len(FILES['lossy webp']) - 1} bytes, its header says {len(FILES['lossy webp'])}",
        ),
        (b"RIFF\x18\0\0\0WEBPABCD" + bytes(16), "corrupt WebP: it starts with a chunk b'ABCD'"),
    ],
)
def test_a_refusal_says_what_came(encoded: bytes, said: str) -> None:
    assert refusal(encoded) == said


def test_a_small_file_may_announce_billions_of_pixels() -> None:
    assert image_size(png(100_000, 100_000))[:2] == (100_000, 100_000)


def test_the_short_header_of_a_bmp_file_is_read() -> None:
    encoded = os2_bmp(5, 3)
    assert image_size(encoded)[:2] == (5, 3)
    assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR).shape == (3, 5, 3)
    assert refusal(encoded[:-1]) == f"truncated BMP: {len(encoded) - 1} bytes, its header says {len(encoded)}"


def test_a_bmp_file_stored_from_the_top_has_a_negative_height() -> None:
    encoded = bytearray(FILES["bmp"])
    encoded[22:26] = struct.pack("<i", -13)
    assert image_size(bytes(encoded))[:2] == SIZE
