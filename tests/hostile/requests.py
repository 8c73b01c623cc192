"""Requests that are within the limits of the wire and want more of a worker than they should."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa

from beam_serving.models.base import STRING, TensorSpec
from beam_serving.protocol import arrow_request
from beam_serving.protocol.arrow_schema import root
from beam_serving.transforms.image import ImageRules
from tests.hostile import files
from tests.hostile.files import SIDE
from tests.hostile.measure import FIXED, FLOAT32, FREE, Case

MIB = 1 << 20
MOST = 64 * MIB - 4096
RGBA = (TensorSpec("x", (4, 224, 224), FLOAT32),)
FREE_RGBA = (TensorSpec("x", (4, None, None), FLOAT32),)
FREE_HWC = (TensorSpec("x", (None, None, 3), FLOAT32),)
WIDE = (TensorSpec("x", None, np.dtype(np.float64)),)
FREE_INT = (TensorSpec("x", (3, None, None), np.dtype(np.int64)),)
TEXT = (TensorSpec("x", None, STRING),)
CROP = ImageRules(resize="crop", resize_to=256)
SMOOTH = ImageRules(resize="crop", resize_to=256, resize_filter="antialias")
STRICT = ImageRules(strict=True)
SCALED = ImageRules(mean=(127.0,), scale=(0.5,))


def image(encoded: bytes) -> dict[bytes, bytes]:
    return {b"image:": encoded}


def tiff_of_jpeg(side: int, part: bytes, tile: tuple[int, int] | None = None) -> dict[bytes, bytes]:
    """Gives a square TIFF file whose pixels are a JPEG file."""
    return image(files.tiff(side, side, packing=7, photometric=6, tile=tile, part=part))


def arrow_tensor() -> dict[bytes, bytes]:
    return {b"data": arrow_request.encode_inputs({"x": np.zeros((3, 224, 224), np.float32)})}


def tensor(dtype: str, size: int, shape: str | None = None) -> dict[bytes, bytes]:
    raw = bytes(size)
    shape = shape or str(size // np.dtype(dtype).itemsize)
    return {b"tensor:": raw, b"dtype:": dtype.encode(), b"shape:": shape.encode()}


def stream(json: bytes) -> dict[bytes, bytes]:
    return {b"serde": b"stream", b"data": json}


def instance(value: bytes) -> dict[bytes, bytes]:
    return stream(b'{"instances":[{"x":' + value + b"}]}")


def filled(piece: bytes, size: int = 16 * MIB - 64) -> bytes:
    """Gives a JSON list of one thing, many times over."""
    return b"[" + piece + (b"," + piece) * (size // (len(piece) + 1) - 1) + b"]"


def arrow(schema: pa.Schema, *columns: pa.Array) -> dict[bytes, bytes]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        if columns:
            writer.write_batch(pa.record_batch(list(columns), schema=schema))
    return {b"data": base64.b64encode(sink.getvalue())}


def of_strings(count: int, name: str = "c", text: str = "abc") -> dict[bytes, bytes]:
    return arrow(pa.schema([(f"{name}{index}", pa.string()) for index in range(count)]), *[pa.array([text])] * count)


def nested(depth: int, width: int = 1) -> dict[bytes, bytes]:
    kind: pa.DataType = pa.int32()
    for _ in range(depth):
        kind = pa.struct([(f"{index}", kind) for index in range(width)])
    return arrow(pa.schema([("x", kind)]), pa.array([None], kind))


def sparse(shape: tuple[int, ...], inputs: int = 1) -> dict[bytes, bytes]:
    value = arrow_request.Sparse(np.zeros((len(shape), 1), np.int32), np.ones(1), np.array(shape))
    return {b"data": arrow_request.encode_inputs({f"x{index}": value for index in range(inputs)})}


def shared_table(count: int, name: bytes = b"x") -> dict[bytes, bytes]:
    """A schema by hand: one table of a field, named by every place of the vector of fields."""
    return {b"data": base64.b64encode(_message(_schema([count], name)))}


def shared_levels(widths: list[int], name: bytes = b"x") -> dict[bytes, bytes]:
    """A schema by hand: structs within structs, whose children are one table, so that its tree grows as a power."""
    return {b"data": base64.b64encode(_message(_schema(widths, name)))}


class _Buffer:
    """A flatbuffer written from the front; offsets are filled in afterwards, for they point forward."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int = 8) -> None:
        self.data += bytes(-len(self.data) % size)

    def table(self, fields: dict[int, tuple[str, int]], slots: int) -> tuple[int, dict[int, int]]:
        """Writes a table; gives its place and those of its fields."""
        self.align()
        vtable = len(self.data)
        self.data += struct.pack("<HH", 4 + 2 * slots, 8 + 8 * slots) + bytes(2 * slots)
        self.align()
        table = len(self.data)
        self.data += struct.pack("<i", table - vtable) + bytes(8 * slots + 4)
        places = {}
        for index, (kind, value) in fields.items():
            offset = 8 + 8 * index
            struct.pack_into("<H", self.data, vtable + 4 + 2 * index, offset)
            struct.pack_into("<" + kind, self.data, table + offset, value)
            places[index] = table + offset
        return table, places

    def point(self, place: int, target: int) -> None:
        struct.pack_into("<I", self.data, place, target - place)

    def text(self, raw: bytes) -> int:
        self.align()
        at = len(self.data)
        self.data += struct.pack("<I", len(raw)) + raw + b"\0"
        return at

    def vector(self, count: int) -> int:
        self.align()
        at = len(self.data)
        self.data += struct.pack("<I", count) + bytes(4 * count)
        return at


def _schema(widths: list[int], name: bytes, pairs: int = 0, value: bytes = b"") -> bytes:
    """Gives the flatbuffer of a Message with a Schema (Message.fbs and Schema.fbs of the Arrow format)."""
    buffer = _Buffer()
    buffer.data += bytes(8)
    message, at = buffer.table({0: ("h", 4), 1: ("B", 1), 2: ("I", 0), 3: ("q", 0)}, 4)
    buffer.point(0, message)
    schema, inner = buffer.table({1: ("I", 0), **({2: ("I", 0)} if pairs else {})}, 3)
    buffer.point(at[2], schema)
    place = inner[1]
    for level, width in enumerate(widths):
        vector = buffer.vector(width)
        buffer.point(place, vector)
        last = level == len(widths) - 1
        field, of_field = buffer.table(
            {0: ("I", 0), 1: ("B", 1), 2: ("B", 5 if last else 13), 3: ("I", 0), 5: ("I", 0)}, 7
        )
        for index in range(width):
            buffer.point(vector + 4 + 4 * index, field)
        buffer.point(of_field[0], buffer.text(name))
        kind, _ = buffer.table({}, 0)
        buffer.point(of_field[3], kind)
        place = of_field[5]
    buffer.point(place, buffer.vector(0))
    if pairs:
        vector = buffer.vector(pairs)
        buffer.point(inner[2], vector)
        pair, of_pair = buffer.table({0: ("I", 0), 1: ("I", 0)}, 2)
        for index in range(pairs):
            buffer.point(vector + 4 + 4 * index, pair)
        buffer.point(of_pair[0], buffer.text(b"k"))
        buffer.point(of_pair[1], buffer.text(value))
    buffer.align()
    return bytes(buffer.data)


def _message(flatbuffer: bytes) -> bytes:
    head = b"\xff\xff\xff\xff" + struct.pack("<i", len(flatbuffer)) + flatbuffer
    batch = pa.record_batch([pa.array(["a"])], names=["x"]).serialize().to_pybytes()
    return head + batch + b"\xff\xff\xff\xff\0\0\0\0"


def shared_metadata(pairs: int, size: int) -> dict[bytes, bytes]:
    return {b"data": base64.b64encode(_message(_schema([1], b"x", pairs, bytes(size).replace(b"\0", b"v"))))}


def shared_body(columns: int, size: int) -> dict[bytes, bytes]:
    """Text columns which all are the same bytes of the body."""
    text = "QUFB" * (size // 4)
    batch = pa.record_batch([pa.array([text])] * columns, names=[f"c{index}" for index in range(columns)])
    one = pa.record_batch([pa.array([text])], names=["c0"])
    schema = batch.schema.serialize().to_pybytes()
    message = bytearray(batch.serialize().to_pybytes())
    head = struct.unpack_from("<i", message, 4)[0] + 8
    body = one.serialize().to_pybytes()
    body = body[struct.unpack_from("<i", body, 4)[0] + 8 :]
    # Each buffer of the later columns becomes that of the first.
    at = 8 + root(bytes(message[8:head])).vector(2)[0]
    for index in range(3, 3 * columns):
        message[at + 16 * index : at + 16 * index + 16] = message[at + 16 * (index % 3) : at + 16 * (index % 3) + 16]
    whole = struct.pack("<q", len(message) - head)
    place = message.find(whole, 0, head)
    struct.pack_into("<q", message, place, len(body))
    return {b"data": base64.b64encode(schema + bytes(message[:head]) + body + b"\xff\xff\xff\xff\0\0\0\0")}


def piped(size: int) -> dict[bytes, bytes]:
    return arrow(pa.schema([("x", pa.string())]), pa.array(["|" * size]))


def base64_image(size: int) -> dict[bytes, bytes]:
    """The largest image file that the old forms carry: base64 in base64."""
    file = files.jpeg(64, 64)
    padded = file[:-2] + bytes(size * 9 // 16 - len(file)) + file[-2:]
    return {b"data": arrow_request.encode_inputs({"x": arrow_request.Image(padded)})}


def wide_page(width: int, height: int) -> bytes:
    return files.png(width, height, 1, 0)


JPEG_SEGMENT = b"\xff\xe5\0\x02"
PROGRESSIVE = {"progressive": True}

CASES: dict[str, Case] = {
    "jpeg baseline": Case(lambda: image(files.jpeg(SIDE, SIDE))),
    "jpeg baseline, free size": Case(lambda: image(files.jpeg(SIDE, SIDE)), FREE),
    "jpeg baseline, free size, last": Case(lambda: image(files.jpeg(SIDE, SIDE)), FREE_HWC, SCALED),
    "jpeg baseline, strict": Case(lambda: image(files.jpeg(SIDE, SIDE)), FIXED, STRICT),
    "jpeg progressive": Case(lambda: image(files.jpeg(SIDE, SIDE, **PROGRESSIVE))),
    "jpeg progressive, 420": Case(lambda: image(files.jpeg(SIDE, SIDE, progressive=True, sampling=0x221111))),
    "jpeg progressive, scans": Case(lambda: image(files.with_scans(files.jpeg(4000, 4000, **PROGRESSIVE), 3000))),
    "jpeg progressive, few scans": Case(lambda: image(files.with_scans(files.jpeg(4000, 4000, **PROGRESSIVE), 20))),
    "jpeg progressive, strict": Case(lambda: image(files.jpeg(4000, 4000, **PROGRESSIVE)), FIXED, STRICT),
    "jpeg progressive, empty scans": Case(
        lambda: image(files.with_empty_scans(files.jpeg(4000, 4000, **PROGRESSIVE), 3000))
    ),
    "jpeg progressive, small with scans": Case(
        lambda: image(files.with_empty_scans(files.jpeg(512, 512, **PROGRESSIVE), 100_000))
    ),
    "jpeg announced": Case(lambda: image(files.announcing(files.jpeg(64, 64), 65500, 760))),
    "jpeg progressive announced": Case(
        lambda: image(files.announcing(files.jpeg(64, 64, **PROGRESSIVE), 65500, 760)), FREE
    ),
    "jpeg cmyk": Case(lambda: image(files.cmyk(4000, 4000))),
    "jpeg turned": Case(lambda: image(files.turned(files.jpeg(SIDE, SIDE)))),
    "jpeg turned, progressive": Case(lambda: image(files.turned(files.jpeg(5000, 5000, **PROGRESSIVE)))),
    "jpeg alpha": Case(lambda: image(files.jpeg(SIDE, SIDE)), RGBA),
    "jpeg segments": Case(lambda: image(files.with_segments(files.jpeg(64, 64), JPEG_SEGMENT, MOST // 4))),
    "jpeg comments": Case(lambda: image(files.with_segments(files.jpeg(64, 64), b"\xff\xfe\0\x02", MOST // 4))),
    "jpeg profiles": Case(
        lambda: image(
            files.with_segments(files.jpeg(64, 64), b"\xff\xe2\xff\xffICC_PROFILE\0\1\1" + bytes(65519), 1000)
        )
    ),
    "jpeg exif parts": Case(
        lambda: image(files.with_segments(files.jpeg(64, 64), b"\xff\xe1\xff\xffExif\0\0" + bytes(65527), 1000))
    ),
    "jpeg fill bytes": Case(lambda: image(files.with_segments(files.jpeg(64, 64), b"\xff", MOST - 2000))),
    "jpeg markers": Case(lambda: image(files.with_segments(files.jpeg(64, 64), b"\xff\xd0", MOST // 2 - 2000))),
    "png 16 bit rgba": Case(lambda: image(files.png(SIDE, SIDE, 16, 6)), RGBA),
    "png 16 bit rgba, 3 channels": Case(lambda: image(files.png(SIDE, SIDE, 16, 6))),
    "png 16 bit rgba, some": Case(lambda: image(files.png(4000, 4000, 16, 6)), RGBA),
    "png 8 bit rgba": Case(lambda: image(files.png(SIDE, SIDE, 8, 6)), RGBA),
    "png rgb": Case(lambda: image(files.png(SIDE, SIDE))),
    "png grey, free size": Case(lambda: image(files.png(SIDE, SIDE, 1, 0)), FREE),
    "png grey, free size, some": Case(lambda: image(files.png(4000, 4000, 1, 0)), FREE),
    "png grey, free size, int64": Case(lambda: image(files.png(3500, 3500, 1, 0)), FREE_INT, SCALED),
    "png grey, free size, last": Case(lambda: image(files.png(4000, 4000, 1, 0)), FREE_HWC, SCALED),
    "png interlaced": Case(lambda: image(files.png(5000, 5000, 16, 6, interlaced=True)), RGBA),
    "png palette": Case(lambda: image(files.png(SIDE, SIDE, 1, 3))),
    "png text bomb": Case(
        lambda: image(files.png(64, 64, chunks=[files.chunk(b"zTXt", b"k\0\0" + files.deflated(1 << 30))] * 30))
    ),
    "png texts": Case(lambda: image(files.texts(990, 7_900_000))),
    "png texts in unicode": Case(lambda: image(files.texts(990, 7_900_000, b"iTXt"))),
    "png texts, most": Case(lambda: image(files.texts(32, 7_900_000))),
    "png small texts": Case(lambda: image(files.texts(60_000, 200_000))),
    "png profile bomb": Case(
        lambda: image(files.png(64, 64, chunks=[files.chunk(b"iCCP", b"k\0\0" + files.deflated(1 << 30))] * 30))
    ),
    "png chunks": Case(lambda: image(files.png(64, 64, chunks=[files.chunk(b"teXt", b"")] * (MOST // 12 - 200)))),
    "png animated": Case(lambda: image(files.apng(2000, 2000, 200))),
    "png animated, alpha": Case(lambda: image(files.apng(4000, 4000, 2)), RGBA),
    "webp": Case(lambda: image(files.webp(7000, 7000))),
    "webp lossless": Case(lambda: image(files.webp(7000, 7000, lossless=True))),
    "webp alpha": Case(lambda: image(files.webp(7000, 7000, lossless=True, alpha=True)), RGBA),
    "webp animated": Case(lambda: image(files.webp(3000, 3000, frames=20)), RGBA),
    "gif": Case(lambda: image(files.gif(SIDE, SIDE))),
    "gif alpha": Case(lambda: image(files.gif(SIDE, SIDE)), RGBA),
    "gif frames": Case(lambda: image(files.gif(3000, 3000, 30))),
    "tiff": Case(lambda: image(files.tiff(SIDE, SIDE))),
    "tiff strips": Case(lambda: image(files.tiff(SIDE, SIDE, rows=1))),
    "tiff 16 bit rgba": Case(lambda: image(files.tiff(SIDE, SIDE, bits=16, samples=4)), RGBA),
    "tiff 16 bit": Case(lambda: image(files.tiff(SIDE, SIDE, bits=16))),
    "tiff 16 bit, some": Case(lambda: image(files.tiff(4000, 4000, bits=16))),
    "tiff planes": Case(lambda: image(files.tiff(SIDE, SIDE, planar=2))),
    "tiff tiles": Case(lambda: image(files.tiff(SIDE, SIDE, tile=(256, 256)))),
    "tiff large tile": Case(lambda: image(files.tiff(16, 16, tile=(7056, 7056)))),
    "tiff many samples": Case(lambda: image(files.tiff(3000, 3000, samples=100, photometric=1))),
    "tiff very many samples": Case(lambda: image(files.tiff(300, 300, samples=5000, photometric=1))),
    "tiff packbits": Case(
        lambda: image(files.tiff(SIDE, SIDE, packing=32773, part=files.packed_bits(SIDE * SIDE * 3)))
    ),
    "tiff lzw": Case(lambda: image(files.lzw(files.flat(SIDE, SIDE, 3)))),
    "tiff jpeg": Case(lambda: image(files.tiff(4000, 4000, packing=7, part=files.jpeg(4000, 4000), photometric=6))),
    "tiff jpeg scans": Case(
        lambda: tiff_of_jpeg(4000, files.with_empty_scans(files.jpeg(4000, 4000, progressive=True), 3000))
    ),
    "tiff jpeg tiles, scans": Case(
        lambda: tiff_of_jpeg(
            4096, files.with_empty_scans(files.jpeg(256, 256, progressive=True), 3000), tile=(256, 256)
        )
    ),
    "tiff jpeg of another size": Case(
        lambda: image(files.tiff(64, 64, packing=7, part=files.jpeg(SIDE, SIDE), photometric=6))
    ),
    "bmp run lengths": Case(lambda: image(files.bmp(SIDE, SIDE))),
    "bmp run lengths, free size": Case(lambda: image(files.bmp(SIDE, SIDE)), FREE),
    "jpeg 2000": Case(lambda: image(files.jpeg2000(SIDE, SIDE))),
    "jpeg 2000, some": Case(lambda: image(files.jpeg2000(4000, 4000))),
    "jpeg 2000, few": Case(lambda: image(files.jpeg2000(3000, 3000)), FREE),
    "jpeg 2000, exact": Case(lambda: image(files.jpeg2000(3000, 3000, irreversible=False))),
    "jpeg 2000, layers": Case(lambda: image(files.with_layers(files.jpeg2000(3000, 3000), 65535))),
    "jpeg 2000, tiles": Case(lambda: image(files.jpeg2000(4000, 4000, tile_size=(16, 16), num_resolutions=1))),
    "jpeg 2000, small blocks": Case(
        lambda: image(files.jpeg2000(3500, 3500, codeblock_size=(4, 4), num_resolutions=1))
    ),
    "jpeg 2000, precincts": Case(
        lambda: image(files.jpeg2000(3500, 3500, precinct_size=(16, 16), codeblock_size=(4, 4)))
    ),
    "jpeg 2000, precincts and layers": Case(
        lambda: image(
            files.with_layers(files.jpeg2000(2000, 2000, precinct_size=(64, 64), codeblock_size=(32, 32)), 65535)
        )
    ),
    "jpeg 2000, alpha": Case(lambda: image(files.jpeg2000(3000, 3000, 4)), RGBA),
    "avif": Case(lambda: image(files.avif(SIDE, SIDE))),
    "avif, some": Case(lambda: image(files.avif(4000, 4000)), FREE),
    "avif alpha": Case(lambda: image(files.avif(4000, 4000, 4)), RGBA),
    "avif, all colours": Case(lambda: image(files.avif_of_all_colours(4000, 4000)), FREE),
    "avif, largest": Case(lambda: image(files.avif_of_all_colours(4480, 4480))),
    "avif stored": Case(lambda: image(files.lying_avif(files.avif(SIDE, SIDE), stored=True))),
    "avif in parts": Case(lambda: image(files.lying_avif(files.avif(SIDE, SIDE), first_part=3))),
    "avif noise": Case(lambda: image(files.noise_of("AVIF", 4000, quality=100, speed=10, subsampling="4:4:4"))),
    "avif noise, some": Case(lambda: image(files.noise_of("AVIF", 3200, quality=100, speed=10, subsampling="4:4:4"))),
    "jpeg 2000, noise": Case(lambda: image(files.noise_of("JPEG2000", 4400))),
    "jpeg 2000, some noise": Case(lambda: image(files.noise_of("JPEG2000", 3200))),
    "heic noise": Case(lambda: image(files.noise_of("HEIF", 3000, quality=100))),
    "jpeg noise": Case(lambda: image(files.noise_of("JPEG", 3900))),
    "several images of much work": Case(
        lambda: {b"image:%d" % index: files.png(SIDE, SIDE, 1, 0) for index in range(8)},
        tuple(TensorSpec(str(index), (3, 224, 224), FLOAT32) for index in range(8)),
    ),
    "heic": Case(lambda: image(files.heic(3000, 3000))),
    "heic, free size": Case(lambda: image(files.heic(2000, 2000)), FREE),
    "heic alpha": Case(lambda: image(files.heic(2000, 2000, "RGBA")), RGBA),
    "jpeg progressive, most scans": Case(
        lambda: image(files.with_scans(files.jpeg(6400, 6400, progressive=True, sampling=0x221111), 14))
    ),
    "jpeg progressive, many small scans": Case(
        lambda: image(files.with_scans(files.jpeg(1024, 1024, progressive=True), 900))
    ),
    "tiff jpeg, most scans": Case(
        lambda: tiff_of_jpeg(2000, files.with_scans(files.jpeg(2000, 2000, progressive=True), 85))
    ),
    "jpeg 2000, most packets": Case(
        lambda: image(
            files.with_layers(files.jpeg2000(500, 500, precinct_size=(64, 64), codeblock_size=(32, 32)), 3000)
        )
    ),
    "pam": Case(
        lambda: image(b"P7\nWIDTH 4000\nHEIGHT 4000\nDEPTH 4\nMAXVAL 255\nENDHDR\n" + bytes(4 * 4000**2)), RGBA
    ),
    "pam, some": Case(
        lambda: image(b"P7\nWIDTH 3000\nHEIGHT 3000\nDEPTH 4\nMAXVAL 254\nENDHDR\n" + bytes(4 * 3000**2)), RGBA
    ),
    "pam 16 bit, some": Case(
        lambda: image(b"P7\nWIDTH 2000\nHEIGHT 2000\nDEPTH 4\nMAXVAL 65535\nENDHDR\n" + bytes(8 * 2000**2)), RGBA
    ),
    "pnm text": Case(lambda: image(b"P1\n7000 7000\n" + b"0" * (MOST - 100))),
    "ppm text": Case(lambda: image(b"P3\n3000 3000\n255\n" + b"0 " * (3000 * 3000 * 3))),
    "pnm bits": Case(lambda: image(b"P4\n7000 7000\n" + bytes(875 * 7000)), FREE),
    "pgm 16 bit": Case(lambda: image(b"P5\n5000 5000\n65535\n" + bytes(2 * 5000 * 5000))),
    "pam 16 bit": Case(
        lambda: image(b"P7\nWIDTH 2800\nHEIGHT 2800\nDEPTH 4\nMAXVAL 65535\nENDHDR\n" + bytes(8 * 2800**2)), RGBA
    ),
    "pam grey": Case(lambda: image(b"P7\nWIDTH 7000\nHEIGHT 7000\nDEPTH 1\nMAXVAL 254\nENDHDR\n" + bytes(7000**2))),
    "pfm": Case(lambda: image(b"Pf\n4000 4000\n-1.0\n" + bytes(4 * 4000**2))),
    "hdr": Case(lambda: image(files.hdr(SIDE, SIDE))),
    "sun": Case(lambda: image(files.sun(SIDE, SIDE))),
    "sides 65535x1, crop": Case(lambda: image(wide_page(65535, 1)), FIXED, CROP),
    "sides 1x65535, crop": Case(lambda: image(wide_page(1, 65535)), FIXED, CROP),
    "sides 1000000x1, crop": Case(lambda: image(wide_page(1_000_000, 1)), FIXED, CROP),
    "sides 1000000x2, crop": Case(lambda: image(wide_page(1_000_000, 2)), FIXED, replace(CROP, resize_to=None)),
    "sides 1x65535, crop, free": Case(lambda: image(wide_page(1, 65535)), FREE, CROP),
    "sides 1000000x40, crop": Case(lambda: image(wide_page(1_000_000, 40)), FIXED, CROP),
    "sides 65535x1, crop, antialias": Case(lambda: image(wide_page(65535, 1)), FIXED, SMOOTH),
    "sides 1x1000000, crop, antialias": Case(lambda: image(wide_page(1, 1_000_000)), FIXED, SMOOTH),
    "sides 1000000x40, crop, antialias": Case(lambda: image(wide_page(1_000_000, 40)), FIXED, SMOOTH),
    "sides 65535x1, stretch": Case(lambda: image(wide_page(65535, 1))),
    "sides 65535x1, fit": Case(lambda: image(wide_page(65535, 1)), FIXED, ImageRules(resize="fit")),
    "sides 1x1000000, fit, antialias": Case(
        lambda: image(wide_page(1, 1_000_000)), FIXED, ImageRules(resize="fit", resize_filter="antialias")
    ),
    "sides, one free": Case(
        lambda: image(wide_page(1_000_000, 50)), (TensorSpec("x", (3, 224, None), FLOAT32),), ImageRules()
    ),
    "antialias": Case(lambda: image(files.png(SIDE, SIDE, 1, 0)), FIXED, SMOOTH),
    "antialias, wide": Case(lambda: image(wide_page(1_000_000, 50)), FIXED, ImageRules(resize_filter="antialias")),
    "antialias, alpha": Case(lambda: image(files.png(5000, 5000, 8, 6)), RGBA, SMOOTH),
    "area": Case(lambda: image(files.png(SIDE, SIDE, 1, 0)), FIXED, CROP),
    "several images": Case(
        lambda: {b"image:%d" % index: files.png(4000, 4000, 1, 0) for index in range(8)},
        tuple(TensorSpec(str(index), (3, None, None), FLOAT32) for index in range(8)),
    ),
    "base64 of base64": Case(lambda: base64_image(MOST)),
    "tensor as it is": Case(lambda: tensor("float32", MOST), (TensorSpec("x", None, FLOAT32),)),
    "tensor int8 to float64": Case(lambda: tensor("int8", MOST), WIDE),
    "tensor int8 to float32": Case(lambda: tensor("int8", MOST), (TensorSpec("x", None, FLOAT32),)),
    "tensor bool": Case(lambda: tensor("bool", MOST), (TensorSpec("x", None, np.dtype(np.bool_)),)),
    "tensor bool to float64": Case(lambda: tensor("bool", MOST), WIDE),
    "tensor int64 to float32": Case(lambda: tensor("int64", MOST), (TensorSpec("x", None, FLOAT32),)),
    "tensor float64 to int64": Case(lambda: tensor("float64", MOST), (TensorSpec("x", None, np.dtype(np.int64)),)),
    "tensor float16 to int64": Case(lambda: tensor("float16", MOST), (TensorSpec("x", None, np.dtype(np.int64)),)),
    "tensor float64 to float16": Case(lambda: tensor("float64", MOST), (TensorSpec("x", None, np.dtype("f2")),)),
    "tensor int8 to text": Case(lambda: tensor("int8", MOST), TEXT),
    "tensor of a huge shape": Case(lambda: tensor("int8", 16, ",".join(["999999999"] * 32))),
    "shape of many bytes": Case(lambda: tensor("int8", 16, "1" * MOST)),
    "many inputs": Case(
        lambda: {
            key: value
            for index in range(80)
            for key, value in (
                (b"tensor:%d" % index, bytes(800_000)),
                (b"dtype:%d" % index, b"int8"),
                (b"shape:%d" % index, b"800000"),
            )
        },
        tuple(TensorSpec(str(index), None, np.dtype(np.float64)) for index in range(80)),
    ),
    "many fields": Case(lambda: {b"%d" % index: b"" for index in range(2_000_000)}),
    "long names": Case(lambda: {b"tensor:" + bytes(MIB) + b"%d" % index: b"" for index in range(60)}),
    "text of many": Case(lambda: {b"text:": filled(b'""')}, TEXT),
    "text of many, wide": Case(lambda: {b"text:": filled('"éa"'.encode())}, TEXT),
    "text, one emoji": Case(lambda: {b"text:": b'"' + b"a" * (16 * MIB - 100) + '😀"'.encode()}, TEXT),
    "text of escapes": Case(lambda: {b"text:": b'"' + b"\\u00e9" * ((16 * MIB - 100) // 6) + b'"'}, TEXT),
    "text of lists": Case(lambda: {b"text:": filled(b'["a"]')}, TEXT),
    "text of empty lists": Case(lambda: {b"text:": filled(b"[]")}, TEXT),
    "json empty lists": Case(lambda: instance(filled(b"[]"))),
    "json lists of one": Case(lambda: instance(filled(b"[1]"))),
    "json lists in lists": Case(lambda: instance(filled(b"[[[[[1]]]]]"))),
    "json objects": Case(lambda: instance(filled(b'{"":0}'))),
    "json empty objects": Case(lambda: instance(filled(b"{}"))),
    "json instances": Case(lambda: stream(b'{"instances":' + filled(b'{"x":1}') + b"}")),
    "json keys": Case(lambda: instance(b"{" + b",".join(b'"%d":0' % index for index in range(1_400_000)) + b"}")),
    "json digits": Case(lambda: instance(filled(b"1"))),
    "json numbers": Case(lambda: instance(filled(b"1.5"))),
    "json integers": Case(lambda: instance(filled(b"999"))),
    "json long integers": Case(lambda: instance(filled(b"1" * 4200))),
    "json very long integer": Case(lambda: instance(b"1" * (16 * MIB - 100))),
    "json long floats": Case(lambda: instance(filled(b"0." + b"1" * 100_000))),
    "json large integers": Case(lambda: instance(filled(b"99999999999999999999"))),
    "json exponents": Case(lambda: instance(filled(b"1e999999999"))),
    "json mixed": Case(lambda: instance(filled(b"1.5,true,9007199254740993"))),
    "json texts and numbers": Case(lambda: instance(filled(b'1,"a"'))),
    "json deep": Case(lambda: instance(b"[" * (8 * MIB))),
    "json quotes": Case(lambda: instance(filled(b'"\\""'))),
    "json pairs of texts": Case(lambda: instance(filled(b'"ab"')), TEXT),
    "json base64": Case(lambda: instance(b'"' + b"A" * (16 * MIB - 100) + b'"')),
    "arrow columns": Case(lambda: of_strings(20_000)),
    "arrow columns, allowed": Case(lambda: of_strings(256, text="a" * 100_000)),
    "arrow long names": Case(lambda: of_strings(40, "n" * MIB)),
    "arrow nested": Case(lambda: nested(60)),
    "arrow wide and nested": Case(lambda: nested(5, 10)),
    "arrow metadata": Case(
        lambda: arrow(
            pa.schema([("x", pa.string())], metadata={f"{index}": "v" for index in range(500_000)}), pa.array(["a"])
        )
    ),
    "arrow shared field": Case(lambda: shared_table(100_000)),
    "arrow shared field, few": Case(lambda: shared_table(200, b"n" * (10 * MIB))),
    "arrow shared levels": Case(lambda: shared_levels([60, 60])),
    "arrow shared levels, names": Case(lambda: shared_levels([100, 100], b"n" * 100_000)),
    "arrow shared metadata": Case(lambda: shared_metadata(10_000, 200_000)),
    "arrow shared body": Case(lambda: shared_body(200, MIB)),
    "arrow pipes": Case(lambda: piped(40 * MIB)),
    "arrow text": Case(lambda: arrow(pa.schema([("x", pa.string())]), pa.array(["-" * (47 * MIB)])), TEXT),
    "arrow sparse": Case(lambda: sparse((4096, 4000))),
    "arrow sparse, inputs": Case(lambda: sparse((4096, 4000), 60)),
    "arrow dense": Case(
        lambda: {b"data": arrow_request.encode_inputs({"x": np.zeros(11 * MIB, np.float32)})},
        (TensorSpec("x", None, np.dtype(np.float64)),),
    ),
    "arrow dictionary": Case(
        lambda: arrow(
            pa.schema([("x", pa.dictionary(pa.int32(), pa.string()))]), pa.array(["a"] * 4).dictionary_encode()
        )
    ),
    "image 0.7": Case(
        lambda: {
            b"image": base64.b64encode(files.with_segments(files.jpeg(64, 64), b"\xff\xe5\xff\xff" + bytes(65533), 700))
        }
    ),
}
