"""What `top_n: auto` serves of a model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from beam_serving.models.base import STRING, TensorSpec
from beam_serving.transforms.topn import AUTO_CLASSES, served_of


class Model(NamedTuple):
    """What `served_of` looks at."""

    outputs: tuple[TensorSpec, ...]
    class_names: Mapping[str, tuple[str, ...]] = {}


def output(*shape: int | None, name: str = "prob", dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, shape, np.dtype(dtype))


@pytest.mark.parametrize(
    "one",
    [output(10), output(2), output(1, 10), output(10, 1, 1), output(4, dtype=np.float64), output(3, dtype=np.float16)],
)
def test_one_vector_of_scores_has_best_classes(one: TensorSpec) -> None:
    assert served_of(Model((one,))).post_processing.n == AUTO_CLASSES  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "outputs",
    [
        (output(1),),
        (output(),),
        (output(None),),
        (output(3, 4),),
        (TensorSpec("any", None, np.dtype(np.float32)),),
        (output(10, dtype=np.int64),),
        (output(10, dtype=STRING),),
        (output(512, name="image_embeds"),),
        (output(768, name="last_hidden_state"),),
        (output(128, name="Features"),),
        (output(10), output(10, name="other")),
        (),
    ],
)
def test_anything_else_is_served_whole(outputs: tuple[TensorSpec, ...]) -> None:
    served = served_of(Model(outputs))  # type: ignore[arg-type]
    assert served.post_processing.n == 0
    assert served.labels == ()


def test_labels_say_that_an_output_has_classes() -> None:
    served = served_of(Model((output(None, name="embedding"),)), ("a", "b"))  # type: ignore[arg-type]
    assert (served.post_processing.n, served.labels) == (AUTO_CLASSES, ("a", "b"))


def test_classes_that_the_file_names_are_ranked_and_other_outputs_are_whole() -> None:
    model = Model((output(dtype=np.int64, name="label"), output(3)), {"prob": ("cat", "dog", "bird")})
    served = served_of(model)  # type: ignore[arg-type]
    assert (served.post_processing.n, served.ranked, served.labels) == (
        AUTO_CLASSES,
        frozenset({"prob"}),
        ("cat", "dog", "bird"),
    )
