"""From an image file to the tensor that a model takes: decode, resize, colour order, mean and scale, layout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.protocol.limits import DEFAULT_LIMITS
from beam_serving.transforms.batch_buffer import Rows
from beam_serving.transforms.decoders import DECODERS
from beam_serving.transforms.image_cost import check_memory, check_scans, check_work, decoding_bytes, work_ns
from beam_serving.transforms.image_file import JPEG, ImageSize, image_size
from beam_serving.transforms.resize import Filter, pixels_between, resized

if "OPENCV_LOG_LEVEL" not in os.environ:
    # What is wrong with a client's file is its answer; OpenCV would fill the log with it too.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_CHANNELS = (1, 3, 4)
_PIXELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True)
class ImageRules:
    """How pixels, 0..255, become numbers: each is `(pixel - mean) * scale`.

    Attributes:
        color: the order of the channels, and of `mean` and `scale`. OpenCV decodes to BGR, and so did the older
            servers.
        layout: where an input of three dimensions has its channels: first (`chw`), last (`hwc`), or where its shape
            has 1, 3 or 4 (`auto`; first, where both have).
        mean: is taken from each pixel: one value for all channels, or one for each.
        scale: multiplies each pixel then: likewise.
        max_pixels: a file that announces more, width times height, is refused before it is decoded.
        resize: how an image gets its size: `stretch` to it, whatever the sides' ratio was; `fit` into it, with black
            beside it; `crop`: the shorter side becomes `resize_to`, then the middle is taken.
        resize_to: in pixels, with `crop` only; None, or one that is too short for the middle, is just long enough.
        strict: a JPEG whose data is corrupt is refused. OpenCV decodes what it can of it and tells nobody.
        resize_filter: how pixels are made: `linear` between the four next ones, as OpenCV's resize does unasked; `area`
            averages where the image shrinks; `antialias` is PIL's bilinear filter and so torchvision's. `auto` is
            linear for `stretch` and area otherwise.
        max_decode_bytes: the memory that an image takes at most, with all that is made of it; one for which that would
            not do is refused before it is decoded.
    """

    color: Literal["bgr", "rgb"] = "bgr"
    layout: Literal["auto", "chw", "hwc"] = "auto"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    max_pixels: int = 50_000_000
    resize: Literal["stretch", "fit", "crop"] = "stretch"
    resize_to: int | None = None
    strict: bool = False
    resize_filter: Filter = "auto"
    max_decode_bytes: int = DEFAULT_LIMITS.max_decode_bytes

    @property
    def plain(self) -> bool:
        """Whether pixels stay as they are."""
        return not any(self.mean) and all(factor == 1.0 for factor in self.scale)


@dataclass(frozen=True)
class _Frame:
    """How one model input takes an image; height or width is None where the model takes any."""

    channels: int
    height: int | None
    width: int | None
    channels_first: bool


def frame_of(spec: TensorSpec, layout: Literal["auto", "chw", "hwc"]) -> _Frame:
    """Read from an input's shape how it takes an image.

    Raises:
        RequestError: it takes none; the message has the shape.
    """
    shape = spec.shape
    if shape is None:
        raise RequestError(f"input {spec.name!r} takes any shape, which says no size of an image; send a tensor")
    if len(shape) == 3:
        if layout != "hwc" and shape[0] in _CHANNELS:
            return _Frame(shape[0], shape[1], shape[2], channels_first=True)
        if layout != "chw" and shape[2] in _CHANNELS:
            return _Frame(shape[2], shape[0], shape[1], channels_first=False)
    if len(shape) == 2:
        return _Frame(1, shape[0], shape[1], channels_first=True)
    raise RequestError(
        f"input {spec.name!r} takes shape {list(shape)}, which is no image of 1, 3 or 4 channels; send a tensor"
    )


def check_rules(spec: TensorSpec, rules: ImageRules) -> str | None:
    """Say why the rules as the operator wrote them cannot serve an image to this input, for the start of a service.

    An input that takes no image in any layout is ignored, and so are rules that nobody wrote: pixels that do not
    fit an input then are refused request by request.

    Returns:
        What is wrong and what to do, or None.
    """
    frames = {layout: _frame(spec, layout) for layout in ("auto", "chw", "hwc")}
    frame = frames[rules.layout]
    if spec.dtype == STRING or frames["auto"] is None:
        return None
    if frame is None:
        other = "hwc" if rules.layout == "chw" else "chw"
        return f"data: layout: {rules.layout}: input {spec.name!r} takes shape {_words(spec)}; set {other} or auto"
    if reason := _wrong_count(spec, frame, rules) or _wrong_values(spec, rules):
        return reason
    sides = [side for side in (frame.height, frame.width) if side is not None]
    if rules.resize_to is not None and len(sides) == 2 and rules.resize_to < min(sides):
        return (
            f"data: resize_to: {rules.resize_to}: input {spec.name!r} takes {frame.width}x{frame.height} pixels, "
            f"more than that; set {min(sides)} or more"
        )
    return None


def check_inputs(inputs: Iterable[TensorSpec], rules: ImageRules) -> str | None:
    """Say why no input of a model can be served images by these rules; None where one can, or where none takes any.

    Of several inputs that might take an image some are for tensors, and no rule is meant for these.
    """
    reasons = [check_rules(spec, rules) for spec in inputs if _frame(spec, "auto") and spec.dtype != STRING]
    return reasons[0] if reasons and all(reasons) else None


def _frame(spec: TensorSpec, layout: Any) -> _Frame | None:
    try:
        return frame_of(spec, layout)
    except RequestError:
        return None


def _words(spec: TensorSpec) -> str:
    return str(["any" if side is None else side for side in spec.shape or ()]).replace("'", "")


def _wrong_count(spec: TensorSpec, frame: _Frame, rules: ImageRules) -> str | None:
    for name, values in (("mean", rules.mean), ("scale", rules.scale)):
        if len(values) not in (1, frame.channels):
            return f"data: {name} has {len(values)} values, input {spec.name!r} {frame.channels} channels"
    return None


def _wrong_values(spec: TensorSpec, rules: ImageRules) -> str | None:
    """Say where a pixel of 0..255 becomes a number that the type of the input does not have."""
    if rules.plain:
        return None
    with np.errstate(over="ignore"):
        values = (_PIXELS[:, np.newaxis] - np.asarray(rules.mean, np.float32)) * np.asarray(rules.scale, np.float32)
    if (wrong := _first_wrong(values, spec.dtype)) is None:
        return None
    advice = "whole numbers of its range only" if spec.dtype.kind in "iu" else "numbers of its range only"
    return (
        f"data: mean and scale make {wrong:g} of pixels, input {spec.name!r} takes {spec.dtype}: {advice}; "
        "set a mean and a scale that give these (mean: 0 and scale: 1 leave pixels as they are)"
    )


def _first_wrong(values: np.ndarray, dtype: np.dtype) -> float | None:
    """Return the first of the values that the type cannot hold: a fraction or too large for integers, or infinite."""
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(dtype)
        wrong = ~np.isfinite(cast) if dtype.kind == "f" else (cast != values) | (np.abs(values) >= 2.0**63)
    return float(values[wrong][0]) if wrong.any() else None


def tensor_of_image(
    encoded: bytes, spec: TensorSpec, rules: ImageRules, rows: Rows | None = None, held_bytes: int = 0
) -> np.ndarray:
    """Decode an image file to the shape and type of the model input `spec`.

    Pixels are those that OpenCV gives, 8 bits each: grey files become three equal channels and alpha is dropped for a
    3-channel input; palettes and printing colours (CMYK) become colours; black and white become 0 and 255; more than
    8 bits are reduced to 8, floats of Radiance HDR from 0..1, of PFM and OpenEXR from 0..255, and what lies beyond is
    cut off. The first frame or page is taken. The orientation of EXIF is applied, but to AVIF files, and to PNG and
    WebP files whose alpha is wanted. A tensor of float32 with channels first is written into one of the `rows`, where
    there are some. `held_bytes` is what its request takes already.

    Raises:
        RequestError: the format is not supported, the file is truncated, too large, of too many scans or cannot be
            decoded, the rules have another number of channels than the input, or numbers that its type cannot hold.
    """
    frame = frame_of(spec, rules.layout)
    if reason := _wrong_count(spec, frame, rules):
        raise RequestError(reason)
    size = image_size(encoded)
    if size.width * size.height > rules.max_pixels:
        raise RequestError(f"image of {size.width}x{size.height} pixels: more than the {rules.max_pixels} allowed")
    check_scans(size)
    check_work(_work_ns(encoded, size, rules), rules.max_pixels, f"{len(encoded)} bytes of an image")
    room = rules.max_decode_bytes - held_bytes
    what = f"image of {size.width}x{size.height} pixels"
    check_memory(_fitting_bytes(size, frame, spec, rules), room, what)
    if rules.strict and encoded.startswith(JPEG):
        _refuse_corrupt(encoded)
    # No name here keeps the pixels while something else is made of them.
    return _fit(_decoded_within(encoded, size, frame.channels, rules.color, room, what), frame, spec, rules, rows)


def check_together(files: Sequence[bytes], rules: ImageRules) -> None:
    """Refuse the images of one request that are too much work together, each of which may be little enough.

    Raises:
        RequestError: they are, or one cannot be decoded.
    """
    if len(files) > 1:
        needed = sum(_work_ns(encoded, image_size(encoded), rules) for encoded in files)
        check_work(needed, rules.max_pixels, f"{len(files)} images")


def _work_ns(encoded: bytes, size: ImageSize, rules: ImageRules) -> int:
    return work_ns(size, len(encoded), antialias=rules.resize_filter == "antialias")


def _fitting_bytes(size: ImageSize, frame: _Frame, spec: TensorSpec, rules: ImageRules) -> int:
    """Return the most memory that is taken for decoded pixels, from these to the tensor."""
    if size.width == 0 or size.height == 0:
        return 0
    # A file may be turned by its EXIF.
    turns = (size.height, size.width), (size.width, size.height)
    return max(_bytes_of(sides, frame, spec, rules) for sides in turns)


def _bytes_of(sides: tuple[int, int], frame: _Frame, spec: TensorSpec, rules: ImageRules) -> int:
    goal = frame.height or sides[0], frame.width or sides[1]
    pixels, wanted, between = sides[0] * sides[1], goal[0] * goal[1], 0
    if sides != goal or rules.resize == "crop":
        between = wanted + pixels_between(sides, goal, rules.resize, rules.resize_to, rules.resize_filter)
        if rules.resize_filter == "antialias" and frame.channels == 4:
            between += pixels  # multiplied by their alpha
    each = spec.dtype.itemsize
    # Planes of pixels, then numbers of float32 and of the type of the input, and what compares these.
    per_value = 2 + (each if rules.plain else 4 if each == 4 and spec.dtype.kind == "f" else 4 + 2 * each + 8)
    return frame.channels * max(pixels + between, wanted * (1 + per_value))


def _decoded_within(encoded: bytes, size: ImageSize, channels: int, color: str, room: int, what: str) -> np.ndarray:
    """Return the pixels, from the decoder that takes less time and memory where it can.

    Raises:
        RequestError: they would take more memory than there is room, or see `_decoded`.
    """
    if size.plain_jpeg and channels != 4:
        check_memory(channels * size.width * size.height + size.kept_bytes, room, what)
        pixels = _jpeg_pixels(encoded, channels, color)
        if pixels is not None:
            return pixels
    check_memory(decoding_bytes(size, channels), room, what)
    return _decoded(encoded, size, channels, color)


def _decoded(encoded: bytes, size: ImageSize, channels: int, color: str) -> np.ndarray:
    if decoder := DECODERS.get(size.format):
        return decoder(encoded, channels, color)
    try:
        pixels = _pixels(np.frombuffer(encoded, np.uint8), channels, color)
    except cv2.error as err:
        raise RequestError(f"image of {len(encoded)} bytes cannot be decoded ({err.err})") from err
    if pixels is None:
        reason = f"it is corrupt, or a kind of {size.format} that OpenCV does not read"
        raise RequestError(
            f"image of {len(encoded)} bytes cannot be decoded: {reason if size.format else 'its data is corrupt'}"
        )
    return pixels


def _refuse_corrupt(encoded: bytes) -> None:
    try:
        simplejpeg.decode_jpeg(encoded, "GRAY", fastdct=True, min_height=8, min_width=8, min_factor=8, strict=True)
    except ValueError as err:
        raise RequestError(f"corrupt JPEG of {len(encoded)} bytes: {err}") from err


def _jpeg_pixels(encoded: bytes, channels: int, color: str) -> np.ndarray | None:
    """Return the pixels that OpenCV would give, bit by bit, in three quarters of the time; None in doubt."""
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(encoded, "GRAY" if channels == 1 else color.upper())
    except ValueError:
        return None
    return pixels[:, :, 0] if channels == 1 else pixels


def _pixels(encoded: np.ndarray, channels: int, color: str) -> np.ndarray | None:
    """Return the pixels, uint8, or None where OpenCV finds the data corrupt; of 4 channels always in BGRA order."""
    pixels: np.ndarray | None
    if channels == 1:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        # Of a PFM file OpenCV gives three channels all the same.
        return _converted(pixels, cv2.COLOR_BGR2GRAY) if pixels is not None and pixels.ndim == 3 else pixels
    if channels == 3:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB if color == "rgb" else cv2.IMREAD_COLOR)
        return _converted(pixels, cv2.COLOR_GRAY2BGR) if pixels is not None and pixels.ndim == 2 else pixels
    # Only this keeps alpha; it also keeps 16 bits, and pays no heed to the orientation.
    pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim == 2 or pixels.shape[2] != 4 or pixels.dtype not in (np.uint8, np.uint16):
        del pixels
        colored = _pixels(encoded, 3, "bgr")
        return None if colored is None else _converted(colored, cv2.COLOR_BGR2BGRA)
    if pixels.dtype != np.uint8:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    return pixels


def _converted(pixels: np.ndarray, code: int) -> np.ndarray:
    converted: np.ndarray = cv2.cvtColor(pixels, code)
    return converted


def _fit(pixels: np.ndarray, frame: _Frame, spec: TensorSpec, rules: ImageRules, rows: Rows | None) -> np.ndarray:
    height, width = frame.height or pixels.shape[0], frame.width or pixels.shape[1]
    if pixels.shape[:2] != (height, width) or rules.resize == "crop":
        pixels = resized(pixels, height, width, rules.resize, rules.resize_to, rules.resize_filter)
    if frame.channels == 4 and rules.color == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    if frame.channels_first and len(spec.shape or ()) == 3:
        return _planes(pixels, frame.channels, spec, rules, rows)
    if not rules.plain:
        pixels = pixels.astype(np.float32)
        pixels -= np.asarray(rules.mean, np.float32)
        pixels *= np.asarray(rules.scale, np.float32)
    if pixels.ndim == 2 and len(spec.shape or ()) == 3:
        pixels = pixels[:, :, None]
    return np.ascontiguousarray(_as_type(pixels, spec))


def _as_type(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Return the values in the type of the input, never others than they are.

    Raises:
        RequestError: the type cannot hold one of them.
    """
    if spec.dtype == values.dtype or (values.dtype == np.uint8 and np.can_cast(np.uint8, spec.dtype)):
        return values.astype(spec.dtype, copy=False)
    if (wrong := _first_wrong(values, spec.dtype)) is not None:
        raise RequestError(
            f"image has a pixel that mean and scale make {wrong:g}, input {spec.name!r} takes {spec.dtype}: "
            "the service needs another mean or scale"
        )
    return values.astype(spec.dtype)


def _planes(pixels: np.ndarray, channels: int, spec: TensorSpec, rules: ImageRules, rows: Rows | None) -> np.ndarray:
    """Return channels first. Copying plane by plane takes half the time of a transposed copy (40 against 80 us)."""
    if rows is not None and spec.dtype == np.float32:
        planes = rows.next()
    elif not rules.plain:
        planes = np.empty((channels, *pixels.shape[:2]), np.float32)
    else:
        pixels = _as_type(pixels, spec) if spec.dtype.itemsize == 1 else pixels
        planes = np.empty((channels, *pixels.shape[:2]), spec.dtype)
    for index, plane in enumerate(cv2.split(pixels)):
        planes[index] = plane
    if rules.plain:
        return planes
    planes -= np.reshape(np.asarray(rules.mean, np.float32), (-1, 1, 1))
    planes *= np.reshape(np.asarray(rules.scale, np.float32), (-1, 1, 1))
    converted: np.ndarray = _as_type(planes, spec)
    return converted
