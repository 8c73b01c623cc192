"""From an image file to a tensor: every kind of file, every rule, every refusal."""

import io
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
from beam_serving.transforms.image import ImageRules, frame_of, tensor_of_image
from tests.transforms.images import encode, noise, png, rotated

COLOR, GREY, ALPHA = noise(6, 5, 3), noise(6, 5), noise(6, 5, 4)
PLAIN = ImageRules()


def spec(*shape: int | None, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("x", shape, np.dtype(dtype))


def refusal(encoded: bytes, wanted: TensorSpec | None = None, rules: ImageRules = PLAIN) -> str:
    with pytest.raises(RequestError) as caught:
        tensor_of_image(encoded, wanted or spec(3, 6, 5), rules)
    return str(caught.value)


def test_pixels_arrive_as_they_were_written_channels_first() -> None:
    tensor = tensor_of_image(encode(COLOR, ".png"), spec(3, 6, 5), PLAIN)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, COLOR.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_lossless_files_give_the_same_pixels(suffix: str) -> None:
    options = (cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()
    tensor = tensor_of_image(encode(COLOR, suffix, *options), spec(6, 5, 3, dtype="uint8"), PLAIN)
    np.testing.assert_array_equal(tensor, COLOR)


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 1, "quality": 30}),
        ("RGB", {"subsampling": 2}),
        ("RGB", {"progressive": True}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_blocks": 1}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_a_jpeg_file_gives_what_opencv_reads(mode: str, options: dict[str, Any], channels: int, color: str) -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8), (5, 5), 2)
    file = io.BytesIO()
    PilImage.fromarray(smooth).convert(mode).save(file, "JPEG", **options)
    encoded = file.getvalue()
    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB if color == "rgb" else cv2.IMREAD_COLOR}[channels]
    rules = ImageRules(color=color)  # type: ignore[arg-type]
    tensor = tensor_of_image(encoded, spec(37, 53, channels, dtype="uint8"), rules)
    wanted = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    np.testing.assert_array_equal(tensor, wanted.reshape(37, 53, channels))


def test_a_grey_file_becomes_three_equal_channels() -> None:
    tensor = tensor_of_image(encode(GREY, ".png"), spec(3, 6, 5), PLAIN)
    np.testing.assert_array_equal(tensor, np.stack([GREY] * 3))


@pytest.mark.parametrize("shape", [(1, 6, 5), (6, 5, 1), (6, 5)])
def test_a_grey_input_takes_grey_and_coloured_files(shape: tuple[int, ...]) -> None:
    tensor = tensor_of_image(encode(GREY, ".png"), spec(*shape), PLAIN)
    np.testing.assert_array_equal(tensor, GREY.reshape(shape))
    weighted = tensor_of_image(encode(COLOR, ".png"), spec(*shape), PLAIN)
    np.testing.assert_allclose(weighted.reshape(6, 5), COLOR @ np.array([0.114, 0.587, 0.299]), atol=1)


def test_alpha_is_dropped_where_three_channels_are_wanted() -> None:
    tensor = tensor_of_image(encode(ALPHA, ".png"), spec(6, 5, 3), PLAIN)
    np.testing.assert_array_equal(tensor, ALPHA[:, :, :3])


def test_alpha_is_kept_where_four_channels_are_wanted() -> None:
    np.testing.assert_array_equal(tensor_of_image(encode(ALPHA, ".png"), spec(6, 5, 4), PLAIN), ALPHA)
    deep = encode(ALPHA.astype(np.uint16) * 257, ".png")
    np.testing.assert_array_equal(tensor_of_image(deep, spec(6, 5, 4), PLAIN), ALPHA)


@pytest.mark.parametrize("pixels", [COLOR, GREY], ids=["color", "grey"])
def test_a_file_without_alpha_is_opaque(pixels: np.ndarray) -> None:
    tensor = tensor_of_image(encode(pixels, ".png"), spec(6, 5, 4), PLAIN)
    np.testing.assert_array_equal(tensor[:, :, :3], COLOR if pixels is COLOR else np.stack([GREY] * 3, axis=2))
    assert (tensor[:, :, 3] == 255).all()


def test_sixteen_bits_are_reduced_to_eight() -> None:
    tensor = tensor_of_image(encode(COLOR.astype(np.uint16) * 257, ".png"), spec(6, 5, 3), PLAIN)
    np.testing.assert_array_equal(tensor, COLOR)


@pytest.mark.parametrize("channels", [3, 4])
def test_the_orientation_of_exif_is_applied(channels: int) -> None:
    upright = encode(COLOR, ".jpg")
    straight = tensor_of_image(upright, spec(6, 5, channels), PLAIN)
    turned = tensor_of_image(rotated(upright, 6), spec(5, 6, channels), PLAIN)
    np.testing.assert_array_equal(turned, np.rot90(straight, -1))


def test_colours_are_turned_round_for_a_model_that_wants_rgb() -> None:
    rgb = ImageRules(color="rgb")
    tensor = tensor_of_image(encode(COLOR, ".png"), spec(6, 5, 3), rgb)
    np.testing.assert_array_equal(tensor, COLOR[:, :, ::-1])
    tensor = tensor_of_image(encode(ALPHA, ".png"), spec(6, 5, 4), rgb)
    np.testing.assert_array_equal(tensor, ALPHA[:, :, [2, 1, 0, 3]])
    np.testing.assert_array_equal(tensor_of_image(encode(GREY, ".png"), spec(6, 5), rgb), GREY)


@pytest.mark.parametrize("shape", [(3, 6, 5), (6, 5, 3)])
def test_mean_is_subtracted_before_the_scale_is_multiplied(shape: tuple[int, ...]) -> None:
    rules = ImageRules(color="rgb", mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 0.125))
    wanted = ((COLOR[:, :, ::-1] - np.array([1.0, 2.0, 3.0])) * np.array([0.5, 0.25, 0.125])).astype(np.float32)
    if shape[0] == 3:
        wanted = wanted.transpose(2, 0, 1)
    tensor = tensor_of_image(encode(COLOR, ".png"), spec(*shape), rules)
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, wanted)


@pytest.mark.parametrize("shape", [(1, 6, 5), (6, 5, 1), (6, 5)])
def test_one_value_of_mean_and_scale_serves_all_channels(shape: tuple[int, ...]) -> None:
    rules = ImageRules(mean=(127.5,), scale=(1 / 127.5,))
    tensor = tensor_of_image(encode(GREY, ".png"), spec(*shape), rules)
    np.testing.assert_allclose(tensor.reshape(6, 5), (GREY - 127.5) / 127.5, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 12, 10), (12, 10, 3)])
def test_a_file_of_another_size_is_resized(shape: tuple[int, ...]) -> None:
    tensor = tensor_of_image(encode(COLOR, ".png"), spec(*shape), PLAIN)
    wanted = cv2.resize(COLOR, (10, 12), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(tensor, wanted if shape[2] == 3 else wanted.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("wanted", "came"),
    [
        ((3, None, None), (3, 6, 5)),
        ((None, None, 3), (6, 5, 3)),
        ((3, None, 10), (3, 6, 10)),
        ((12, None, 3), (12, 5, 3)),
    ],
)
def test_a_free_dimension_is_that_of_the_file(wanted: tuple[int | None, ...], came: tuple[int, ...]) -> None:
    assert tensor_of_image(encode(COLOR, ".png"), spec(*wanted), PLAIN).shape == came


@pytest.mark.parametrize(
    ("shape", "layout", "channels_first"),
    [
        ((3, 224, 224), "auto", True),
        ((224, 224, 3), "auto", False),
        ((3, 4, 3), "auto", True),
        ((3, 4, 3), "hwc", False),
    ],
)
def test_the_layout_is_told_by_the_shape_or_by_the_operator(
    shape: tuple[int, ...], layout: str, channels_first: bool
) -> None:
    assert frame_of(spec(*shape), layout).channels_first is channels_first  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((3, 224, 224), "hwc"), ((224, 224, 3), "chw"), ((2, 8, 8), "auto"), ((784,), "auto"), ((3, 3, 3, 3), "auto")],
)
def test_an_input_that_takes_no_image_is_refused(shape: tuple[int, ...], layout: str) -> None:
    said = refusal(encode(COLOR, ".png"), spec(*shape), ImageRules(layout=layout))  # type: ignore[arg-type]
    assert said == f"input 'x' takes shape {list(shape)}, which is no image of 1, 3 or 4 channels; send a tensor"


@pytest.mark.parametrize("shape", [(1, 6, 5), (6, 5), (6, 5, 4)])
def test_rules_for_another_number_of_channels_are_refused(shape: tuple[int, ...]) -> None:
    channels = 4 if shape[-1] == 4 else 1
    said = refusal(encode(COLOR, ".png"), spec(*shape), ImageRules(scale=(1.0, 2.0, 3.0)))
    assert said == f"data: scale has 3 values, input 'x' {channels} channels"
    said = refusal(encode(COLOR, ".png"), spec(*shape), ImageRules(mean=(1.0, 2.0)))
    assert said == f"data: mean has 2 values, input 'x' {channels} channels"


def test_a_bomb_is_refused_by_its_header() -> None:
    assert refusal(png(100_000, 100_000)) == "image of 100000x100000 pixels: more than the 50000000 allowed"
    few = ImageRules(max_pixels=29)
    assert refusal(encode(COLOR, ".png"), rules=few) == "image of 5x6 pixels: more than the 29 allowed"
    assert tensor_of_image(encode(COLOR, ".png"), spec(3, 6, 5), ImageRules(max_pixels=30)).shape == (3, 6, 5)


@pytest.mark.parametrize("size", [(3, 3), (2_000_000, 1), (0, 5)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_header_that_lies_is_refused(size: tuple[int, int], channels: int) -> None:
    encoded = png(*size)
    said = refusal(encoded, spec(6, 5, channels))
    assert said == f"image of {len(encoded)} bytes cannot be decoded: its data is corrupt"


def test_a_png_file_with_a_wrong_byte_is_refused() -> None:
    encoded = bytearray(encode(COLOR, ".png"))
    encoded[60] ^= 0xFF
    assert refusal(bytes(encoded)) == f"image of {len(encoded)} bytes cannot be decoded: its data is corrupt"


def test_what_opencv_objects_to_is_refused() -> None:
    encoded = bytearray(encode(ALPHA, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80))
    encoded[26] |= 0x10  # a canvas of more than a million columns, and of few enough pixels
    said = refusal(bytes(encoded))
    assert said.startswith(f"image of {len(encoded)} bytes cannot be decoded (")
    assert "CV_IO_MAX_IMAGE_WIDTH" in said


@given(
    some.sampled_from([".jpg", ".png", ".bmp", ".webp"]),
    some.lists(some.tuples(some.integers(0, 5000), some.integers(1, 255)), min_size=1, max_size=3),
    some.sampled_from([1, 3, 4]),
)
def test_a_damaged_file_is_refused_or_gives_the_shape_of_the_input(
    suffix: str, changes: list[tuple[int, int]], channels: int
) -> None:
    damaged = bytearray(encode(COLOR, suffix))
    for at, change in changes:
        damaged[at % len(damaged)] ^= change
    try:
        tensor = tensor_of_image(bytes(damaged), spec(channels, 6, 5), ImageRules(max_pixels=1000))
    except RequestError:
        return
    assert tensor.shape == (channels, 6, 5)


def test_an_input_of_any_shape_takes_no_image() -> None:
    with pytest.raises(RequestError) as refused:
        frame_of(TensorSpec("x", None, np.dtype(np.float32)), "auto")
    assert str(refused.value) == "input 'x' takes any shape, which says no size of an image; send a tensor"


def test_what_is_no_image_is_refused() -> None:
    assert refusal(b"").startswith("an image of 0 bytes; wanted a file of JPEG, ")
    assert refusal(b"text").startswith("this format is not supported: 4 bytes that start with b'text'; ")


def test_a_truncated_file_is_refused() -> None:
    encoded = encode(COLOR, ".jpg")
    said = refusal(encoded[: len(encoded) // 2])
    assert said == f"truncated JPEG: {len(encoded) // 2} bytes without an end-of-image marker"


@pytest.mark.parametrize(("channels", "red"), [(1, [76]), (3, [0, 0, 255]), (4, [0, 0, 255, 255])])
def test_a_jpeg_file_of_printing_colours_becomes_screen_colours(channels: int, red: list[int]) -> None:
    encoded = (Path(__file__).parent / "fixtures" / "cmyk_red.jpg").read_bytes()
    tensor = tensor_of_image(encoded, spec(8, 8, channels), PLAIN)
    np.testing.assert_allclose(tensor, np.broadcast_to(np.array(red, np.float32), (8, 8, channels)), atol=2)


def damaged_jpeg() -> bytes:
    """A JPEG with scrambled data in its middle; OpenCV decodes it without a word."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    encoded = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    for position in range(1200, 1260):
        encoded[position] ^= 0x55
    return bytes(encoded)


def test_a_damaged_jpeg_file_gives_what_opencv_makes_of_it() -> None:
    wanted = cv2.imdecode(np.frombuffer(damaged_jpeg(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(tensor_of_image(damaged_jpeg(), spec(64, 64, 3, dtype="uint8"), PLAIN), wanted)


def test_corrupt_jpeg_data_is_refused_in_strict_mode_only() -> None:
    spec = TensorSpec("image", (3, 64, 64), np.dtype(np.float32))
    assert tensor_of_image(damaged_jpeg(), spec, ImageRules()).shape == (3, 64, 64)
    with pytest.raises(RequestError, match=r"^corrupt JPEG of \d+ bytes: "):
        tensor_of_image(damaged_jpeg(), spec, ImageRules(strict=True))


def test_a_sound_jpeg_passes_in_strict_mode() -> None:
    spec = TensorSpec("image", (3, 64, 64), np.dtype(np.float32))
    sound = cv2.imencode(".jpg", np.full((64, 64, 3), 99, np.uint8))[1].tobytes()
    assert np.array_equal(
        tensor_of_image(sound, spec, ImageRules(strict=True)), tensor_of_image(sound, spec, ImageRules())
    )
