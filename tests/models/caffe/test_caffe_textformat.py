"""protobuf parses the text; what it skips is found, and what is wrong is told with its line."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.models.formats.caffe.message import Message, TextError
from beam_serving.models.formats.caffe.textformat import MAX_DEPTH, MAX_LINE, parse_text


def layer(text: str) -> Message:
    return parse_text(f"layer {{ {text} }}").message("layer")


def pooling(text: str) -> Message:
    return layer(f"pooling_param {{ {text} }}").message("pooling_param")


def test_fields_are_read_by_name_and_type() -> None:
    net = parse_text(
        """
        # a comment; with { marks }
        input: "data"  # behind a value
        input_dim: 7, input_dim: [1, 2]; input_dim: []
        state < level: 3 >
        layer { top: "a" prior_box_param { offset: 1.5e-1f clip: true } } layer: < pooling_param { pool: AVE } >
        layer: [{ top: "c" }, < top: "d" >]
        """
    )
    assert net.text("input") == "data"
    assert net.integers("input_dim") == [7, 1, 2]
    assert net.message("state").integer("level") == 3
    boxes, pool, *others = net.messages("layer")
    assert boxes.message("prior_box_param").real("offset") == 0.15
    assert boxes.message("prior_box_param").flag("clip", False)
    assert pool.message("pooling_param").choice("pool", "MAX") == "AVE"
    assert [other.texts("top") for other in others] == [["c"], ["d"]]
    assert boxes.texts("top") == ["a"]
    assert net.unread() == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a" \'b\'\n"c"', "abc"),
        (r'"\n\t\\\"\x41\101"', '\n\t\\"AA'),
        ('"ünï # {"', "ünï # {"),
        (r'"\303\274"', "ü"),
    ],
)
def test_strings_are_joined_and_unescaped(text: str, value: str) -> None:
    assert layer(f"name: {text}").text("name") == value


@pytest.mark.parametrize(("text", "value"), [("0x1F", 31), ("017", 15), ("-5", -5), ("0", 0)])
def test_integers_may_be_hexadecimal_octal_and_negative(text: str, value: int) -> None:
    assert pooling(f"pad: {text}").integer("pad") == value


@pytest.mark.parametrize("text", [".5", "0.5f", "5e-1", "0.5"])
def test_numbers_have_several_forms(text: str) -> None:
    assert layer(f"elu_param {{ alpha: {text} }}").message("elu_param").real("alpha") == 0.5


def test_an_enum_value_may_be_its_number() -> None:
    assert pooling("pool: 1").choice("pool", "MAX") == "AVE"


def test_a_field_that_is_missing_has_a_default_or_is_wanted() -> None:
    assert pooling("").integer("pad", 3) == 3
    assert pooling("").choice("pool", "MAX") == "MAX"
    with pytest.raises(TextError, match="field 'pad' is missing"):
        pooling("").integer("pad")


def test_fields_that_nobody_asked_for_are_told_with_their_path() -> None:
    net = parse_text(
        """
        layer { top: "a" mine: -1 ours: "x" 'y' theirs { more { than: [1, 2] } } relu_param { slope: 1 } }
        layer { name: "b" filler: [{ of { d: 1 } }, { e: 2 }] pooling_param { pad: 1 stride: 2 fast: true } nobody <> }
        layr: 1
        """
    )
    first, second = net.messages("layer")
    first.message("relu_param")
    assert first.unread() == ["top", "relu_param.slope", "mine", "ours", "theirs"]
    second.text("name")
    second.message("pooling_param").integer("pad")
    second.ignore(["filler"])
    assert second.unread() == ["pooling_param.stride", "pooling_param.fast", "nobody"]
    assert net.unread()[-1] == "layr"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("input_dim: ", "line 1: Couldn't parse integer: "),
        ("layer 1", 'line 1: Expected "{".'),
        ("\n\nlayer { name: 'b'", 'line 3: Expected "}".'),
        ("layer { name: 'b' >", "line 1: Expected identifier or number, got >."),
        ("input_dim: 1 }", "line 1: Expected identifier or number, got }."),
        ('input: "x', "line 1: String missing ending quote: '\"x'"),
        ("input: \x00", r"line 1: Expected string but found: '\x00'"),
        ("[ext]: 1", 'line 1: Message type "beam_serving.caffe.Net" does not have extensions.'),
        ("input_dim: [1, 2", 'line 1: Expected ",".'),
        ("layer { top: x }", "line 1: Expected string but found: 'x'"),
        ("input_dim: 99999999999999999999", "line 1: Value out of range: 99999999999999999999"),
        ("input_dim: 1.5", "line 1: Couldn't parse integer: 1.5"),
        ('input_dim: "1"', 'line 1: Couldn\'t parse integer: "1"'),
        ("layer { phase: X }", 'line 1: Enum type "beam_serving.caffe.Phase.Value" has no value named X.'),
        ("a: -'x'", "Invalid field value: -, which is in a field that is not read"),
    ],
)
def test_broken_text_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(TextError) as error:
        parse_text(text)
    assert str(error.value) == reason


@pytest.mark.parametrize("value", ["nan", "-inf", "1e999"])
def test_a_number_that_is_not_finite_is_refused(value: str) -> None:
    param = layer(f"elu_param {{ alpha: {value} }}").message("elu_param")
    with pytest.raises(TextError, match=r"field 'alpha' is (nan|-?inf), wanted a finite number"):
        param.real("alpha")


def test_an_integer_beyond_all_sizes_is_refused() -> None:
    with pytest.raises(TextError, match=f"field 'pad' is {1 << 40}, wanted an integer below {1 << 40}"):
        pooling(f"pad: {1 << 40}").integer("pad")


@pytest.mark.parametrize("opening", ["a {", "layers { layer {", "a: [{ b ", "layer { a <"])
def test_messages_nested_too_deep_are_refused(opening: str) -> None:
    with pytest.raises(TextError, match=r"nested deeper than 32|Expected|Invalid"):
        parse_text(f"{opening}\n" * 100_000)


def test_messages_may_be_nested_up_to_the_limit() -> None:
    assert parse_text("a {" * MAX_DEPTH + "}" * MAX_DEPTH).unread() == ["a"]
    with pytest.raises(TextError, match="nested deeper than 32"):
        parse_text("a {" * (MAX_DEPTH + 1) + "}" * (MAX_DEPTH + 1))


def test_a_long_line_takes_no_longer_than_short_ones() -> None:
    started = time.monotonic()
    with pytest.raises(TextError, match="lines of up to 4000000 characters, wanted are shorter ones"):
        parse_text("a:1 " * 1_000_000)
    assert len(parse_text("a:1 " * (MAX_LINE // 4)).unread()) == MAX_LINE // 4
    assert time.monotonic() - started < 30


def test_a_message_does_not_repeat_a_whole_line() -> None:
    with pytest.raises(TextError) as error:
        parse_text("input_dim: " + "9" * 5000)
    assert len(str(error.value)) < 300


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(TextError):
        assert isinstance(parse_text(text), Message)


_WORDS = [
    "layer",
    "layers",
    "a",
    "top",
    "pad",
    "pooling_param",
    ":",
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ",",
    "-",
    "1",
    "'x'",
]


@given(st.lists(st.sampled_from(_WORDS), max_size=40))
def test_any_order_of_words_is_parsed_or_refused(words: list[str]) -> None:
    with suppress(TextError):
        parse_text(" ".join(words)).unread()


@given(st.lists(st.text(st.characters(exclude_characters='"\\\n\x00', exclude_categories=["Cs"]), max_size=8)))
def test_what_is_written_is_read_back(names: list[str]) -> None:
    assert layer("\n".join(f'top: "{name}"' for name in names)).texts("top") == names
