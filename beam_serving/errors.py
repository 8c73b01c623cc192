"""Every error of the project, by who has to act on it.

    BeamServingError
    |-- ConfigError            the operator, before anything starts: exit code 2, one line
    |   `-- ModelLoadError     the model directory cannot be served; says why and what to do
    |-- ConnectError           Redis refuses us: exit code 1, one line
    |   `-- UnreachableError   it does not answer, which may heal
    |-- OutputError            results are not in files, and kept in Redis for the next drain: exit code 1, one line
    |-- RequestError           the client that sent this request: an error result
    |-- ModelError             the clients whose requests made the model fail: error results
    `-- ClientError            raised in the client's own process
        |-- InputError         what was given is no request, or above a limit (also a TypeError and a ValueError)
        |-- ImageFileError     an image file cannot be read (also an OSError)
        |-- QueueFullError     the queue takes no more; try again later
        |-- ResultError        the service answered this request with an error
        `-- ResultTimeoutError no result came in time (also a TimeoutError)

Anything else that is raised while serving is a fault of ours: it is logged whole, the entry stays pending and is
delivered again.
"""

_SHOWN_CHARS = 64


class BeamServingError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(BeamServingError):
    """The configuration cannot be used; the message names the key, the value and what is wanted."""


class ModelLoadError(ConfigError):
    """A model directory cannot be served; the message names the file, the reason and the remedy."""


class ConnectError(BeamServingError):
    """Redis cannot be reached or refuses us for good (wrong password, missing permission, wrong key type)."""


class UnreachableError(ConnectError):
    """Redis does not answer; unlike a refusal this may heal by itself."""


class OutputError(BeamServingError):
    """Results cannot be written to files; they are kept in Redis."""


class RequestError(BeamServingError):
    """One request cannot be served; its message is sent to the client as the error of its result."""


class ModelError(BeamServingError):
    """The model failed on an example, or broke its contract (row count, shape)."""


class ClientError(BeamServingError):
    """Base of what the Python client raises."""


class InputError(ClientError, TypeError, ValueError):
    """What was given is no request, cannot be sent as it is, or is above a limit; it was not queued."""


class ImageFileError(ClientError, OSError):
    """An image file cannot be read; its request was not queued."""


class QueueFullError(ClientError):
    """Redis has no room for another request; nothing was queued."""


class ResultError(ClientError):
    """The service answered with an error; `str()` is its readable reason."""


class ResultTimeoutError(ClientError, TimeoutError):
    """No result arrived within the time given."""


def printable(text: str) -> str:
    r"""Escape what has no shape of its own: control characters, escape sequences, marks that turn the direction.

    Line ends are among them, so that nothing can look like a line of ours: `"a\nb"` becomes `"a\\nb"`. A tab stays.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    return char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()


def brief(value: object) -> str:
    """Show a value that was given: as Python writes it where that is short and plain, else its type."""
    if value is None or isinstance(value, bool | float | str | bytes):
        shown = ascii(value[: _SHOWN_CHARS + 1] if isinstance(value, str | bytes) else value)
        return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."
    # Python itself refuses to write numbers of very many digits.
    return repr(value) if isinstance(value, int) and value.bit_length() <= _SHOWN_CHARS else type(value).__name__


def printable_lines(text: str) -> str:
    """Escape the lines of a text, each by itself."""
    return "\n".join(map(printable, text.split("\n")))
