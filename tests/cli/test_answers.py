"""Results as text and as JSON."""

import json

import numpy as np
import pytest

from beam_serving.cli.answers import Answer, failed, json_line, table
from beam_serving.errors import ResultError, ResultTimeoutError

SCORES = {7: 0.75, 2: 0.25}


@pytest.mark.parametrize(
    ("answer", "text", "value"),
    [
        (SCORES, "7: 0.75, 2: 0.25", {"7": 0.75, "2": 0.25}),
        ({"cat": 1 / 3}, "cat: 0.333333", {"cat": 1 / 3}),
        ({}, "no class", {}),
        ({1: float("nan")}, "1: nan", {"1": None}),
        (np.array([1.5, np.inf], np.float32), "[1.5, null]", [1.5, None]),
        (np.array([[1, 2]]), "[[1, 2]]", [[1, 2]]),
        (np.zeros((3, 3), np.float32), "float32[3, 3]", [[0.0] * 3] * 3),
        (
            {"a": SCORES, "b": np.array([True])},
            "a: 7: 0.75, 2: 0.25; b: [true]",
            {"a": {"7": 0.75, "2": 0.25}, "b": [True]},
        ),
        ([np.array([1]), np.array([2])], "[1]; [2]", [[1], [2]]),
        ("größer", "'größer'", "größer"),
        ("a\x1b[2J\u202e", r"'a\x1b[2J\u202e'", "a\x1b[2J\u202e"),
        ("x" * 300, f"'{'x' * 200}…'", "x" * 300),
        (np.array([["a", "b"]], object), "'a' 'b'", [["a", "b"]]),
        (np.array(["a"] * 9, object), "string[9]", ["a"] * 9),
        ({"label": "a", "p": SCORES}, "label: 'a'; p: 7: 0.75, 2: 0.25", {"label": "a", "p": {"7": 0.75, "2": 0.25}}),
    ],
)
def test_a_result_is_shown(answer: Answer, text: str, value: object) -> None:
    assert table({"u": answer}) == f"uri  result\nu    {text}"
    assert json.loads(json_line("u", answer)) == {"uri": "u", "result": value}
    assert not failed({"u": answer})


def test_a_failure_has_its_reason() -> None:
    answers: dict[str, Answer] = {"good": SCORES, "bad": ResultError("no image"), "late": ResultTimeoutError("none")}
    assert table(answers).splitlines()[2:] == ["bad   error: no image", "late  error: none"]
    assert json_line("bad", answers["bad"]) == '{"uri": "bad", "error": "no image"}'
    assert failed(answers)


def test_a_name_that_is_no_utf_8_can_be_printed() -> None:
    assert table({"\udcff": SCORES}).encode().endswith(b"\\udcff  7: 0.75, 2: 0.25")
