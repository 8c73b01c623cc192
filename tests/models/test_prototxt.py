import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.models.prototxt import Message, NetInput, net_inputs, parse

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
SCALARS = st.from_regex(r"[A-Za-z0-9.+-]{1,8}", fullmatch=True) | st.text("ab {}#:\t,;<>[]'", max_size=8)
MESSAGES = st.recursive(
    st.lists(st.tuples(NAMES, SCALARS), max_size=4),
    lambda inner: st.lists(st.tuples(NAMES, SCALARS | inner), max_size=4),
    max_leaves=12,
)


def written(message: Message) -> str:
    parts = []
    for name, value in message:
        parts.append(f"{name} {{ {written(value)} }}" if isinstance(value, list) else f'{name}: "{value}"')
    return "\n".join(parts)


@given(MESSAGES)
def test_what_is_written_is_parsed(message: Message) -> None:
    assert parse(written(message)) == message


@given(st.text('ab1 :{}[]<>,;"#\n', max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


def test_comments_lists_and_both_kinds_of_brackets_are_read() -> None:
    text = "name: 'net' # a comment: {\nshape < dim: [1, 3], dim: 4 >; layer: { top: \"a\" }"

    assert parse(text) == [
        ("name", "net"),
        ("shape", [("dim", "1"), ("dim", "3"), ("dim", "4")]),
        ("layer", [("top", "a")]),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer {", "the text ends before the '}' of a message"),
        ("name:", "'the end' stands where the value of 'name' is wanted"),
        ("name }", "'}' follows 'name', where ':' or '{' is wanted"),
        ("3: 4", "'3' stands where a field's name is wanted"),
        ("dim: [1, 2", "the text ends in the list of 'dim'"),
        ('a: 1\nname: "net', "line 2 has an unfinished string"),
        ("a {" * 60, "messages are nested more than 50 deep"),
    ],
)
def test_what_is_no_message_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parse(text)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        (
            'layer { type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 9 } } }',
            [NetInput("data", (1, 3, 8, 9))],
        ),
        (
            'layer { type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 3 } } }',
            [NetInput("a", (1, 3)), NetInput("b", (1, 3))],
        ),
        ('input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 9', [NetInput("data", (1, 3, 8, 9))]),
        (
            'input: "a" input_shape { dim: 1 dim: 3 } layer { type: "ReLU" bottom: "a" top: "b" }',
            [NetInput("a", (1, 3))],
        ),
        ('layer { type: "Data" top: "data" top: "label" }', [NetInput("data", None)]),
        ('layer { type: "ReLU" bottom: "a" top: "b" }', []),
    ],
)
def test_the_inputs_of_a_net_are_found(text: str, inputs: list[NetInput]) -> None:
    assert net_inputs(parse(text)) == inputs
