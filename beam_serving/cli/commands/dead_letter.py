"""Dead letters on the command line: what was given up and why, queued again or removed."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click
import redis

from beam_serving.cli.arguments import Group, json_option, run, with_examples
from beam_serving.cli.place import Configuration, config_option, settings_at, src_option
from beam_serving.cli.tables import listed
from beam_serving.cli.terminal import say
from beam_serving.errors import ConfigError, printable
from beam_serving.io.dead_letters import DeadLetter, contents, count_dead_letters, drop, read_dead_letters, retry

if TYPE_CHECKING:
    from beam_serving.config.schema import Settings

_F = TypeVar("_F", bound=Callable[..., object])
_ID = re.compile(r"\d+-\d+")
_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LISTED = 50
_SHOWN_CHARS = 200
_URI_CHARS, _REASON_CHARS = 40, 200


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read seconds, or a number of minutes, hours or days."""
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"wants seconds, or as 90s, 10m, 2h or 7d, got {value!r}", param, ctx)
        return float(found["number"]) * _UNITS_S[found["unit"]]


_AGE = _Age()


@dataclass(frozen=True)
class Wanted:
    """Which letters are meant, those for which all of it is so."""

    ids: tuple[str, ...] = ()
    uri: str | None = None
    reason: str | None = None
    request_id: str | None = None
    older_s: float | None = None
    newer_s: float | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is said of them."""
        return self == Wanted()

    def has(self, letter: DeadLetter, now_s: float) -> bool:
        """Return whether a letter is one of them."""
        age_s = now_s - letter.died_at_s
        return (
            (not self.ids or letter.letter_id in self.ids)
            and (self.uri is None or fnmatchcase(_uri(letter), self.uri))
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.request_id is None or letter.request_id == self.request_id.encode())
            and (self.older_s is None or age_s >= self.older_s)
            and (self.newer_s is None or age_s <= self.newer_s)
        )


def main(arguments: Sequence[str]) -> int:
    """Run `list`, `show`, `retry` or `drop` and return the exit code: 1 where a letter that is meant is not there.

    Raises:
        ConfigError: nothing says which letters are meant.
        BeamServingError: Redis does not answer.
    """
    return run(_group, arguments, "beam-serving dead-letter")


@with_examples(
    "beam_serving dead-letter list --reason timeout",
    "beam_serving dead-letter show 1796053638238-512",
    "beam_serving dead-letter retry --uri 'monday/*'",
    "beam_serving dead-letter drop --older-than 7d",
)
@click.group(
    cls=Group,
    no_args_is_help=False,
    help="Requests that were given up: those that ended their workers, or whose result could not be written. The "
    "newest of them are kept beside their stream (data: max_dead_letters).",
)
def _group() -> None:
    pass


def _ids(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := [one for one in value if not _ID.fullmatch(one)]:
        raise click.BadParameter(f"{wrong[0]!r} is no id of a letter, as 1796053638238-512 is", ctx, param)
    return value


def _place(command: _F) -> _F:
    command = click.option("--stream", help="Those of this stream; of all that the configuration has, where unset.")(
        command
    )
    return config_option(src_option(command))


def _filters(command: _F) -> _F:
    options = (
        click.option("--uri", metavar="GLOB", help="Those whose uri is so, as 'monday/*'."),
        click.option("--reason", metavar="TEXT", help="Those whose reason has this in it."),
        click.option("--request-id", metavar="ID", help="The one of this request."),
        click.option(
            "--older-than",
            "older_s",
            type=_AGE,
            metavar="AGE",
            help="Given up longer ago than this, as 90s, 10m, 2h or 7d.",
        ),
        click.option("--newer-than", "newer_s", type=_AGE, metavar="AGE", help="Given up since then."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@with_examples("beam_serving dead-letter list", "beam_serving dead-letter list --uri 'monday/*' --newer-than 1h --json")
@_group.command("list", help="List dead letters, the newest first.")
@_filters
@click.option(
    "--limit", type=click.IntRange(1), default=_LISTED, show_default=True, help="So many, the newest of those meant."
)
@json_option
@_place
def _list(
    limit: int, as_json: bool, config: Configuration, src: Settings | None, stream: str | None, **filters: Any
) -> int:
    with _streams(config, src, stream) as (client, streams):
        now_s = _now_s(client)
        found = _found(client, streams, Wanted(**filters), now_s)
        letters = list(islice(found, limit))
        more = next(found, None) is not None
        others = 0 if letters or as_json else sum(count_dead_letters(client, one) for one in streams)
    if as_json:
        for letter in letters:
            say(json.dumps(plain(letter, now_s)))
        return 0
    none = f"none of the {_count(others)} of {{}} is so" if others else "no dead letters of {}"
    say(table(letters, now_s) if letters else none.format(_names(streams)))
    if more:
        say(f"... and more; --limit {2 * limit} shows more of them")
    return 0


@with_examples("beam_serving dead-letter show 1796053638238-512")
@_group.command("show", help="Show all that is kept of requests, field by field.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...", callback=_ids)
@json_option
@_place
def _show(ids: tuple[str, ...], as_json: bool, config: Configuration, src: Settings | None, stream: str | None) -> int:
    missing = dict.fromkeys(ids)
    with _streams(config, src, stream) as (client, streams):
        for one in streams:
            for letter_id in ids:
                if fields := contents(client, one, letter_id):
                    missing.pop(letter_id, None)
                    about = {name.decode("utf-8", "backslashreplace"): value for name, value in fields.items()}
                    shown = {name: _value(value) for name, value in about.items()}
                    head = {"id": letter_id, "stream": one}
                    say(json.dumps({**head, "fields": shown}) if as_json else _shown(head, about))
    return _told_missing(missing, streams)


@with_examples(
    "beam_serving dead-letter retry 1796053638238-512",
    "beam_serving dead-letter retry --reason 'memory' --newer-than 1h --dry-run",
    "beam_serving dead-letter retry --all",
)
@_group.command(
    "retry",
    help="Queue requests again, the oldest first, as they were sent; each leaves the dead letters in the same step. "
    "One of which only a part was kept cannot be.",
)
@click.argument("ids", nargs=-1, metavar="[ID]...", callback=_ids)
@_filters
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--limit", type=click.IntRange(1), help="So many at most, the oldest of those meant.")
@click.option("--dry-run", is_flag=True, help="Say which it would be, and change nothing.")
@json_option
@_place
def _retry(
    ids: tuple[str, ...],
    everything: bool,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
    config: Configuration,
    src: Settings | None,
    stream: str | None,
    **filters: Any,
) -> int:
    wanted = _meant(ids, everything, filters)
    with _streams(config, src, stream) as (client, streams):
        letters = _oldest_first(client, streams, wanted, limit)
        done: dict[str, list[Any]] = {"retried": [], "left": []}
        for letter in letters:
            reason = _would_not(letter) if dry_run else retry(client, letter)
            row = {"id": letter.letter_id, "stream": letter.stream, "uri": _uri(letter)}
            done["retried" if reason is None else "left"].append(row if reason is None else {**row, "reason": reason})
    return _told("retried", done, ids, letters, streams, as_json, dry_run)


@with_examples(
    "beam_serving dead-letter drop --older-than 7d",
    "beam_serving dead-letter drop --reason 'no image' --yes",
    "beam_serving dead-letter drop --all --dry-run",
)
@_group.command("drop", help="Remove dead letters; their requests are gone then.")
@click.argument("ids", nargs=-1, metavar="[ID]...", callback=_ids)
@_filters
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--limit", type=click.IntRange(1), help="So many at most, the oldest of those meant.")
@click.option("--dry-run", is_flag=True, help="Say which it would be, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@_place
def _drop(
    ids: tuple[str, ...],
    everything: bool,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    config: Configuration,
    src: Settings | None,
    stream: str | None,
    **filters: Any,
) -> int:
    wanted = _meant(ids, everything, filters)
    with _streams(config, src, stream) as (client, streams):
        letters = _oldest_first(client, streams, wanted, limit)
        if letters and not dry_run and not yes:
            _ask(f"Remove {_count(len(letters))} of {_names(streams)}?")
        if not dry_run:
            for one in streams:
                drop(client, one, [letter.letter_id for letter in letters if letter.stream == one])
    rows = [{"id": letter.letter_id, "stream": letter.stream, "uri": _uri(letter)} for letter in letters]
    return _told("dropped", {"dropped": rows, "left": []}, ids, letters, streams, as_json, dry_run)


@contextmanager
def _streams(
    config: Configuration, src: Settings | None, stream: str | None
) -> Iterator[tuple[redis.Redis, tuple[str, ...]]]:
    from beam_serving.config.redis_at import redis_at

    settings = settings_at(config, src)
    with redis_at(settings).reachable() as client:
        yield client, (stream,) if stream else settings.data.streams


def _meant(ids: tuple[str, ...], everything: bool, filters: Mapping[str, Any]) -> Wanted:
    """Return which letters are meant.

    Raises:
        ConfigError: nothing says so, or twice.
    """
    wanted = Wanted(ids, **filters)
    if wanted.everything and not everything:
        raise ConfigError("which dead letters? give their ids, a filter such as --uri or --reason, or --all")
    if everything and not wanted.everything:
        raise ConfigError("--all means all of them; leave it out, or the ids and filters")
    return wanted


def _ask(question: str) -> None:
    """Ask on a terminal.

    Raises:
        ConfigError: there is none to ask.
        Abort: the answer is no.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(f"{question} There is no terminal to ask; --yes says so")
    click.confirm(question, abort=True, err=True)


def _found(client: redis.Redis, streams: Sequence[str], wanted: Wanted, now_s: float) -> Iterator[DeadLetter]:
    for stream in streams:
        yield from (letter for letter in read_dead_letters(client, stream) if wanted.has(letter, now_s))


def _oldest_first(client: redis.Redis, streams: Sequence[str], wanted: Wanted, limit: int | None) -> list[DeadLetter]:
    letters = sorted(_found(client, streams, wanted, _now_s(client)), key=_order)
    return letters[:limit]


def _order(letter: DeadLetter) -> tuple[int, int]:
    ms, _, number = letter.letter_id.partition("-")
    return int(ms), int(number)


def _now_s(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + microseconds / 1e6


def _would_not(letter: DeadLetter) -> str | None:
    return None if letter.whole else letter.cut or "it has nothing of the request"


def plain(letter: DeadLetter, now_s: float) -> dict[str, Any]:
    """Return a letter as plain values."""
    return {
        "id": letter.letter_id,
        "stream": letter.stream,
        "uri": _uri(letter),
        "request_id": letter.request_id.decode("utf-8", "backslashreplace"),
        "reason": letter.reason,
        "age_s": round(max(now_s - letter.died_at_s, 0.0), 3),
        "died_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(letter.died_at_s)),
        "size_bytes": letter.size_bytes,
        "cut": letter.cut or None,
        "fields": {name.decode("utf-8", "backslashreplace"): size for name, size in letter.fields},
    }


def table(letters: Sequence[DeadLetter], now_s: float) -> str:
    """Return letters as text for people."""
    rows = [("id", "stream", "age", "bytes", "uri", "reason")]
    for letter in letters:
        uri = printable(_short(_uri(letter), _URI_CHARS)) or "-"
        reason = printable(_short(letter.reason, _REASON_CHARS))
        rows.append(
            (letter.letter_id, letter.stream, _age(now_s - letter.died_at_s), str(letter.size_bytes), uri, reason)
        )
    return listed(rows)


def _age(age_s: float) -> str:
    unit = "d" if age_s >= 86_400 else "h" if age_s >= 3600 else "m" if age_s >= 60 else "s"
    return f"{max(age_s, 0.0) / _UNITS_S[unit]:.0f} {unit}"


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def _uri(letter: DeadLetter) -> str:
    return letter.uri.decode("utf-8", "backslashreplace")


def _value(value: bytes) -> dict[str, str]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _shown(head: Mapping[str, str], fields: Mapping[str, bytes]) -> str:
    rows = [("field", "bytes", "value"), *((name, "-", value) for name, value in head.items())]
    for name, value in fields.items():
        said = _value(value)
        rows.append((name, str(len(value)), _short(said["text"], _SHOWN_CHARS) if "text" in said else "(no text)"))
    return listed(rows) + "\n"


def _told(
    what: str,
    done: Mapping[str, list[Any]],
    ids: Sequence[str],
    letters: Sequence[DeadLetter],
    streams: Sequence[str],
    as_json: bool,
    dry_run: bool,
) -> int:
    """Say what was done, and return the exit code: 1 where a letter is left that was meant."""
    missing = dict.fromkeys(one for one in ids if one not in {letter.letter_id for letter in letters})
    if as_json:
        say(json.dumps({**done, "missing": list(missing), "dry_run": dry_run}))
        return 1 if missing or done["left"] else 0
    verb = {"retried": "queued again", "dropped": "removed"}[what]
    be = "would be" if dry_run else "was" if len(done[what]) == 1 else "were"
    say(f"{_count(len(done[what]))} of {_names(streams)} {be} {verb}")
    for row in done["left"]:
        say(f"left: {row['id']} ({printable(_short(row['uri'], _URI_CHARS)) or 'no uri'}): {row['reason']}")
    return _told_missing(missing, streams) or (1 if done["left"] else 0)


def _told_missing(missing: Mapping[str, None], streams: Sequence[str]) -> int:
    for letter_id in missing:
        say(f"there is no dead letter {letter_id} of {_names(streams)}")
    return 1 if missing else 0


def _count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"


def _names(streams: Sequence[str]) -> str:
    return " and ".join(map(repr, streams))
