"""What a model is, said without loading it: equal to what a loaded one says, and remembered."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import STRING, ModelOptions, TensorSpec
from beam_serving.models.info import ModelInfo
from beam_serving.models.opening import model_info, open_model
from beam_serving.models.store import cache_folder

DIGITS = Path(__file__).parent / "fixtures/digits/caffe"

SPECS = some.builds(
    TensorSpec,
    some.text(max_size=9),
    some.none() | some.lists(some.none() | some.integers(0, 999), max_size=4).map(tuple),
    some.sampled_from([np.dtype(name) for name in ("float32", "float16", "int64", "bool", "uint8")] + [STRING]),
    some.none() | some.integers(1, 1 << 40),
    some.booleans(),
)


@given(
    some.builds(ModelInfo, some.text(), some.lists(SPECS).map(tuple), some.lists(SPECS).map(tuple), some.integers(1))
)
def test_what_is_remembered_is_what_was_said(info: ModelInfo) -> None:
    assert ModelInfo.decode(json.loads(json.dumps(info.encode()))) == info


@pytest.mark.parametrize(
    "options", [ModelOptions(), ModelOptions(threads=2, input_names=("image",)), ModelOptions(engine="opencv")]
)
def test_a_model_is_described_as_it_is_loaded(options: ModelOptions) -> None:
    model, _, copy = open_model(DIGITS, options)
    assert model_info(DIGITS, options, 4) == ModelInfo.of(model, 4)
    if copy is not None:
        copy.close()


@pytest.mark.parametrize("options", [ModelOptions(), ModelOptions(input_shape=(2, 3), input_names=("x",))])
def test_the_model_that_computes_nothing_is_described_too(options: ModelOptions) -> None:
    model, _, _ = open_model("noop", options)
    assert model_info("noop", options, 7) == ModelInfo.of(model, 7)
    assert model_info("noop", options, None).batch_size >= 1


def test_no_engine_is_loaded_in_who_asks_and_the_second_answer_is_remembered() -> None:
    """Also where the batch size is measured."""
    program = (
        "import sys; from beam_serving.models.base import ModelOptions; from beam_serving.models.opening import "
        f"model_info; info = model_info({str(DIGITS)!r}, ModelOptions(), None); "
        "print(info.batch_size, sorted({'openvino', 'torch', 'cv2', 'apache_beam'} & set(sys.modules)))"
    )
    answers = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(answers) == 1
    assert answers.pop().endswith(" []\n")


def test_a_cache_that_holds_nonsense_is_no_answer() -> None:
    info = model_info(DIGITS, ModelOptions(), 3)
    for path in (cache_folder() / "infos").glob("*.json"):
        path.write_text('{"engine": 3, "inputs": "x"}', encoding="utf-8")
    assert model_info(DIGITS, ModelOptions(), 3) == info


def test_a_model_that_cannot_be_loaded_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"model\.onnx"):
        model_info(tmp_path, ModelOptions(), 1)
