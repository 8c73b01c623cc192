"""The antialiased filter is PIL's, bit by bit, in every size."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as some
from PIL import Image as PilImage

from beam_serving.transforms import antialias
from beam_serving.transforms.antialias import Window, antialiased
from beam_serving.transforms.resize import resized
from tests.transforms.images import noise


def in_pil(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(PilImage.fromarray(pixels).resize((width, height), PilImage.Resampling.BILINEAR))


SIDES = some.one_of(some.integers(1, 12), some.integers(1, 300))


@given(SIDES, SIDES, SIDES, SIDES, some.sampled_from([(), (3,), (4,)]), some.booleans(), some.integers(0, 2**32))
@example(1161, 2, 49, 71, (), False, 0)  # PIL does the height first
@example(200, 2, 300, 7, (3,), False, 0)
@example(201, 2, 100, 7, (4,), False, 0)
@example(5000, 3, 1, 1, (3,), True, 0)
@example(1, 40_000, 1, 2, (), True, 0)
@example(7, 7, 7, 7, (4,), False, 0)
def test_every_pixel_is_that_of_pil(
    height: int, width: int, tall: int, wide: int, channels: tuple[int, ...], stark: bool, seed: int
) -> None:
    pixels = noise(height, width, *channels, seed=seed)
    pixels = (pixels // 128 * 255).astype(np.uint8) if stark else pixels
    came = antialiased(pixels, Window(tall, 0, tall), Window(wide, 0, wide))
    np.testing.assert_array_equal(came, in_pil(pixels, tall, wide))


@given(SIDES, SIDES, some.sampled_from([(), (3,), (4,)]), some.data())
def test_a_part_is_cut_out_of_the_whole(
    height: int, width: int, channels: tuple[int, ...], data: some.DataObject
) -> None:
    pixels = noise(height, width, *channels)
    tall, wide = data.draw(SIDES), data.draw(SIDES)
    top, left = data.draw(some.integers(0, tall - 1)), data.draw(some.integers(0, wide - 1))
    rows = Window(tall, top, data.draw(some.integers(1, tall - top)))
    columns = Window(wide, left, data.draw(some.integers(1, wide - left)))
    part = in_pil(pixels, tall, wide)[top : top + rows.wanted, left : left + columns.wanted]
    np.testing.assert_array_equal(antialiased(pixels, rows, columns), part)


def test_a_very_long_image_gets_no_pixel_above_white() -> None:
    white = np.full((1, 3_000_000), 255, np.uint8)
    assert antialiased(white, Window(1, 0, 1), Window(2, 0, 2)).tolist() == [[255, 255]]


def in_torchvision(pixels: np.ndarray, resize_to: int, size: int) -> np.ndarray:
    """Does what torchvision's Resize(resize_to) and CenterCrop(size) do with an image of PIL.

    The sizes and the offsets are those of its `_compute_resized_output_size` and `center_crop`.
    """
    height, width = pixels.shape[:2]
    short, long = min(height, width), max(height, width)
    new_long = int(resize_to * long / short)
    wide, tall = (resize_to, new_long) if width <= height else (new_long, resize_to)
    top, left = int(round((tall - size) / 2.0)), int(round((wide - size) / 2.0))  # noqa: RUF046
    return in_pil(pixels, tall, wide)[top : top + size, left : left + size]


@given(some.integers(1, 400), some.integers(1, 400), some.integers(1, 60), some.integers(0, 60), some.booleans())
@example(375, 500, 224, 32, True)
@example(500, 333, 224, 32, True)
@example(97, 31, 31, 0, False)
def test_crop_is_what_torchvision_makes(height: int, width: int, size: int, more: int, color: bool) -> None:
    pixels = noise(height, width, *((3,) if color else ()))
    came = resized(pixels, size, size, "crop", size + more, "antialias")
    np.testing.assert_array_equal(came, in_torchvision(pixels, size + more, size))


@pytest.mark.parametrize("rule", ["stretch", "fit"])
def test_the_other_rules_take_the_filter_too(rule: str) -> None:
    pixels = noise(90, 120, 3)
    came = resized(pixels, 30, 40, rule, None, "antialias")  # type: ignore[arg-type]
    np.testing.assert_array_equal(came, in_pil(pixels, 30, 40))


@pytest.mark.parametrize("rows", [Window(400, 37, 90), Window(64, 20, 20), Window(9, 4, 1), Window(100, 98, 2)])
def test_rows_that_are_not_seen_change_nothing(rows: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 70, 3), np.uint8)
    whole = antialiased(pixels, rows, Window(30, 5, 20))
    monkeypatch.setattr(antialias, "_MOST_NARROWED", 0)
    np.testing.assert_array_equal(antialiased(pixels, rows, Window(30, 5, 20)), whole)
    monkeypatch.setattr(antialias, "_MOST_SHRUNK", 0)
    monkeypatch.setattr(antialias, "_MOST_CACHED_WEIGHTS", 0)
    np.testing.assert_array_equal(antialiased(pixels, rows, Window(30, 5, 20)), whole)


def test_alpha_is_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    whole = antialiased(pixels, Window(20, 0, 20), Window(20, 0, 20))
    monkeypatch.setattr(antialias, "_MOST_AT_ONCE", 7)
    np.testing.assert_array_equal(antialiased(pixels, Window(20, 0, 20), Window(20, 0, 20)), whole)
