"""The text format parser takes what protobuf's own parser takes, and says where the rest goes wrong."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.models.formats.caffe.message import Message, TextError
from beam_serving.models.formats.caffe.textformat import MAX_DEPTH, parse_text


def test_fields_are_read_by_name_and_type() -> None:
    message = parse_text(
        """
        # a comment; with { marks }
        name: "net"  # behind a value
        count: 7, ratio: 1.5e-1f; on: true
        kind: MAX
        inner { size: 3 } inner: < size: 4 >
        pad: [1, 2] pad: 3
        """
    )
    assert message.text("name") == "net"
    assert message.integer("count") == 7
    assert message.real("ratio") == 0.15
    assert message.flag("on", False)
    assert message.choice("kind", {"MAX": 0, "AVE": 1}, "AVE") == "MAX"
    assert [inner.integer("size") for inner in message.messages("inner")] == [3, 4]
    assert message.integers("pad") == [1, 2, 3]
    assert message.unread() == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a" \'b\'\n"c"', "abc"),
        (r'"\n\t\\\"\x41\101"', '\n\t\\"AA'),
        ('"ünï # {"', "ünï # {"),
        ("unquoted", "unquoted"),
    ],
)
def test_strings_are_joined_and_unescaped(text: str, value: str) -> None:
    assert parse_text(f"name: {text}").text("name") == value


@pytest.mark.parametrize(("text", "value"), [("0x1F", 31), ("017", 15), ("-5", -5), ("- 5", -5), ("+3", 3), ("0", 0)])
def test_integers_may_be_hexadecimal_octal_and_signed(text: str, value: int) -> None:
    assert parse_text(f"n: {text}").integer("n") == value


@pytest.mark.parametrize("text", [".5", "0.5f", "5e-1", "0.5"])
def test_numbers_have_several_forms(text: str) -> None:
    assert parse_text(f"n: {text}").real("n") == 0.5


def test_an_enum_value_may_be_its_number() -> None:
    assert parse_text("pool: 1").choice("pool", {"MAX": 0, "AVE": 1}, "MAX") == "AVE"


def test_fields_that_nobody_asked_for_are_told_with_their_path() -> None:
    message = parse_text("a: 1 b { c: 2 d { e: 3 } } f { g: 1 }")
    message.integer("a")
    message.message("b").message("d")
    message.ignore(["f"])
    assert message.unread() == ["b.c", "b.d.e"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: ", "line 1: a value was expected, not 'the end of the file'"),
        ("a 1", "line 1: ':' or '{' was expected, not '1'"),
        ("\n\na { b: 1", "line 3: a field name or '}' was expected, not 'the end of the file'"),
        ("a { b: 1 >", "line 1: a field name or '}' was expected, not '>'"),
        ("a: 1 }", "line 1: a field name was expected, not '}'"),
        ('a: "x', "line 1: unexpected '\"x'"),
        ("a: \x00", "line 1: unexpected '\\x00'"),
        ("[ext]: 1", "line 1: a field name was expected, not '['"),
        ("a: [1, 2", "line 1: a value was expected, not 'the end of the file'"),
        ("a: -'x'", "line 1: a value was expected, not \"'x'\""),
    ],
)
def test_broken_text_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(TextError) as error:
        parse_text(text)
    assert str(error.value) == reason


def test_messages_nested_too_deep_are_refused() -> None:
    parse_text("a {" * MAX_DEPTH + "}" * MAX_DEPTH)
    with pytest.raises(TextError, match="nested deeper than 32"):
        parse_text("a {" * 100_000)


@pytest.mark.parametrize(
    ("text", "read", "reason"),
    [
        ("n: x", "integer", "field 'n' is 'x', wanted an integer below 1099511627776"),
        ("n: 99999999999999999999", "integer", "field 'n' is '99999999999999999999', wanted an integer"),
        ("n: 1.5", "integer", "field 'n' is '1.5', wanted an integer"),
        ('n: "1"', "integer", "field 'n' is '1', wanted an integer"),
        ("n: nan", "real", "field 'n' is 'nan', wanted a finite number"),
        ("n: -inf", "real", "field 'n' is '-inf', wanted a finite number"),
        ("n { }", "real", "field 'n' is a message, wanted a finite number"),
        ("n: 1", "message", "field 'n' is a value, wanted a message in braces"),
        ("n: 1 n: 2", "integer", "field 'n' is given 2 times, wanted once"),
        ("m: 1", "integer", "field 'n' is missing"),
    ],
)
def test_a_field_of_another_type_is_refused(text: str, read: str, reason: str) -> None:
    with pytest.raises(TextError) as error:
        getattr(parse_text(text), read)("n")
    assert str(error.value).startswith(reason)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(TextError):
        assert isinstance(parse_text(text), Message)


_VALUES = st.recursive(
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters='"\\'), max_size=8),
    lambda inner: st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), _VALUES, max_size=4))
def test_what_is_written_is_read_back(tree: dict[str, object]) -> None:
    check(parse_text(written(tree)), tree)


def written(tree: dict[str, object]) -> str:
    parts = [
        f"{name} {{ {written(value)} }}" if isinstance(value, dict) else f'{name}: "{value}"'
        for name, value in tree.items()
    ]
    return "\n".join(parts)


def check(message: Message, tree: dict[str, object]) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            check(message.message(name), value)
        else:
            assert message.text(name) == value
