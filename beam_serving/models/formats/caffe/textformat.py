"""Parses the protobuf text format without a schema: enough for every Caffe deploy `.prototxt`.

    message = parse_text('layer { name: "conv1" convolution_param { pad: 1 pad: 2 } }')
    message.messages("layer")[0].message("convolution_param").integers("pad")        # [1, 2]

Source: the text format language specification of protobuf. Extension names (`[a.b]`) are refused: Caffe has none.
"""

import re
from typing import NamedTuple

from beam_serving.models.formats.caffe.message import Message, Scalar, TextError

MAX_TEXT_BYTES = 16 << 20
"""The largest published deploy files are below 1 MiB."""

MAX_DEPTH = 32
"""Messages inside messages; a layer's parameters are three deep."""

_TOKEN = re.compile(
    r"""(?P<blank>(?:[\s,;]|\#[^\n]*)+)
      |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
      |(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?))
      |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      |(?P<mark>[{}<>\[\]:-])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}


class _Token(NamedTuple):
    """`kind` is name, number, string, mark, or end behind the last one."""

    kind: str
    text: str
    line: int


def parse_text(text: str) -> Message:
    """Parses a whole file into its root message.

    Raises TextError, with the line, for what is not the text format, is nested deeper than `MAX_DEPTH` or is longer
    than `MAX_TEXT_BYTES`.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise TextError(f"{len(text)} characters of text, the limit is {MAX_TEXT_BYTES}")
    return _Parser(_tokens(text)).message("", 0)


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise TextError(f"line {line}: unexpected {text[position : position + 20]!r}")
        if match.lastgroup != "blank":
            tokens.append(_Token(match.lastgroup, match.group(), line))
        line += match.group().count("\n")
        position = match.end()
    tokens.append(_Token("end", "the end of the file", line))
    return tokens


class _Parser:
    """A recursive descent over the tokens; `next` is the index of the first one not yet used."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def message(self, closing: str, depth: int) -> Message:
        """Parses fields up to `closing`, or to the end of the file where that is empty."""
        if depth > MAX_DEPTH:
            raise self._error(f"messages nested deeper than {MAX_DEPTH}")
        fields: dict[str, list[Scalar | Message]] = {}
        while not (self._take(closing) if closing else self._peek().kind == "end"):
            name = self._peek()
            if name.kind != "name":
                raise self._error(f"a field name{f' or {closing!r}' if closing else ''} was expected")
            self._next += 1
            fields.setdefault(name.text, []).extend(self._values(depth))
        return Message(fields)

    def _values(self, depth: int) -> list[Scalar | Message]:
        colon = self._take(":")
        if not self._take("["):
            return [self._value(colon, depth)]
        values: list[Scalar | Message] = []
        while not self._take("]"):
            values.append(self._value(True, depth))
        return values

    def _value(self, scalar_allowed: bool, depth: int) -> Scalar | Message:
        opening = self._peek().text
        if self._take("{") or self._take("<"):
            return self.message(_CLOSING[opening], depth + 1)
        if not scalar_allowed:
            raise self._error("':' or '{' was expected")
        return self._scalar()

    def _scalar(self) -> Scalar:
        sign = "-" if self._take("-") else ""
        token = self._peek()
        if token.kind not in ("name", "number", "string") or (sign and token.kind == "string"):
            raise self._error("a value was expected")
        self._next += 1
        if token.kind != "string":
            return Scalar(sign + token.text, quoted=False)
        parts = [_unquote(token.text)]
        while self._peek().kind == "string":
            parts.append(_unquote(self._peek().text))
            self._next += 1
        return Scalar("".join(parts), quoted=True)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, mark: str) -> bool:
        """Moves on and gives True if the next token is this mark."""
        token = self._peek()
        if token.kind != "mark" or token.text != mark:
            return False
        self._next += 1
        return True

    def _error(self, wanted: str) -> TextError:
        token = self._peek()
        return TextError(f"line {token.line}: {wanted}, not {token.text[:40]!r}")


def _unquote(token: str) -> str:
    return _ESCAPE.sub(_unescape, token[1:-1])


def _unescape(match: re.Match[str]) -> str:
    hexadecimal, octal, letter = match.groups()
    if letter is not None:
        return _ESCAPED.get(letter, letter)
    return chr(int(hexadecimal, 16) if hexadecimal else int(octal, 8))
