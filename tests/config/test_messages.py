"""What is said of a wrong value: where it stands, what was wanted and what came, in words of ours for every key."""

import re
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.config.overrides import variable_of
from beam_serving.config.schema import Settings, all_keys, checked, translated
from beam_serving.config.wanted import given as shown
from beam_serving.config.wanted import wanted
from beam_serving.config.yaml_file import parse_yaml
from beam_serving.errors import ConfigError

WRONG = {
    "null": "[null]",
    "a list": "[[[x]]]",
    "an empty list": "[]",
    "a mapping": "{a: {b: {c: 1}}}",
    "an empty mapping": "{}",
    "numbers for keys": "{1: 2}",
    "true": "yes",
    "false": "off",
    "a word": "'no such word!'",
    "nothing in quotes": "''",
    "a blank": "' '",
    "zero": "0",
    "negative": "-7",
    "a negative fraction": "-0.5",
    "a fraction": "1.5",
    "not a number": ".nan",
    "infinite": ".inf",
    "minus infinite": "-.inf",
    "too large": "1e300",
    "a long number": "123456789012345678901234567890",
    "a number too long for Python": f"0x{'f' * 5000}",
    "digits in quotes": f"'{'9' * 5000}'",
    "a date": "2026-11-30",
    "a time": "2026-11-30 12:00:00",
    "bytes": "!!binary aGVsbG8=",
    "a set": "!!set {a, b}",
    "half a character": r'"\ud800"',
    "a list of lists": "[[1, [2]], {a: 1}]",
    "a long text": f"'{'x' * 3000}'",
    "one that everything is in": "[1, a, null, true, {b: []}, .nan]",
}
FOREIGN = re.compile(
    r"Input should|Value error|Field required|Extra inputs|valid (string|integer|number|boolean|dictionary|tuple)|"
    r"unable to|pydantic|instance of|String should|\b(str|int|float|bool|dict|list|tuple|NoneType|None|True|False|"
    r"datetime|bytes|Decimal)\b(?!\w)|Traceback|<class|object at|Exceeds the limit|sys\."
)
FIELDS = all_keys()


def answer(text: str, sets: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> Settings | str:
    """Gives the settings, or what is said of them."""
    try:
        file = parse_yaml(Path("config.yaml"), text, {})
        return checked(translated(file, sets, environment or {}))
    except ConfigError as err:
        return str(err)


def written(key: str, value: str) -> str:
    section, _, name = key.partition(".")
    if not name:
        return f"model:\n  path: m\n{key}: {value}\n"
    path = "" if key == "model.path" else "  path: m\n"
    return f"model:\n{path}" + (f"  {name}: {value}\n" if section == "model" else f"{section}:\n  {name}: {value}\n")


def is_ours(line: str) -> bool:
    """Tells whether a message has only words of ours, leaving out what was given."""
    said, _, got = line.partition(" (got ")
    return not FOREIGN.search(said.replace("list or mapping of YAML", "")) and not re.search(
        r"\b(None|True|False)\b", got
    )


@pytest.mark.parametrize("key", FIELDS)
@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_told_in_words_of_ours(key: str, value: str) -> None:
    said = answer(written(key, value))
    if isinstance(said, Settings):
        return
    line = 3 if key in ("name",) or (key.startswith("model.") and key != "model.path") else 4
    line = 2 if key == "model.path" else line
    assert re.match(rf"config\.yaml:{line}: {re.escape(key)}: (wants|says|goes|a Redis|is no|has|.*stream)", said), said
    assert " (got " in said, said
    assert len(said) < 600
    assert "\n" not in said
    assert is_ours(said), said


@pytest.mark.parametrize("key", FIELDS)
def test_every_key_refuses_something(key: str) -> None:
    answers = [answer(written(key, value)) for value in WRONG.values()]
    assert any(isinstance(one, str) for one in answers)
    assert isinstance(answer(written(key, "[[{}]]")), str)


@pytest.mark.parametrize("key", FIELDS)
@pytest.mark.parametrize("value", ["[[[x]]]", "{a: {b: 1}}", "-7", ".nan", "1e300", "9" * 5000, "\ud800", "{", "[a"])
@pytest.mark.parametrize("how", ["--set", "variable"])
def test_a_wrong_value_from_beside_the_file_is_told_alike(key: str, value: str, how: str) -> None:
    variable = variable_of(key)
    of_set = answer("model: {path: m}", (f"{key}={value}",))
    said = of_set if how == "--set" else answer("model: {path: m}", environment={variable: value})
    if isinstance(said, Settings):
        return
    where = f"--set {key}" if how == "--set" else f"environment variable {variable}"
    assert said.startswith(f"{where}: "), said
    assert " (got " in said
    assert is_ours(said), said


@pytest.mark.parametrize("section", [name for name in Settings.model_fields if name != "name"])
@pytest.mark.parametrize("value", ["5", "[a]", "text", "yes", ".nan", "2026-11-30"])
def test_a_section_that_is_none_is_told_in_words_of_ours(section: str, value: str) -> None:
    text = f"model: {{path: m}}\n{section}: {value}\n" if section != "model" else f"\n{section}: {value}\n"
    said = answer(text)
    assert isinstance(said, str)
    assert said.startswith(f"config.yaml:2: {section}: wants keys with values below it, indented")
    assert is_ours(said), said


def test_every_key_says_what_it_wants() -> None:
    for name, field in Settings.model_fields.items():
        assert wanted(field).startswith("wants "), name
        if name != "name":
            kind: Any = field.annotation
            for key, inner in kind.model_fields.items():
                said = wanted(inner)
                assert said.startswith("wants "), key
                assert is_ours(said), said


def test_a_type_of_key_without_words_is_a_mistake_here() -> None:
    from pydantic.fields import FieldInfo

    with pytest.raises(TypeError, match="wants a description"):
        wanted(FieldInfo(annotation=types.ModuleType))


PLAIN = some.none() | some.booleans() | some.floats() | some.integers() | some.dates() | some.binary()


@given(some.recursive(PLAIN, lambda of: some.lists(of) | some.dictionaries(some.integers(), of)))
def test_whatever_came_is_shown_without_words_of_python(value: object) -> None:
    assert not re.search(r"None|True|False|datetime", shown(value))


def test_values_that_hold_much_are_cut_short() -> None:
    much: list[Any] = ["x" * 1000] * 1000
    for _ in range(50):
        much = [much, much]  # would be 2^50 texts
    assert len(shown(much)) < 5000
    assert shown(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, ...]"
    assert shown("x" * 100) == f"'{'x' * 60}...'"
    assert shown(10**5000) == "a number with many digits"
