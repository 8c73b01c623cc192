"""Rules that an input cannot take are told at the start, and no pixel ever becomes another number without a word."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.transforms.batch_buffer import Rows
from beam_serving.transforms.image import ImageRules, check_inputs, check_rules, tensor_of_image
from tests.transforms.images import encode, noise

ALL = np.arange(256, dtype=np.uint8).reshape(16, 16)
GREY = encode(ALL, ".png")
DARK = encode(ALL // 2, ".png")
IMAGENET = ((123.675, 116.28, 103.53), (0.017125, 0.017507, 0.017429))
EXACT = ["uint8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


def spec(*shape: int | None, dtype: str = "uint8") -> TensorSpec:
    return TensorSpec("x", shape, np.dtype(dtype))


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 16, 1), (16, 16)])
def test_pixels_arrive_exactly_in_every_type_that_holds_them(dtype: str, shape: tuple[int, ...]) -> None:
    wanted = spec(*shape, dtype=dtype)
    assert check_rules(wanted, ImageRules()) is None
    tensor = tensor_of_image(GREY, wanted, ImageRules())
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.ravel().tolist() == list(range(256))


@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 16, 1), (16, 16)])
def test_a_pixel_that_the_type_does_not_have_is_refused(shape: tuple[int, ...]) -> None:
    wanted = spec(*shape, dtype="int8")
    assert tensor_of_image(DARK, wanted, ImageRules()).ravel().tolist() == [value // 2 for value in range(256)]
    with pytest.raises(RequestError) as caught:
        tensor_of_image(GREY, wanted, ImageRules())
    assert str(caught.value) == (
        "image has a pixel that mean and scale make 128, input 'x' takes int8: the service needs another mean or scale"
    )
    centred = tensor_of_image(GREY, wanted, ImageRules(mean=(128.0,)))
    assert centred.ravel().tolist() == list(range(-128, 128))
    with pytest.raises(RequestError, match="make 2, input 'x' takes bool"):
        tensor_of_image(GREY, spec(*shape, dtype="bool"), ImageRules())


@pytest.mark.parametrize(
    ("dtype", "mean", "scale", "wrong"),
    [
        ("uint8", (0.0,), (1 / 255,), "0.00392157"),
        ("uint8", (127.5,), (1.0,), "-127.5"),
        ("uint8", *IMAGENET, "-2.11793"),
        ("uint8", (1.0,), (1.0,), "-1"),
        ("uint8", (0.0,), (2.0,), "256"),
        ("int8", (127.0,), (1.0,), "128"),
        ("int64", (0.0,), (0.5,), "0.5"),
        ("int64", (0.0,), (1e30,), "1e+30"),
        ("uint64", (0.0,), (-1.0,), "-1"),
        ("bool", (0.0,), (0.5,), "0.5"),
        ("float16", (0.0,), (1000.0,), "66000"),
        ("float32", (0.0,), (1e38,), "inf"),
    ],
)
def test_numbers_that_the_type_does_not_have_are_told_at_the_start(
    dtype: str, mean: tuple[float, ...], scale: tuple[float, ...], wrong: str
) -> None:
    rules = ImageRules(mean=mean, scale=scale)
    for shape in ((3, 16, 16), (16, 16, 3)):
        said = check_rules(spec(*shape, dtype=dtype), rules)
        assert said is not None
        assert said.startswith(f"data: mean and scale make {wrong} of pixels, input 'x' takes {dtype}: ")
        if dtype != "float32":
            with pytest.raises(RequestError, match="the service needs another mean or scale"):
                tensor_of_image(GREY, spec(*shape, dtype=dtype), rules)


def test_whole_numbers_in_the_range_are_served() -> None:
    for dtype, rules in (("int8", ImageRules(mean=(128.0,))), ("int16", ImageRules(scale=(100.0,)))):
        assert check_rules(spec(3, 16, 16, dtype=dtype), rules) is None
    doubled = tensor_of_image(GREY, spec(16, 16, dtype="int16"), ImageRules(mean=(0.5,), scale=(2.0,)))
    assert doubled.ravel().tolist() == list(range(-1, 510, 2))


@given(
    some.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "int64", "float16"]),
    some.one_of(some.integers(-300, 300).map(float), some.floats(-300, 300)),
    some.one_of(some.integers(-300, 300).map(float), some.floats(-1e10, 1e10)),
)
def test_what_passes_the_start_is_served_and_nothing_else(dtype: str, mean: float, scale: float) -> None:
    """The image has every pixel: what one of them does is what the start has found."""
    rules, wanted = ImageRules(mean=(mean,), scale=(scale,)), spec(1, 16, 16, dtype=dtype)
    numbers = ((ALL - np.float32(mean)) * np.float32(scale)).reshape(1, 16, 16)
    if not rules.plain and check_rules(wanted, rules) is not None:
        with pytest.raises(RequestError):
            tensor_of_image(GREY, wanted, rules)
    elif dtype != "int8" or not rules.plain:
        tensor = tensor_of_image(GREY, wanted, rules)
        np.testing.assert_array_equal(tensor, numbers if dtype != "float16" else numbers.astype(np.float16))


@pytest.mark.parametrize(
    ("wanted", "rules", "said"),
    [
        (spec(1, 8, 8), ImageRules(mean=(1.0, 2.0, 3.0)), "data: mean has 3 values, input 'x' 1 channels"),
        (spec(4, 8, 8), ImageRules(scale=(1.0, 2.0, 3.0)), "data: scale has 3 values, input 'x' 4 channels"),
        (
            spec(None, 8, 3),
            ImageRules(layout="chw"),
            "data: layout: chw: input 'x' takes shape [any, 8, 3]; set hwc or auto",
        ),
        (
            spec(3, 8, 8),
            ImageRules(layout="hwc"),
            "data: layout: hwc: input 'x' takes shape [3, 8, 8]; set chw or auto",
        ),
        (
            spec(3, 224, 192),
            ImageRules(resize="crop", resize_to=191),
            "data: resize_to: 191: input 'x' takes 192x224 pixels, more than that; set 192 or more",
        ),
    ],
)
def test_other_rules_that_an_input_cannot_take_are_told(wanted: TensorSpec, rules: ImageRules, said: str) -> None:
    assert check_rules(wanted, rules) == said


@pytest.mark.parametrize(
    ("wanted", "rules"),
    [
        (spec(10), ImageRules(mean=(0.5,))),
        (spec(2, 8, 8), ImageRules(mean=(0.5,))),
        (spec(7, 7, 7, 7), ImageRules(layout="chw")),
        (TensorSpec("text", (3, 8, 8), STRING), ImageRules(mean=(0.5,))),
        (spec(3, 224, 224), ImageRules(resize="crop", resize_to=224)),
        (spec(3, None, 224), ImageRules(resize="crop", resize_to=8)),
        (spec(8, 8, dtype="int8"), ImageRules()),
        (spec(3, 3, 3), ImageRules(layout="hwc")),
        (spec(3, 8, 8, dtype="float32"), ImageRules(mean=IMAGENET[0], scale=IMAGENET[1])),
    ],
)
def test_what_takes_no_image_or_any_is_left_alone(wanted: TensorSpec, rules: ImageRules) -> None:
    assert check_rules(wanted, rules) is None


def test_a_model_is_refused_only_where_none_of_its_inputs_can_be_served() -> None:
    picture, matrix, tokens = spec(3, 8, 8, dtype="float32"), spec(12, 4, dtype="int64"), spec(5, dtype="int64")
    rules = ImageRules(mean=IMAGENET[0], scale=IMAGENET[1])
    assert check_inputs([matrix, picture, tokens], rules) is None
    assert check_inputs([tokens], rules) is None
    assert check_inputs([], rules) is None
    assert check_inputs([tokens, matrix], rules) == "data: mean has 3 values, input 'x' 1 channels"


def test_rows_of_a_batch_get_the_same_numbers() -> None:
    wanted, rules = spec(3, 16, 16, dtype="float32"), ImageRules(mean=(1.5,), scale=(0.1,))
    rows = Rows((3, 16, 16), np.dtype(np.float32), 2)
    np.testing.assert_array_equal(tensor_of_image(GREY, wanted, rules, rows), tensor_of_image(GREY, wanted, rules))


@pytest.mark.parametrize("name", ["linear", "area", "antialias", "auto"])
def test_the_filter_of_the_rules_is_used(name: str) -> None:
    rules = ImageRules(resize_filter=name)  # type: ignore[arg-type]
    pixels = noise(16, 16)
    small = tensor_of_image(encode(pixels, ".png"), spec(1, 4, 4), rules)[0]
    area, linear = (cv2.resize(pixels, (4, 4), interpolation=one) for one in (cv2.INTER_AREA, cv2.INTER_LINEAR))
    assert np.array_equal(small, linear) == (name in ("linear", "auto"))
    assert np.array_equal(small, area) == (name == "area")
