"""Image files of every kind that a request may carry, made on the spot."""

import struct
import zlib

import cv2
import numpy as np


def encode(pixels: np.ndarray, suffix: str, *options: int) -> bytes:
    """Writes pixels (height, width[, channels]) as a file of the kind that `suffix` names."""
    written, encoded = cv2.imencode(suffix, pixels, options)
    assert written
    return encoded.tobytes()


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    """Gives random pixels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def png(width: int, height: int) -> bytes:
    """Gives a PNG file that announces a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def rotated(jpeg: bytes, orientation: int) -> bytes:
    """Adds the orientation of EXIF (1 to 8) to a JPEG file."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
