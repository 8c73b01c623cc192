"""Why a job ended, out of the stack traces that Java tells it with."""

from __future__ import annotations

import re

from beam_serving.errors import ConfigError, ConnectError, ModelLoadError

_OURS = re.compile(r"^(?:\w+\.)*(?P<type>\w+(?:Error|Exception)): (?P<text>.*?)(?: \[while running .*)?$", re.M)
_JAVA = re.compile(r"^(?:Caused by: )?(?:[a-z]\w*\.)+(?P<type>\w+(?:Exception|Error)): (?P<text>.+)$", re.M)
_WRAPPERS = ("RuntimeException", "ExecutionException", "CompletionException", "UncheckedExecutionException")


def raise_cause(reported: str) -> None:
    """Raise the error that a worker ended with, where it is one for the operator."""
    for found in _OURS.finditer(reported):
        for error in (ConnectError, ConfigError, ModelLoadError):
            if found["type"] == error.__name__:
                raise error(found["text"])


def telling_line(reported: str) -> str:
    """Return the line of a stack trace that tells most: its innermost cause that is no mere wrapper.

    A cause whose text an outer one repeats tells less than that.
    """
    causes = [(found["type"], found["text"].strip()) for found in _JAVA.finditer(reported)]
    telling = [text for kind, text in causes if kind not in _WRAPPERS] or [text for _, text in causes]
    if telling:
        inner = telling[-1]
        return next(text for text in telling if inner in text)[:300]
    lines = [line.strip() for line in reported.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return lines[-1][:300] if lines else ""
