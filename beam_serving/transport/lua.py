"""Reading Lua scripts, running them in Redis, and saying which right is missing where one is refused."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

_REFUSALS = ("ACL failure in script", "The user executing the script can't")
"""Inside a script NOPERM becomes a plain error: these texts are those of Valkey and Redis 7.2, and of older ones."""
_INCLUDE = re.compile(r"^ *-- include: (\S+)\.lua\n", re.MULTILINE)
_NAMES_COMMAND = re.compile(r"the '\S+' command")
_LINE = re.compile(r"@user_script:\s?(\d+)")
_CALL = re.compile(r"redis\.(?:p?)call\('([A-Z]+)'(?:, '([A-Z]+)')?")
_PROTECTED_CALL = re.compile(r"redis\.pcall\('([A-Z]+)'(?:, '([A-Z]+)')?")


def script(package: str, name: str, without: str = "") -> str:
    """Return the script in `name.lua` of a package; a line `-- include: other.lua` stands for that file.

    The part that is called `without` is left out.
    """
    folder = files(package)
    text = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda line: "" if line[1] == without else script(package, line[1]), text)


PUT = script(__package__, "put")
"""SET, also on a server without memory."""


def evaluate(client: redis.Redis, script: str, keys: int, *arguments: bytes | str | int | float) -> Any:
    """Run a script; `arguments` begin with as many keys.

    Raises:
        NoPermissionError: the user may not run one of its commands, which the message names.
        RedisError: the server cannot be reached or the script failed.
    """
    try:
        return client.eval(script, keys, *arguments)
    except ResponseError as err:
        raise named_refusal(script, err) from err


def named_refusal(script: str, err: ResponseError) -> ResponseError:
    """Return a refusal inside a script as what it is, with the command: servers before Redis 7.2 do not name it.

    They tell the line of the script, but where it handles the error itself.
    """
    text = str(err)
    if not any(words in text for words in _REFUSALS):
        return err
    if _NAMES_COMMAND.search(text):
        return NoPermissionError(text)
    line = _LINE.search(text)
    calls = _CALL.findall(script.splitlines()[int(line[1]) - 1]) if line else _PROTECTED_CALL.findall(script)
    names = " or ".join(dict.fromkeys("|".join(filter(None, call)).lower() for call in calls))
    return NoPermissionError(f"for the command {names!r} in a script, or a key or channel of it: {text}")
