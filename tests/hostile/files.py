"""Image files that are small and want much: of every format, what its decoder would have to do most for."""

import io
import struct
import zlib
from collections.abc import Iterable

import cv2
import numpy as np
import pillow_heif
from PIL import Image as PilImage

from tests.transforms.images import rotated

SIDE = 7071
"""A square of this side has the most pixels that the defaults take, 50 million."""


def flat(height: int, width: int, *channels: int) -> np.ndarray:
    """Gives black pixels, which every format packs well."""
    return np.zeros((height, width, *channels), np.uint8)


def written(pixels: np.ndarray, suffix: str, *options: int) -> bytes:
    """Writes pixels as a file."""
    ok, encoded = cv2.imencode(suffix, pixels, options)
    assert ok
    return encoded.tobytes()


def jpeg(width: int, height: int, *, progressive: bool = False, sampling: int = 0x111111) -> bytes:
    """Writes a black JPEG file; `sampling` 0x111111 keeps all colours, 0x221111 a quarter of them."""
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
    return written(flat(height, width, 3), ".jpg", *options)


def cmyk(width: int, height: int) -> bytes:
    """Writes a JPEG file of printing colours, progressive."""
    buffer = io.BytesIO()
    PilImage.new("CMYK", (width, height)).save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


def with_scans(jpeg: bytes, scans: int) -> bytes:
    """Says the last scan of a progressive JPEG file again and again."""
    at, end = jpeg.rfind(b"\xff\xda"), jpeg.rfind(b"\xff\xd9")
    return jpeg[:end] + jpeg[at:end] * scans + jpeg[end:]


def with_empty_scans(jpeg: bytes, scans: int) -> bytes:
    """Adds scans of no data to a progressive JPEG file, of 10 bytes each."""
    end = jpeg.rfind(b"\xff\xd9")
    scan = b"\xff\xda\0\x08\1" + jpeg[jpeg.rfind(b"\xff\xda") + 5 : jpeg.rfind(b"\xff\xda") + 6] + b"\0\1\x3f\0"
    return jpeg[:end] + scan * scans + jpeg[end:]


def announcing(jpeg: bytes, width: int, height: int) -> bytes:
    """Writes another size into a JPEG file, whose data then ends early."""
    at = max(jpeg.find(bytes((0xFF, marker))) for marker in (0xC0, 0xC2))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def with_segments(jpeg: bytes, segment: bytes, count: int) -> bytes:
    """Puts a segment in front of what a JPEG file has, many times."""
    return jpeg[:2] + segment * count + jpeg[2:]


def turned(jpeg: bytes) -> bytes:
    """Asks for a JPEG file to be turned by EXIF."""
    return rotated(jpeg, 5)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Gives a chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deflated(size: int, byte: bytes = b"\0") -> bytes:
    """Gives the zlib form of a byte, many times over."""
    packer = zlib.compressobj(9)
    block = byte * (1 << 20)
    parts = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.compress(block[: size & (1 << 20) - 1]), packer.flush()])


def png(
    width: int, height: int, bits: int = 8, kind: int = 2, *, interlaced: bool = False, chunks: Iterable[bytes] = ()
) -> bytes:
    """Writes a PNG file whose pixels are all 0; `kind` 0 is grey, 2 RGB, 3 a palette, 4 grey with alpha, 6 RGBA."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    row = 1 + (width * samples * bits + 7) // 8
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    size = row * height + (16 * height if interlaced else 0)
    palette = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
    middle = b"".join(chunks)
    body = chunk(b"IHDR", header) + middle + palette + chunk(b"IDAT", deflated(size)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def apng(width: int, height: int, frames: int) -> bytes:
    """Writes an animated PNG file; its frames are as large as the canvas."""
    data = deflated((1 + 4 * width) * height)
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0)
    later = b"".join(
        chunk(b"fcTL", struct.pack(">I", 2 * index + 1) + control[4:])
        + chunk(b"fdAT", struct.pack(">I", 2 * index + 2) + data)
        for index in range(frames - 1)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"acTL", struct.pack(">II", frames, 0)) + chunk(b"fcTL", control)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", data) + later + chunk(b"IEND", b"")


def webp(width: int, height: int, *, lossless: bool = False, alpha: bool = False, frames: int = 1) -> bytes:
    """Writes a WebP file, of several frames on request."""
    image = PilImage.new("RGBA" if alpha else "RGB", (width, height))
    buffer = io.BytesIO()
    more = [PilImage.new("RGB", (width, height), (index % 256, 0, 0)) for index in range(1, frames)]
    several = {"save_all": True, "append_images": more} if more else {}
    image.save(buffer, "WEBP", lossless=lossless, method=0, **several)
    return buffer.getvalue()


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """Writes a GIF file."""
    first, *more = [PilImage.new("P", (width, height), index % 256) for index in range(frames)]
    buffer = io.BytesIO()
    several = {"save_all": True, "append_images": more} if more else {}
    first.save(buffer, "GIF", **several)
    return buffer.getvalue()


def tiff(
    width: int,
    height: int,
    *,
    bits: int = 8,
    samples: int = 3,
    packing: int = 8,
    planar: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    part: bytes | None = None,
    photometric: int | None = None,
    more: Iterable[tuple[int, int, int, int]] = (),
) -> bytes:
    """Writes a TIFF file with one page, whose strips or tiles are all the same bytes; `packing` 8 is deflate."""
    across, down = (width, rows or height) if tile is None else tile
    parts = -(-width // across) * -(-height // down) * (samples if planar == 2 else 1)
    size = across * down * (1 if planar == 2 else samples) * bits // 8
    data = part if part is not None else deflated(size) if packing == 8 else bytes(size)
    photometric = photometric if photometric is not None else (2 if samples >= 3 else 1)
    at = 8
    bits_at = at + len(data)
    starts_at = bits_at + 2 * samples
    lengths_at = starts_at + 4 * parts
    directory = lengths_at + 4 * parts
    where, length = (273, 279) if tile is None else (324, 325)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, samples, bits_at if samples > 2 else bits | bits << 16),
        (259, 3, 1, packing),
        (262, 3, 1, photometric),
        (where, 4, parts, starts_at if parts > 1 else at),
        (277, 3, 1, samples),
        (length, 4, parts, lengths_at if parts > 1 else len(data)),
        (284, 3, 1, planar),
        *(((278, 4, 1, down),) if tile is None else ((322, 4, 1, across), (323, 4, 1, down))),
        *(((338, 3, 1, 2),) if samples == 4 else ()),
        *more,
    ]
    head = b"II*\0" + struct.pack("<I", directory)
    tables = struct.pack(f"<{samples}H", *[bits] * samples)
    tables += struct.pack(f"<{parts}I", *[at] * parts) + struct.pack(f"<{parts}I", *[len(data)] * parts)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return head + data + tables + struct.pack("<H", len(tags)) + entries + bytes(4)


def packed_bits(size: int) -> bytes:
    """Gives zeros as PackBits, 128 of them in two bytes."""
    return b"\x81\0" * -(-size // 128)


def lzw(pixels: np.ndarray) -> bytes:
    """Writes a TIFF file packed with LZW."""
    return written(pixels, ".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 5)


def bmp(width: int, height: int) -> bytes:
    """Writes a BMP file of run lengths, of which it has none."""
    colors = 54 + 1024
    data = b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", colors + len(data), 0, 0, colors) + header + bytes(1024) + data


def jpeg2000(width: int, height: int, components: int = 3, **changes: object) -> bytes:
    """Writes a JPEG 2000 file."""
    buffer = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[components]
    PilImage.new(mode, (width, height)).save(buffer, "JPEG2000", **changes)
    return buffer.getvalue()


def with_layers(file: bytes, layers: int) -> bytes:
    """Announces another number of quality layers in a JPEG 2000 file."""
    at = file.find(b"\xff\x52")
    return file[: at + 6] + struct.pack(">H", layers) + file[at + 8 :]


def avif(width: int, height: int, channels: int = 3) -> bytes:
    """Writes an AVIF file, as fast as can be."""
    return written(flat(height, width, channels), ".avif", cv2.IMWRITE_AVIF_SPEED, 10)


def avif_of_all_colours(width: int, height: int) -> bytes:
    """Writes an AVIF file that keeps all colours."""
    buffer = io.BytesIO()
    PilImage.new("RGB", (width, height)).save(buffer, "AVIF", subsampling="4:4:4", speed=10)
    return buffer.getvalue()


def heic(width: int, height: int, mode: str = "RGB") -> bytes:
    """Writes a HEIC file."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(PilImage.new(mode, (width, height))).save(buffer, quality=10)
    return buffer.getvalue()


def hdr(width: int, height: int) -> bytes:
    """Writes a Radiance file of run lengths."""
    row = b"\2\2" + struct.pack(">H", width)
    runs, left = b"", width
    while left:
        run = min(left, 127)
        runs += bytes((128 + run, 0))
        left -= run
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (height, width) + (row + 4 * runs) * height


def sun(width: int, height: int) -> bytes:
    """Writes a Sun raster file of run lengths, nearly empty."""
    return struct.pack(">8I", 0x59A66A95, width, height, 24, 3, 2, 0, 0) + bytes(3)


def lying_avif(file: bytes, *, stored: bool = False, first_part: int = 0, before: bytes = b"", side: int = 2) -> bytes:
    """Says another size in the box of an AVIF file, and puts its data, after other bytes, where no one may look."""
    parts = dict(_boxes(file))
    data = before + parts[b"mdat"]
    inner = _boxes(parts[b"meta"][4:])
    item = dict(inner)[b"iloc"][8:10]

    def start_of(base: int) -> bytes:
        extents = (
            [(base, len(data))] if not first_part else [(base, first_part), (base + first_part, len(data) - first_part)]
        )
        where = b"\1\0\0\0\x44\0\0\1" + item + struct.pack(">HHH", int(stored), 0, len(extents))
        places = b"".join(struct.pack(">II", *extent) for extent in extents)
        meta = b"".join(_box(kind, where + places if kind == b"iloc" else body) for kind, body in inner)
        at = meta.index(b"ispe") + 8
        meta = meta[:at] + struct.pack(">II", side, side) + meta[at + 8 :]
        return _box(b"ftyp", parts[b"ftyp"]) + _box(b"meta", bytes(4) + meta + (_box(b"idat", data) if stored else b""))

    start = start_of(0 if stored else len(start_of(0)) + 8)
    return start if stored else start + _box(b"mdat", data)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _boxes(body: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(body):
        size, kind = struct.unpack_from(">I4s", body, at)
        found.append((kind, body[at + 8 : at + size]))
        at += size
    return found


def texts(count: int, size: int, kind: bytes = b"zTXt") -> bytes:
    """Writes a PNG file with compressed texts."""
    body = b"k\0\0" if kind == b"zTXt" else b"k\0\1\0\0\0"
    return png(64, 64, chunks=[chunk(kind, body + deflated(size))] * count)


def noise_of(format_: str, side: int, **options: object) -> bytes:
    """Writes what no format packs well."""
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    if format_ == "JPEG":
        return written(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    buffer = io.BytesIO()
    if format_ == "HEIF":
        pillow_heif.from_pillow(PilImage.fromarray(pixels)).save(buffer, **options)
    else:
        PilImage.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()
