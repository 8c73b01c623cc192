"""Image formats besides JPEG, PNG, BMP and WebP: what OpenCV reads is read, and no bytes do harm."""

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image as PilImage

from beam_serving.errors import RequestError
from beam_serving.models.base import TensorSpec
from beam_serving.transforms.image import ImageRules, tensor_of_image
from beam_serving.transforms.image_boxes import av1_size
from beam_serving.transforms.image_file import image_size
from tests.hostile.files import lying_avif
from tests.transforms.images import encode, noise

FIXTURES = Path(__file__).parent / "fixtures"
COLOR = noise(24, 20, 3)
SIZE = (20, 24)
PICTURE = PilImage.fromarray(COLOR)


def written(format_: str, mode: str = "RGB", **options: Any) -> bytes:
    """Writes the picture with PIL, in one of its modes."""
    file = io.BytesIO()
    PICTURE.convert(mode).save(file, format_, **options)
    return file.getvalue()


FILES = {
    "tiff": written("TIFF"),
    "tiff, black and white": written("TIFF", "1"),
    "tiff, grey": written("TIFF", "L"),
    "tiff, grey with alpha": written("TIFF", "LA"),
    "tiff, palette": written("TIFF", "P"),
    "tiff, alpha": written("TIFF", "RGBA"),
    "tiff, printing colours": written("TIFF", "CMYK"),
    "tiff, luminance": written("TIFF", "YCbCr"),
    "tiff, 16 bits": encode(COLOR.astype(np.uint16) * 257, ".tiff"),
    "tiff, lzw": written("TIFF", compression="tiff_lzw"),
    "tiff, deflate": written("TIFF", compression="tiff_adobe_deflate"),
    "tiff, packbits": written("TIFF", compression="packbits"),
    "tiff, jpeg": written("TIFF", compression="jpeg"),
    "tiff, fax": written("TIFF", "1", compression="group4"),
    "tiff, big": written("TIFF", big_tiff=True),
    "tiff, pages": written("TIFF", save_all=True, append_images=[PICTURE.resize((9, 9))]),
    "pbm": written("PPM", "1"),
    "pgm": written("PPM", "L"),
    "pgm, 16 bits": written("PPM", "I"),
    "ppm": written("PPM"),
    "ppm, 16 bits": encode(COLOR.astype(np.uint16) * 257, ".ppm"),
    "pbm, text": b"P1 # a comment\n20 24\n" + b"1 0 0 1\n" * 120,
    "pgm, text": b"P2\n20\n24\n255\n" + b"7 200 31\n" * 160,
    "ppm, text": b"P3\n20 24\n255\n" + b"7 200 31\n" * 480,
    "pfm": encode(COLOR.astype(np.float32), ".pfm"),
    "pfm, grey": encode(COLOR[:, :, 0].astype(np.float32), ".pfm"),
    "jpeg 2000": written("JPEG2000"),
    "jpeg 2000, grey": written("JPEG2000", "L"),
    "jpeg 2000, grey with alpha": written("JPEG2000", "LA"),
    "jpeg 2000, alpha": written("JPEG2000", "RGBA"),
    "jpeg 2000, tiles": written("JPEG2000", tile_size=(16, 16)),
    "jpeg 2000, code stream": written("JPEG2000", no_jp2=True),
    "gif": written("GIF"),
    "gif, grey": written("GIF", "L"),
    "gif, frames": written("GIF", save_all=True, append_images=[PICTURE.rotate(180)]),
    "gif by opencv": encode(COLOR, ".gif"),
    "avif": written("AVIF"),
    "avif, grey": written("AVIF", "L"),
    "avif by opencv": encode(COLOR, ".avif"),
    "avif, frames": written("AVIF", save_all=True, append_images=[PICTURE.rotate(180)]),
    "sun raster": encode(COLOR, ".sr"),
    "radiance": encode((COLOR / 255).astype(np.float32), ".hdr"),
}
LOSSLESS = ["tiff", "tiff, lzw", "tiff, deflate", "tiff, packbits", "tiff, big", "tiff, pages", "tiff, 16 bits", "ppm"]
LOSSLESS += ["ppm, 16 bits", "pfm", "jpeg 2000", "jpeg 2000, tiles", "jpeg 2000, code stream", "sun raster"]


def pixels_of(encoded: bytes, channels: int, color: str = "bgr") -> np.ndarray:
    spec = TensorSpec("x", (None, None, channels), np.dtype(np.uint8))
    return tensor_of_image(encoded, spec, ImageRules(color=color, max_pixels=10_000))  # type: ignore[arg-type]


def refusal(encoded: bytes, channels: int = 3) -> str:
    with pytest.raises(RequestError) as caught:
        pixels_of(encoded, channels)
    return str(caught.value)


def in_opencv(encoded: bytes, flag: int) -> Any:
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_gives_what_opencv_reads(kind: str) -> None:
    encoded = FILES[kind]
    wanted = in_opencv(encoded, cv2.IMREAD_COLOR)
    wanted = np.stack([wanted] * 3, axis=2) if wanted.ndim == 2 else wanted
    assert image_size(encoded)[:2] == SIZE
    np.testing.assert_array_equal(pixels_of(encoded, 3), wanted)
    assert pixels_of(encoded, 1).shape == (24, 20, 1)
    with_alpha = pixels_of(encoded, 4)
    np.testing.assert_array_equal(with_alpha[:, :, :3], wanted)
    np.testing.assert_array_equal(pixels_of(encoded, 3, "rgb"), wanted[:, :, ::-1])


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_gives_the_pixels_that_were_written(kind: str) -> None:
    by_pil = "bgr" if kind in ("tiff, 16 bits", "ppm, 16 bits", "pfm", "sun raster") else "rgb"
    np.testing.assert_array_equal(pixels_of(FILES[kind], 3, by_pil), COLOR)


@pytest.mark.parametrize("format_", ["TIFF", "PPM", "JPEG2000", "GIF", "AVIF"])
def test_colours_arrive_in_their_places(format_: str) -> None:
    file = io.BytesIO()
    PilImage.new("RGB", (8, 8), (230, 120, 20)).save(file, format_)
    np.testing.assert_allclose(pixels_of(file.getvalue(), 3, "rgb").mean(axis=(0, 1)), [230, 120, 20], atol=3)


@pytest.mark.parametrize("kind", ["gif, frames", "tiff, pages"])
def test_the_first_frame_or_page_is_taken(kind: str) -> None:
    alone = FILES[kind.split(",")[0]]
    if kind.startswith("tiff"):
        np.testing.assert_array_equal(pixels_of(FILES[kind], 3), pixels_of(alone, 3))
    first = np.abs(pixels_of(FILES[kind], 3, "rgb").astype(int) - COLOR).mean()
    last = np.abs(pixels_of(FILES[kind], 3, "rgb").astype(int) - COLOR[::-1, ::-1]).mean()
    assert first < last / 2


def test_more_than_eight_bits_are_cut_to_the_upper_eight() -> None:
    deep = np.array([[0, 255, 256], [511, 0x1234, 65535]], np.uint16)
    for suffix in (".tiff", ".pgm"):
        np.testing.assert_array_equal(pixels_of(encode(deep, suffix), 1)[:, :, 0], deep >> 8)


def test_floats_of_radiance_are_from_0_to_1_and_those_of_pfm_from_0_to_255() -> None:
    hdr = encode(np.full((2, 2, 3), (0.5, 1.0, 7.0), np.float32), ".hdr")
    assert pixels_of(hdr, 3)[0, 0].tolist() == [128, 255, 255]
    pfm = encode(np.full((2, 2, 3), (0.4, 99.0, 1000.0), np.float32), ".pfm")
    assert pixels_of(pfm, 3)[0, 0].tolist() == [0, 99, 255]


def test_black_and_white_become_0_and_255() -> None:
    assert pixels_of(b"P4\n8 1\n\x0f", 1).ravel().tolist() == [255] * 4 + [0] * 4
    assert set(pixels_of(FILES["tiff, fax"], 1).ravel().tolist()) == {0, 255}


def test_alpha_is_kept_where_four_channels_are_wanted() -> None:
    alpha = noise(24, 20, 4)
    file = io.BytesIO()
    PilImage.fromarray(alpha).save(file, "JPEG2000")
    tiff_file, jp2_file = encode(alpha, ".tiff"), file.getvalue()
    np.testing.assert_array_equal(pixels_of(tiff_file, 4), in_opencv(tiff_file, cv2.IMREAD_UNCHANGED))
    np.testing.assert_array_equal(pixels_of(tiff_file, 4)[:, :, 3], alpha[:, :, 3])
    np.testing.assert_array_equal(pixels_of(jp2_file, 4, "rgb"), alpha)


def pam(depth: int, most: int, values: bytes, width: int = 1) -> bytes:
    return b"P7\nWIDTH %d\nHEIGHT 1\nDEPTH %d\nMAXVAL %d\nENDHDR\n" % (width, depth, most) + values


@pytest.mark.parametrize(
    ("encoded", "wanted"),
    [
        (pam(1, 255, b"\7"), [7, 7, 7, 255]),
        (pam(1, 1, b"\1"), [255, 255, 255, 255]),
        (pam(2, 255, b"\7\x09"), [7, 7, 7, 9]),
        (pam(3, 255, b"\1\2\3"), [1, 2, 3, 255]),
        (pam(3, 15, b"\1\2\x0f"), [17, 34, 255, 255]),
        (pam(3, 65535, b"\1\xff\2\0\xff\xff"), [1, 2, 255, 255]),
        (pam(4, 255, b"\1\2\3\4"), [1, 2, 3, 4]),
    ],
)
def test_a_pam_file_has_red_first(encoded: bytes, wanted: list[int]) -> None:
    assert pixels_of(encoded, 4, "rgb").ravel().tolist() == wanted
    assert pixels_of(encoded, 3, "rgb").ravel().tolist() == wanted[:3]
    assert pixels_of(encoded, 3).ravel().tolist() == wanted[2::-1]
    assert pixels_of(encoded, 1).shape == (1, 1, 1)


@pytest.mark.parametrize(
    "encoded", [pam(5, 255, bytes(5)), pam(1, 0, b"\0"), pam(0, 255, b""), pam(1, 99999, bytes(9))]
)
def test_a_pam_file_of_other_channels_is_refused(encoded: bytes) -> None:
    assert refusal(encoded).startswith("PAM of 1x1 pixels, ")


@pytest.mark.parametrize("format_", ["TIFF", "PNG", "WEBP", "JPEG"])
def test_the_orientation_of_exif_is_applied(format_: str) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if format_ == "WEBP" else {}
    turned = pixels_of(written(format_, exif=exif, **options), 3)
    np.testing.assert_array_equal(turned, np.rot90(pixels_of(written(format_, **options), 3), -1))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_off_is_refused_or_gives_the_whole_image(kind: str) -> None:
    """What a format has after its pixels, as metadata, may be missing; the pixels may not."""
    whole, encoded = pixels_of(FILES[kind], 3), FILES[kind]
    for length in range(0, len(encoded), 1 + len(encoded) // 400):
        try:
            pixels = pixels_of(encoded[:length], 3)
        except RequestError:
            continue
        np.testing.assert_array_equal(pixels, whole)


@given(
    some.sampled_from(sorted(FILES)),
    some.lists(some.tuples(some.integers(0, 20_000), some.integers(1, 255)), min_size=1, max_size=4),
    some.sampled_from([1, 3, 4]),
)
def test_a_damaged_file_is_refused_or_gives_pixels(kind: str, changes: list[tuple[int, int]], channels: int) -> None:
    damaged = bytearray(FILES[kind])
    for at, change in changes:
        damaged[at % len(damaged)] ^= change
    try:
        announced = image_size(bytes(damaged))
        pixels = pixels_of(bytes(damaged), channels)
    except RequestError:
        return
    assert pixels.shape[0] * pixels.shape[1] <= announced.width * announced.height


@given(some.sampled_from(sorted(FILES)), some.integers(4, 64), some.binary(max_size=300))
def test_random_bytes_after_a_good_start_raise_nothing_but_a_request_error(kind: str, kept: int, rest: bytes) -> None:
    try:
        pixels_of(FILES[kind][:kept] + rest, 3)
    except RequestError:
        return


def test_nothing_is_written_to_the_log_of_a_service(capfd: pytest.CaptureFixture[str]) -> None:
    for kind, encoded in FILES.items():
        damaged = bytearray(encoded)
        damaged[len(encoded) // 2 :: 7] = bytes(len(damaged[len(encoded) // 2 :: 7]))
        try:
            pixels_of(bytes(damaged), 3)
        except RequestError:
            assert kind
    assert capfd.readouterr() == ("", "")


def tiff(*entries: tuple[int, int, int, int], more: bytes = b"") -> bytes:
    """Writes a TIFF file of one directory: entries of (tag, type, count, value)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + more


def j2k(width: int, height: int, tile: int, more: bytes = b"") -> bytes:
    """Writes a code stream of JPEG 2000 that has a header, and whatever else."""
    sizes = struct.pack(">HHHIIIIIIIIH", 0xFF51, 41, 0, width, height, 0, 0, tile, tile, 0, 0, 1)
    return b"\xff\x4f" + sizes + b"\x07\x01\x01" + more + b"\xff\xd9"


def style(*, levels: int, block: int, precincts: bytes = b"") -> bytes:
    """Writes the coding style of a code stream; the sides of blocks are 4 * 2 ** block."""
    body = struct.pack(">BBHBBBBBB", bool(precincts), 0, 1, 0, levels, block, block, 0, 0) + precincts
    return struct.pack(">HH", 0xFF52, 2 + len(body)) + body


def tile_part(header: bytes, length: int = 0) -> bytes:
    return struct.pack(">HHHIBB", 0xFF90, 10, 0, length, 0, 1) + header + b"\xff\x93"


BOMBS = {
    "tiff": tiff((256, 4, 1, 100_000), (257, 4, 1, 100_000)),
    "tiff with a large tile": tiff((256, 4, 1, 8), (257, 4, 1, 8), (322, 4, 1, 100_000), (323, 4, 1, 100_000)),
    "gif": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0\0\0;",
    "jpeg 2000": j2k(100_000, 100_000, 100_000),
    "exr": b"v/1\1\2\0\0\0dataWindow\0box2i\0" + struct.pack("<Iiiii", 16, 0, 0, 99_999, 99_999),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", "1")
    side = 60_000 if kind == "gif" else 100_000
    assert refusal(BOMBS[kind]) == f"image of {side}x{side} pixels: more than the 10000 allowed"


def test_an_avif_file_whose_pixels_are_more_than_its_box_says_is_refused_by_its_header() -> None:
    encoded = FILES["avif"]
    at = encoded.index(b"ispe") + 8
    lies = encoded[:at] + struct.pack(">II", 2, 2) + encoded[at + 8 :]
    assert image_size(lies)[:2] == SIZE


def test_the_sequence_header_of_av1_has_the_size_with_times_and_operating_points_too() -> None:
    fields = [(0, 3), (0, 1), (0, 1), (1, 1), (1, 32), (30, 32), (1, 1), (1, 1), (1, 1), (9, 5), (1, 32), (0, 10)]
    fields += [(1, 1), (1, 5)]
    fields += [(0, 12), (9, 5), (1, 1), (1, 1), (0, 10), (0, 10), (1, 1), (1, 1), (5, 4)]
    fields += [(0, 12), (3, 5), (0, 1), (0, 1)]
    fields += [(10, 4), (9, 4), (1279, 11), (719, 10)]
    bits = "".join(f"{value:0{count}b}" for value, count in fields)
    payload = int(bits.ljust(8 * 40, "0"), 2).to_bytes(40, "big")
    assert av1_size(b"\x12\0" + b"\x0a\x28" + payload) == (1280, 720)
    with pytest.raises(RequestError, match="corrupt AVIF: AV1 without a sequence header"):
        av1_size(b"\x12\0")
    with pytest.raises(RequestError, match="corrupt HEIC: no unit of AV1 at byte 2 of 3"):
        av1_size(b"\x12\0\x80", "HEIC")
    with pytest.raises(RequestError, match="corrupt AVIF: AV1 of more than 4096 units"):
        av1_size(b"\x12\0" * 4097)


SMALL = io.BytesIO()
PICTURE.resize((2, 2)).save(SMALL, "AVIF")
DATA_OF_SMALL = SMALL.getvalue()[SMALL.getvalue().index(b"mdat") + 4 :]
LIES = {
    "in the file": lying_avif(FILES["avif"]),
    "in the box of stored data": lying_avif(FILES["avif"], stored=True),
    "in two parts": lying_avif(FILES["avif"], first_part=3),
    "after padding": lying_avif(FILES["avif"], before=b"\x7a\x04\0\0\0\x80"),
    "after metadata": lying_avif(FILES["avif"], before=b"\x2a\x04\x01\0\0\x80"),
    "after many delimiters": lying_avif(FILES["avif"], before=b"\x12\0" * 9),
    "after a smaller one": lying_avif(FILES["avif"], before=DATA_OF_SMALL),
}
"""Where the data of an AVIF file stands whose box says another size."""


@pytest.mark.parametrize("place", LIES)
def test_the_size_in_av1_data_counts_wherever_it_is(place: str) -> None:
    assert image_size(LIES[place])[:2] == SIZE


def test_the_size_of_the_first_frame_counts_which_the_decoder_may_take() -> None:
    several = bytearray(FILES["avif, frames"])
    for at in (place.start() for place in re.finditer(b"ispe", FILES["avif, frames"])):
        struct.pack_into(">II", several, at + 8, 2, 2)
    struct.pack_into(">II", several, several.index(b"iloc") + 18, len(several), len(DATA_OF_SMALL))
    assert image_size(bytes(several) + DATA_OF_SMALL)[:2] == SIZE


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (tiff((256, 4, 1, 8)), "corrupt TIFF: no tag 257 in its first directory"),
        (tiff((256, 4, 0, 8), (257, 4, 1, 8)), "corrupt TIFF: tag 256 is empty"),
        (tiff((256, 9, 1, 2**32 - 1), (257, 4, 1, 8)), "corrupt TIFF: tag 256 is -1"),
        (tiff((256, 4, 2**30, 8), (257, 4, 1, 8)), "truncated TIFF: 38 bytes without a whole header"),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(99), "corrupt TIFF: a directory of 65535 entries"),
        (b"II*\0\xff\xff\xff\xff", "truncated TIFF: 8 bytes without a whole header"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, "truncated TIFF: 16 bytes without a whole header"),
        (
            tiff((256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 1, 2**32 - 1), (279, 4, 1, 2**32 - 1)),
            "truncated TIFF: 62 bytes, its header says 8589934590",
        ),
        (written("TIFF", "F"), "TIFF of more than 16 bits per sample: not supported"),
        (tiff((256, 4, 1, 8), (257, 4, 1, 8), (259, 3, 1, 50000)), "TIFF compressed with Zstandard: not supported"),
        (b"GIF89a" + bytes(20), "corrupt GIF: no block at byte 13 of 26"),
        (b"GIF89a" + bytes(7) + b"!\xf9" + b"\1x" * 9, "truncated GIF: 33 bytes without an end"),
        (b"GIF89a" + bytes(7) + b"!\xf9" + b"\1x" * 1_000_001, "corrupt GIF: more than 1000000 blocks"),
        (j2k(10_000, 10_000, 1), "truncated JPEG 2000: 47 bytes for 100000000 tiles"),
        (
            j2k(7000, 7000, 7000, style(levels=0, block=0)),
            "JPEG 2000 of 3062500 blocks: more than the 1000000 allowed",
        ),
        (
            j2k(7000, 7000, 7000, style(levels=1, block=4) + tile_part(style(levels=0, block=4, precincts=b"\x01"))),
            "JPEG 2000 of 24500000 blocks: more than the 1000000 allowed",
        ),
        (
            j2k(7000, 7000, 7000, b"\xff\x53\0\x09\0\0\0\0\0\0\0"),
            "JPEG 2000 of 3062500 blocks: more than the 1000000 allowed",
        ),
        (j2k(9, 9, 9, b"\xff\x64\0\1"), "corrupt JPEG 2000: no segment at byte 45 of 51"),
        (j2k(9, 9, 9)[:-1], "truncated JPEG 2000: 46 bytes without an end-of-codestream marker"),
        (
            j2k(9, 9, 9, tile_part(b"", 99)),
            "truncated JPEG 2000: 61 bytes without an end-of-codestream marker",
        ),
        (j2k(10, 10, 0), "corrupt JPEG 2000: an area without pixels"),
        (b"\xff\x4f\xff\x51", "truncated JPEG 2000: 4 bytes without a whole header"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(8), "corrupt JPEG 2000: a box of 0 bytes at byte 12"),
        (b"P6\n5", "corrupt PNM: no whole header in 4 bytes"),
        (b"P6 " + b"#\n" * 99_999, "corrupt PNM: no whole header in 200001 bytes"),
        (b"P5\n9 9\n255\n\0", "truncated PNM: 12 bytes, its header says 92"),
        (b"P7\nWIDTH 9\n", "corrupt PAM: no whole header in 11 bytes"),
        (b"PF\n1 1\n", "corrupt PFM: no whole header in 7 bytes"),
        (b"Y\xa6j\x95", "truncated Sun raster: 4 bytes without a whole header"),
        (b"#?RADIANCE\n\n", "corrupt Radiance HDR: no whole header of rows from top to bottom in 12 bytes"),
        (
            b"#?RGBE\n" + b"x" * 127 + b"\n\n-Y 1 +X 1\n",
            "corrupt Radiance HDR: a line of more than 126 bytes in its header",
        ),
        (b"#?RGBE\n\n-Y 9 +X 9\n", "truncated Radiance HDR: 18 bytes, its header says 126"),
        (b"\0\0\0\x10ftypavif\0\0\0\0", "AVIF without a still image: not supported"),
        (b"\0\0\0\x10ftypavif\0\0\0\0\xff\xff\xff\xffmeta", "truncated AVIF: 24 bytes without a whole header"),
        (b"\0\0\0\x10ftypavif\0\0\0\0\0\0\0\x0cmeta\0\0\0\0", "corrupt AVIF: no image has a size"),
        (
            b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * 5000,
            "corrupt AVIF or HEIC: more than 4096 boxes",
        ),
        (
            b"\0\0\0\x10ftypheic\0\0\0\0\0\0\0\x24meta\0\0\0\0\0\0\0\x18iloc\0\0\0\0\0\0\xff\xff"
            + bytes(6)
            + b"\xff\xff",
            "truncated HEIC: 52 bytes without a whole header",
        ),
        (
            b"\0\0\0\x10ftypheic\0\0\0\0\0\x01\0\x1cmeta\0\0\0\0\0\x01\0\x10iloc\0\0\0\0\0\0\xff\xff"
            + b"\0\0\0\0\xff\xff" * 11_000,
            "corrupt AVIF or HEIC: more than 65536 parts of images",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong(encoded: bytes, said: str) -> None:
    assert refusal(encoded) == said


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop (PSD)"),
        (b'<?xml version="1.0"?>\n<svg xmlns="...">', "SVG"),
        (b"\xef\xbb\xbf<svg>", "SVG"),
        (b"<?xml version='1.0'?><a/>", "XML"),
        (b"\n<!DOCTYPE html><title>404", "HTML"),
        (b'{"error": 404}', "JSON"),
        (b"\xff\x0a\xfa", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "MP4 or QuickTime video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw photograph (CR3)"),
        (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI video"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\3\4", "zip"),
        (b"\x93NUMPY\1\0", "NumPy array (send it as a tensor)"),
        (b"/9j/4AAQSkZJRg", "base64 text of a JPEG (send the bytes)"),
        (bytes(128) + b"DICM", "DICOM"),
        (written("TGA"), "Targa (TGA)"),
        (written("ICO"), "icon (ICO)"),
        (written("DDS"), "DirectDraw (DDS)"),
        (written("SGI"), "SGI image"),
        (written("PCX"), "PCX"),
        (written("XBM", "1"), "XBM"),
    ],
)
def test_what_is_not_supported_is_named(encoded: bytes, name: str) -> None:
    assert refusal(encoded).startswith(f"{name}: this format is not supported; wanted a file of JPEG, PNG, ")


def test_openexr_wants_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_IO_ENABLE_OPENEXR", raising=False)
    said = "OpenEXR is not supported unless OPENCV_IO_ENABLE_OPENEXR=1 is in the environment of the service"
    assert refusal(BOMBS["exr"]) == said


def test_openexr_is_read_where_it_was_asked_for() -> None:
    """OpenCV looks at the environment once, so that this takes a process of its own."""
    code = """if True:
        import numpy as np
        from beam_serving.models.base import TensorSpec
        from beam_serving.transforms.image import ImageRules, tensor_of_image
        from tests.transforms.images import encode
        pixels = np.full((3, 2, 3), (0.4, 99.0, 1000.0), np.float32)
        for channels in (1, 3, 4):
            spec = TensorSpec("x", (None, None, channels), np.dtype(np.uint8))
            print(tensor_of_image(encode(pixels, ".exr"), spec, ImageRules())[2, 1].tolist())
    """
    environment = {**os.environ, "OPENCV_IO_ENABLE_OPENEXR": "1"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[1:] == ["[0, 99, 255]", "[0, 99, 255, 255]"]


def test_heic_without_its_extra_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    said = "HEIC is read where the service has pip install 'beam-serving[heif]'"
    assert refusal((FIXTURES / "corners.heic").read_bytes()) == said


def test_a_heic_file_is_read_and_turned_upright() -> None:
    pytest.importorskip("pillow_heif")
    encoded = (FIXTURES / "corners.heic").read_bytes()
    upright = pixels_of(encoded, 3, "rgb")
    assert upright.shape == (48, 64, 3)
    corners = [upright[10, 10], upright[10, 50], upright[40, 50]]
    np.testing.assert_allclose(corners, [[200, 100, 10], [20, 60, 220], [240, 240, 240]], atol=3)
    np.testing.assert_array_equal(pixels_of(encoded, 3), upright[:, :, ::-1])
    np.testing.assert_array_equal(pixels_of(encoded, 4)[:, :, 2::-1], upright)
    assert (pixels_of(encoded, 4)[:, :, 3] == 255).all()
    grey = pixels_of(encoded, 1)[:, :, 0]
    np.testing.assert_allclose(grey, upright @ np.array([0.299, 0.587, 0.114]), atol=1)
    turned = pixels_of((FIXTURES / "corners_turned.heic").read_bytes(), 3, "rgb")
    np.testing.assert_allclose(turned, np.rot90(upright, -1), atol=12)


@given(some.integers(0, 700), some.integers(1, 255), some.integers(0, 700))
def test_a_damaged_heic_file_is_refused_or_gives_pixels(at: int, change: int, cut: int) -> None:
    pytest.importorskip("pillow_heif")
    damaged = bytearray((FIXTURES / "corners_turned.heic").read_bytes())
    damaged[at % len(damaged)] ^= change
    for encoded in (bytes(damaged), bytes(damaged[: cut % len(damaged)])):
        try:
            assert pixels_of(encoded, 3).shape[2] == 3
        except RequestError:
            continue
