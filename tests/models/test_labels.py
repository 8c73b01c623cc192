import json
from pathlib import Path

import numpy as np
import pytest

from beam_serving.errors import ConfigError
from beam_serving.models.base import TensorSpec
from beam_serving.models.engines.noop import NoopModel
from beam_serving.models.labels import check_labels, read_labels

INDEX_WANTED = 'wanted is {"0": "name"} or {"0": ["id", "name"]} with each class from 0 on'


def written(path: Path, text: str) -> str:
    (path / "labels").write_text(text, encoding="utf-8")
    return str(path / "labels")


@pytest.mark.parametrize(
    "index",
    [
        {"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "blåhaj"]},  # Keras: imagenet_class_index.json
        {"2": "blåhaj", "0": "cat", "1": "dog"},  # TorchServe: index_to_name.json
        {"0": ["cat"], "1": ["dog"], "2": ["blåhaj"]},
        {"object_type_names": {"0": "cat", "1": "dog", "2": "blåhaj"}},  # TorchServe's object detector
    ],
)
def test_labels_are_a_json_index(tmp_path: Path, index: dict[str, object]) -> None:
    for ensure_ascii in (True, False):
        assert read_labels(written(tmp_path, json.dumps(index, ensure_ascii=ensure_ascii))) == ("cat", "dog", "blåhaj")


@pytest.mark.parametrize(
    "text", ["cat\ndog\nblåhaj\n", "cat\r\n dog \nblåhaj", '["cat", "dog", "blåhaj"]', "cat\ndog\nblåhaj\n\n\n"]
)
def test_labels_are_lines_or_a_json_list(tmp_path: Path, text: str) -> None:
    assert read_labels(written(tmp_path, text)) == ("cat", "dog", "blåhaj")


def test_without_a_file_there_are_no_labels() -> None:
    assert read_labels(None) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no labels; wanted is one name per line"),
        ("[]", "has no labels; wanted is one name per line"),
        ("a\n\nb", 'label 2 is "", wanted is a name for each class'),
        ('["a", 1]', "label 2 is 1, wanted is a name for each class"),
        ("{}", "has no labels; wanted is one name per line"),
        ('{"0": "a", "2": "c"}', f"has 2 classes up to 2; missing: 1; {INDEX_WANTED}"),
        ('{"5": "f", "9": "j"}', f"has 2 classes up to 9; missing: 0, 1; {INDEX_WANTED}"),
        (
            json.dumps({str(n): "x" for n in range(5, 15)}),
            f"has 10 classes up to 14; missing: 0, 1, 2, ...; {INDEX_WANTED}",
        ),
        ('{"0": "a", "0": "b"}', f"class 0 stands there twice; {INDEX_WANTED}"),
        ('{"0": "a", "00": "b"}', f"class 0 stands there twice; {INDEX_WANTED}"),
        ('{"tench": 0}', f'"tench" is the number of no class; {INDEX_WANTED}'),
        ('{"-1": "a"}', f'"-1" is the number of no class; {INDEX_WANTED}'),
        ('{"0": 5}', f"class 0 is 5; {INDEX_WANTED}"),
        ('{"0": ["a", "b", "c"]}', f'class 0 is ["a", "b", "c"]; {INDEX_WANTED}'),
        ('{"0": {"name": "a"}}', f'class 0 is {{"name": "a"}}; {INDEX_WANTED}'),
        ('["a", {"b": 1}]', 'label 2 is {"b": 1}, wanted is a name for each class'),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read_labels(path)
    assert str(refused.value) == f"{path}: {said}"


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as refused:
            read_labels(str(path))
        assert str(refused.value) == f"{path}: cannot be read as labels ({reason}); wanted is one name per line"
    with pytest.raises(ConfigError, match="cannot be read as labels"):
        read_labels(written(tmp_path, '["a", '))


def test_there_is_one_label_per_class(tmp_path: Path) -> None:
    path = written(tmp_path, "a\nb\n")
    model = NoopModel()
    model.outputs = tuple(TensorSpec(name, (size,), np.dtype(np.float32)) for name, size in (("x", 3), ("y", 4)))

    with pytest.raises(ConfigError) as refused:
        check_labels(path, model.outputs)
    counted = "output 'x' has 3, output 'y' has 4 classes"
    assert str(refused.value) == f"{path}: has 2 labels, {counted}; wanted is one name per class"

    model.outputs = (TensorSpec("x", (2,), np.dtype(np.float32)), TensorSpec("y", (4,), np.dtype(np.float32)))
    check_labels(path, model.outputs)
    model.outputs = (TensorSpec("x", (None,), np.dtype(np.float32)),)
    check_labels(path, model.outputs)
    check_labels(None, model.outputs)
