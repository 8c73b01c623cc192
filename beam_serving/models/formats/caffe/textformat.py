"""Parses the text of a deploy `.prototxt` with protobuf, and finds the fields that the schema does not have.

    message = parse_text('layer { name: "conv1" convolution_param { pad: 1 pad: 2 } }')
    message.messages("layer")[0].message("convolution_param").integers("pad")        # [1, 2]

Forks of Caffe have fields of their own in layers that we leave out or refuse by name, so such fields are no error of
the text. protobuf skips them without a word; a second pass over its tokens says which they are.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message as Proto

from beam_serving.errors import printable
from beam_serving.models.formats.caffe.message import Message, TextError, Value
from beam_serving.models.formats.caffe.schema import NET, new_net

Path = tuple[tuple[str, int], ...]
"""From the root to a message: names of fields, each with a place among those of that name."""

MAX_TEXT_BYTES = 16 << 20
"""The largest published deploy files are below 1 MiB."""

MAX_LINE = 1 << 18
"""Characters of one line, or less for each of several: protobuf copies the whole line for every unknown value."""

MAX_DEPTH = 32
"""Messages inside messages; a layer's parameters are three deep."""

_MOST_CHARACTERS = 200
_CLOSING = {"{": "}", "<": ">"}
_OPENING, _ENDING, _QUOTES = frozenset("{<["), frozenset("}>]"), frozenset("\"'")


def parse_text(text: str) -> Message:
    """Parse a whole file into its root message.

    Raises TextError, with the line where there is one, for what is not the text format or of another type than the
    schema says, is nested deeper than `MAX_DEPTH` or is longer than `MAX_TEXT_BYTES`.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise TextError(f"{len(text)} characters of text, the limit is {MAX_TEXT_BYTES}")
    lines = text.split("\n")
    if sum(len(line) ** 2 for line in lines) > MAX_LINE**2:
        raise TextError(f"lines of up to {max(map(len, lines))} characters, wanted are shorter ones")
    net = new_net()
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
        return _message(net, _UnknownFields(lines).of(NET))
    except text_format.ParseError as err:
        raise TextError(_reason(err, lines)) from err
    except RecursionError as err:
        raise TextError(f"messages nested deeper than {MAX_DEPTH}") from err


def _message(proto: Proto, unknown: Mapping[Path, list[str]], path: Path = ()) -> Message:
    fields: dict[str, list[Value]] = {}
    for field, value in proto.ListFields():
        values = [value] if isinstance(value, bool | int | float | str | Proto) else value
        fields[field.name] = [
            _message(one, unknown, (*path, (field.name, place))) if isinstance(one, Proto) else _scalar(field, one)
            for place, one in enumerate(values)
        ]
    return Message(fields, unknown.get(path, ()))


def _scalar(field: FieldDescriptor, value: bool | int | float | str) -> Value:
    """Return a value, that of an enum as its name."""
    return value if field.enum_type is None else field.enum_type.values_by_number[int(value)].name


def _reason(err: text_format.ParseError, lines: Sequence[str]) -> str:
    """protobuf's reason with its line, where that is known, but without the column and all that stands in the line."""
    number, reason = err.GetLine(), str(err)
    if number is None:
        return f"{printable(reason)}, which is in a field that is not read"
    reason = reason.partition(" : ")[2].removeprefix(f"'{lines[number - 1]}': ").removeprefix("'': ")
    return f"line {number}: {printable(reason[:_MOST_CHARACTERS])}"


class _UnknownFields:
    """A walk over the tokens of a text that protobuf has parsed, so that their order needs no check here."""

    def __init__(self, lines: list[str]) -> None:
        self._tokens = text_format.Tokenizer(lines)
        self._found: defaultdict[Path, list[str]] = defaultdict(list)

    def of(self, root: Descriptor) -> dict[Path, list[str]]:
        """Return the names of unknown fields by the path of their message."""
        counts: Counter[str] = Counter()
        while not self._tokens.AtEnd():
            self._field(root, (), counts)
        return self._found

    def _field(self, within: Descriptor, path: Path, counts: Counter[str]) -> None:
        """Take a field; `counts` are those of its message before it, by name."""
        tokens = self._tokens
        name = tokens.ConsumeIdentifierOrNumber()
        field = within.fields_by_name.get(name)
        tokens.TryConsume(":")
        if field is None:
            self._found[path].append(name)
        if field is None or field.message_type is None:
            self._skip_value()
        else:
            is_list = tokens.TryConsume("[")
            while closing := _CLOSING.get(tokens.token):
                tokens.NextToken()
                self._fields(field.message_type, (*path, (name, counts[name])), closing)
                counts[name] += 1
                if not is_list:
                    break
                tokens.TryConsume(",")
            if is_list:
                tokens.Consume("]")
        if not tokens.TryConsume(","):
            tokens.TryConsume(";")

    def _fields(self, within: Descriptor, path: Path, closing: str) -> None:
        counts: Counter[str] = Counter()
        while not self._tokens.TryConsume(closing):
            self._field(within, path, counts)

    def _skip_value(self) -> None:
        """Take a value: a number, maybe with its sign, strings in a row, or all up to a closing bracket."""
        tokens, depth = self._tokens, 0
        while True:
            taken = tokens.token
            tokens.NextToken()
            depth += (taken in _OPENING) - (taken in _ENDING)
            if depth > MAX_DEPTH:
                raise TextError(f"messages nested deeper than {MAX_DEPTH}")
            if depth == 0 and taken != "-" and not (taken[:1] in _QUOTES and tokens.token[:1] in _QUOTES):
                return
