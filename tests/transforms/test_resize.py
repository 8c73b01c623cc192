"""Resizing, against PIL as the independent reference: ImageNet models were trained on what PIL makes."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage

from beam_serving.models.base import TensorSpec
from beam_serving.transforms import resize
from beam_serving.transforms.image import ImageRules, tensor_of_image
from beam_serving.transforms.resize import Filter, resized
from tests.transforms.images import noise

FLOAT32 = np.dtype(np.float32)
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
IMAGENET = ImageRules(color="rgb", mean=MEAN, scale=tuple(1 / one for one in DEVIATION), resize="crop", resize_to=256)


def scene(height: int, width: int) -> np.ndarray:
    """A smooth image in RGB, another in each channel, with edges."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [
        np.sin(9 * x + 4 * y),
        np.cos(7 * y - 3 * x),
        np.where((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06, 1.0, -0.7),
    ]
    return np.stack([np.round((one + 1) * 127.5) for one in channels], axis=2).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PilImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def reference(pixels: np.ndarray, resize_to: int, size: int) -> np.ndarray:
    """What torchvision does for its ImageNet models: Resize(256), CenterCrop(224), ToTensor, Normalize; in PIL."""
    image = PilImage.fromarray(pixels)
    width, height = image.size
    wide, tall = (
        (resize_to, int(resize_to * height / width))
        if width < height
        else (
            int(resize_to * width / height),
            resize_to,
        )
    )
    image = image.resize((wide, tall), PilImage.Resampling.BILINEAR)
    left, top = round((wide - size) / 2), round((tall - size) / 2)
    values = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
    return ((values - np.float32(MEAN)) / np.float32(DEVIATION)).transpose(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 427), (300, 300), (200, 1000), (180, 240)])
def test_an_image_for_an_imagenet_model_is_what_torchvision_makes_of_it(height: int, width: int) -> None:
    pixels = scene(height, width)

    tensor = tensor_of_image(png(pixels), TensorSpec("x", (3, 224, 224), FLOAT32), IMAGENET)

    wanted = reference(pixels, 256, 224)
    difference = np.abs(tensor - wanted) * np.float32(DEVIATION)[:, None, None]
    assert tensor.shape == wanted.shape
    assert difference.mean() < 1.0, "of 255 levels"
    stretched = ImageRules("rgb", mean=MEAN, scale=IMAGENET.scale)
    other = tensor_of_image(png(pixels), TensorSpec("x", (3, 224, 224), FLOAT32), stretched)
    assert np.abs(other - wanted).mean() > 3 * np.abs(tensor - wanted).mean()


def test_a_classifier_gets_the_class_right_with_crop_and_wrong_without() -> None:
    """Its weights are the picture itself and a mirrored one: only what it was trained on looks like the first."""
    pixels = scene(300, 500)
    right = reference(pixels, 256, 224).reshape(-1)
    wrong = reference(np.ascontiguousarray(pixels[:, ::-1]), 256, 224).reshape(-1)
    spec = TensorSpec("x", (3, 224, 224), FLOAT32)
    tensor = tensor_of_image(png(pixels), spec, IMAGENET).reshape(-1)
    swapped = tensor_of_image(png(pixels), spec, ImageRules("bgr", "auto", MEAN, IMAGENET.scale)).reshape(-1)

    distance = np.linalg.norm(tensor - right)

    assert distance < 0.2 * np.linalg.norm(tensor - wrong)
    assert distance < 0.2 * np.linalg.norm(swapped - right)


def test_nhwc_models_get_the_same_numbers() -> None:
    encoded = png(scene(300, 400))
    planes = tensor_of_image(encoded, TensorSpec("x", (3, 224, 224), FLOAT32), IMAGENET)
    rows = tensor_of_image(encoded, TensorSpec("x", (224, 224, 3), FLOAT32), IMAGENET)

    np.testing.assert_allclose(rows.transpose(2, 0, 1), planes, atol=1e-5)


def test_fit_keeps_the_ratio_and_fills_with_black() -> None:
    white = np.full((50, 100, 3), 255, np.uint8)

    fitted = resized(white, 40, 40, "fit")

    assert fitted.shape == (40, 40, 3)
    assert fitted[10:30].min() == 255
    assert fitted[:10].max() == fitted[30:].max() == 0


def test_crop_without_a_size_takes_the_largest_middle() -> None:
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = 200

    assert resized(pixels, 10, 10, "crop").min() == 200


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (7, 3), (224, 224), (225, 223)])
@pytest.mark.parametrize("rule", ["stretch", "fit", "crop"])
@pytest.mark.parametrize("shorter_side", [None, 8, 300])
def test_every_image_gets_the_size(height: int, width: int, rule: str, shorter_side: int | None) -> None:
    pixels = np.full((height, width, 3), 9, np.uint8)

    assert resized(pixels, 32, 48, rule, shorter_side).shape == (32, 48, 3)  # type: ignore[arg-type]


def test_stretch_is_what_the_older_servers_did() -> None:
    pixels = scene(50, 80)

    np.testing.assert_array_equal(resized(pixels, 32, 32, "stretch"), cv2.resize(pixels, (32, 32)))


@pytest.mark.parametrize("filter_", ["linear", "area"])
@pytest.mark.parametrize(("height", "width", "side"), [(1, 200, 8), (200, 1, 8), (3, 301, 9), (40, 4000, 40)])
def test_taking_the_middle_first_gives_the_same_pixels(
    height: int, width: int, side: int, filter_: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise(height, width, 3)
    whole = resized(pixels, side, side, "crop", None, filter_)
    monkeypatch.setattr(resize, "_MOST_WHOLE", 0)
    part = resized(pixels, side, side, "crop", None, filter_)
    assert part.shape == whole.shape == (side, side, 3)
    np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize("shorter_side", [None, 9, 13])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 311), (311, 7), (5, 400), (90, 91)])
def test_taking_the_middle_first_keeps_its_place(
    height: int, width: int, shorter_side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = cv2.resize(noise(3, 3, 3), (width, height), interpolation=cv2.INTER_LINEAR)
    whole = resized(smooth, 8, 8, "crop", shorter_side, "linear")
    monkeypatch.setattr(resize, "_MOST_WHOLE", 0)
    part = resized(smooth, 8, 8, "crop", shorter_side, "linear")
    assert part.shape == whole.shape
    assert np.abs(part.astype(int) - whole).mean() < 3
