"""Inputs of text: from whatever a client can send to an array of strings."""

import base64

import numpy as np
import pytest

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.records import Image, Payload, ProtocolVersion
from beam_serving.transforms.decode import tensors_for
from beam_serving.transforms.image import ImageRules

ONE = (TensorSpec("text", (), STRING),)
MANY = (TensorSpec("text", (None,), STRING),)


def decoded(value: Image | np.ndarray, inputs: tuple[TensorSpec, ...], protocol: ProtocolVersion) -> np.ndarray:
    return tensors_for(Payload(b"a", {"text": value}, protocol), inputs, ImageRules())["text"]


@pytest.mark.parametrize("dtype", [object, str])
def test_a_list_of_texts_goes_to_an_input_of_many(dtype: type) -> None:
    tensor = decoded(np.array(["a", "bc"], dtype), MANY, ProtocolVersion.ARROW)

    assert tensor.dtype == STRING
    assert tensor.tolist() == ["a", "bc"]


def test_a_list_of_one_text_goes_to_an_input_of_one() -> None:
    tensor = decoded(np.array(["abc"], object), ONE, ProtocolVersion.ARROW)

    assert tensor.shape == ()
    assert tensor.item() == "abc"


def test_a_text_that_looks_like_an_image_is_a_text_again() -> None:
    # "cats" is valid base64, so that the wire takes it for an image.
    image = Image(base64.b64decode("cats"))

    assert decoded(image, ONE, ProtocolVersion.ARROW).item() == "cats"
    assert decoded(image, MANY, ProtocolVersion.ARROW).tolist() == ["cats"]


def test_a_model_that_decodes_images_itself_gets_the_file() -> None:
    assert decoded(Image(b"\xff\xd8file"), ONE, ProtocolVersion.NATIVE).item() == b"\xff\xd8file"


def test_numbers_are_no_text_and_text_is_no_number() -> None:
    with pytest.raises(RequestError, match="input 'text' has type float32, the model takes string"):
        decoded(np.zeros((2,), np.float32), MANY, ProtocolVersion.ARROW)
    number = (TensorSpec("text", (None,), np.dtype(np.float32)),)
    with pytest.raises(RequestError, match="input 'text' has type string, the model takes float32"):
        decoded(np.array(["1"], object), number, ProtocolVersion.ARROW)


def test_a_text_that_stands_alone_goes_to_an_input_of_one() -> None:
    text = np.array("abc", object)
    for shape in ((), (1,), (1, 1), (None,), (None, 1)):
        tensor = decoded(text, (TensorSpec("text", shape, STRING),), ProtocolVersion.NATIVE)
        assert (tensor.shape, tensor.item()) == ((1,) * len(shape), "abc")
    with pytest.raises(RequestError, match=r"input 'text' has shape \[\], the model takes \[3\]"):
        decoded(text, (TensorSpec("text", (3,), STRING),), ProtocolVersion.NATIVE)


def test_a_path_where_an_image_belongs_is_told_what_to_do() -> None:
    picture = (TensorSpec("text", (3, 4, 4), np.dtype(np.float32)),)
    with pytest.raises(RequestError) as caught:
        decoded(np.array("cat.jpg", object), picture, ProtocolVersion.NATIVE)
    assert str(caught.value) == (
        "request 'a': input 'text' has type string, the model takes float32; an image is sent as the bytes of its "
        "file, not as its path"
    )


def test_too_many_texts_are_refused() -> None:
    with pytest.raises(RequestError, match=r"input 'text' has shape \[2\], the model takes \[\]"):
        decoded(np.array(["a", "b"], object), ONE, ProtocolVersion.ARROW)
