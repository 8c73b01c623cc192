"""Configuration files on the command line: what is understood of them, and their new form."""

from __future__ import annotations

import json
import os.path
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beam_serving.cli.arguments import Group, json_option, run, with_examples
from beam_serving.cli.place import set_option, sets_of
from beam_serving.cli.tables import listed
from beam_serving.cli.terminal import say
from beam_serving.config.legacy.comments import one_line_keys
from beam_serving.config.legacy.rewrite import rewrite
from beam_serving.config.legacy.translate import NEW, Entry, Translation
from beam_serving.config.schema import PATHS, Settings, all_keys, checked, is_path, translated
from beam_serving.config.yaml_file import has_variables, parse_yaml, read_yaml
from beam_serving.errors import ConfigError
from beam_serving.text_files import Expanded

if TYPE_CHECKING:
    from beam_serving.models.info import ModelInfo


def main(arguments: Sequence[str]) -> int:
    """Run `config check` or `config migrate` and return the exit code: 0 when the file loads, else 2.

    Raises:
        ConfigError: the file cannot be read, or the new one cannot be written.
    """
    return run(_group, arguments, "beam-serving config")


@with_examples("beam_serving config check config.yaml", "beam_serving config migrate old/config.yaml -o config.yaml")
@click.group(
    cls=Group,
    no_args_is_help=False,
    help="Look at a configuration file of this project or of Cluster Serving 0.7 to 2.x.",
)
def _group() -> None:
    pass


@with_examples("beam_serving config check config.yaml --json")
@_group.command(
    "check",
    help="Say of each key what it means here, or why it is not used and what replaces it; then load the model and the "
    "code that the file names, as a start would, and say why they could not be served. Redis is not asked.",
    short_help="Say of each key what it means here, or why it is not used; load the model.",
)
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@click.option("--no-model", is_flag=True, help="Neither look for the model nor load it.")
@json_option
@click.pass_context
def _check(ctx: click.Context, file: Path, no_model: bool, as_json: bool) -> int:
    translation = translated(read_yaml(file), sets_of(ctx), os.environ)
    errors = _errors(translation)
    model = None
    if not errors and not no_model:
        try:
            model = _tried(checked(translation))
        except ConfigError as err:
            errors = str(err).splitlines()
    if as_json:
        say(json.dumps({**report(translation, errors), "model": model and model.encode()}, default=str))
    else:
        say(table(translation))
        if model is not None:
            say(f"\n{_said_of(model)}")
    for line in errors:
        say(f"error: {line}", to=sys.stderr)
    return 2 if errors else 0


@with_examples("beam_serving config migrate old/config.yaml -o config.yaml")
@_group.command(
    "migrate",
    help="Write the new form of a file, with its comments, to standard output or to another file. The file itself "
    "stays as it is without --in-place.",
    short_help="Write the new form of a file, with its comments.",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; standard output where unset.")
@click.option("--in-place", is_flag=True, help="Overwrite the file itself.")
@click.option("--force", is_flag=True, help="Overwrite the file of --output where there is one.")
def _migrated(file: Path, output: Path | None, in_place: bool, force: bool) -> int:
    if output is not None and in_place:
        raise ConfigError("--output and --in-place name two places; leave one out")
    return _migrate(translated(read_yaml(file)), file, file if in_place else output, in_place or force)


def _errors(translation: Translation) -> list[str]:
    try:
        checked(translation)
    except ConfigError as err:
        return str(err).splitlines()
    return []


def _tried(settings: Settings) -> ModelInfo:
    """Load what a service of these settings would load, and serve nothing.

    Raises:
        ConfigError: the model or code of the operator's cannot be served.
    """
    from beam_serving.launch.preflight import check_files
    from beam_serving.launch.rehearsal import rehearse
    from beam_serving.launch.start import served_model
    from beam_serving.telemetry.logs import LogOptions, own_logging

    wanted = settings.params.batch_size
    # Libraries say things when they are imported that are of no use here.
    with own_logging(LogOptions("warning"), "config check"):
        check_files(settings)
        rehearse(settings)
        return served_model(settings, 1 if wanted == "auto" else wanted)


def _said_of(model: ModelInfo) -> str:
    from beam_serving.models.base import describe

    sides = [("takes", model.inputs), ("gives", model.outputs)]
    tensors = {verb: ", ".join(f"{one.name} ({describe(one.dtype, one.shape)})" for one in of) for verb, of in sides}
    said = [f"{verb} {text or 'whatever comes'}" for verb, text in tensors.items()]
    return f"the model can be served: engine {model.engine}, {', '.join(said)}"


def report(translation: Translation, errors: Sequence[str]) -> dict[str, Any]:
    """Return what became of each key as plain values, without secrets."""
    return {
        "file": str(translation.file.path),
        "form": translation.form,
        "loads": not errors,
        "errors": list(errors),
        "keys": [
            {
                "key": entry.key,
                "line": entry.line,
                "value": "..." if entry.secret else _plain(entry.value),
                "new": _new_values(entry),
                "remark": entry.remark,
                "warning": entry.warns,
            }
            for entry in translation.entries
        ],
    }


def table(translation: Translation) -> str:
    """Return the same as text for people, without the errors."""
    rows = [("key", "value", "new key", "new value", "remark")]
    for entry in translation.entries:
        value = "-" if entry.line is entry.value is None else _shown(entry.value, entry)
        remark = f"warning: {entry.remark}" if entry.warns else entry.remark
        new = list(_new_values(entry).items()) or [("-", "-")]
        rows.append((entry.key, value, new[0][0], _shown(new[0][1], entry) if entry.new else "-", remark))
        rows += [("", "", key, _shown(value, entry), "") for key, value in new[1:]]
    return f"{translation.file.path}: {translation.form}\n\n{listed(rows)}"


def _shown(value: Any, entry: Entry) -> str:
    if value is None:
        return "(blank)"
    if entry.secret:
        return "..."
    value = _plain(value)
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, default=str)


def _new_values(entry: Entry) -> dict[str, Any]:
    """Return what new keys are, but for secrets; what was made of the value of a variable is one."""
    hidden = has_variables(entry.value) and all(value is not entry.value for value in entry.new.values())
    return {key: "..." if entry.secret or hidden else _plain(value) for key, value in entry.new.items()}


def _plain(value: Any) -> Any:
    """Return a value as it stands in the file: with the names of its variables."""
    if isinstance(value, dict):
        return {_plain(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value.raw if isinstance(value, Expanded) else value


def _migrate(translation: Translation, source: Path, target: Path | None, overwrite: bool) -> int:
    old = checked(translation)
    if target is not None and target is not source and target.exists():
        if target.samefile(source):
            raise ConfigError(f"{target} is the file to migrate; --in-place overwrites it")
        if not overwrite:
            raise ConfigError(f"{target} exists already; --force overwrites it")
    paths = _paths_from(translation, target or source)
    _check_variables(translation, paths)
    if translation.form == NEW and not paths:
        text = translation.file.text
        say(f"{source} is of the new form already", to=sys.stderr)
    else:
        text = rewrite(translation, all_keys(), paths)
    new = checked(translated(parse_yaml(target or source, text)))
    if _comparable(new) != _comparable(old):
        raise ConfigError(
            f"{source}: its new form would not mean the same, which is a mistake here; nothing is written"
        )
    if target is None:
        say(text.removesuffix("\n"))
        return 0
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as err:
        raise ConfigError(f"{target}: cannot be written ({err.strerror})") from err
    return 0


def _check_variables(translation: Translation, paths: Mapping[str, str]) -> None:
    """Refuse a value with variables that the new form would hold the values of.

    Raises:
        ConfigError: one would be converted.
    """
    kept = one_line_keys(translation.file)
    for entry in translation.entries:
        moved = all(new is entry.value for new in entry.new.values()) and entry.key in kept
        if has_variables(entry.value) and (not moved or paths.keys() & entry.new.keys()):
            where = f"{translation.file.where(entry.line)}: {entry.key}"
            raise ConfigError(
                f"{where}: has a variable, whose value would stand in the new form; write it there by hand"
            )


def _paths_from(translation: Translation, target: Path) -> dict[str, str]:
    """Return the relative paths of the file as they are seen from the folder that the new one lies in."""
    here, there = translation.file.path.resolve().parent, target.resolve().parent
    if here == there:
        return {}
    found = {}
    for name in PATHS:
        section, key = name.split(".")
        value = translation.values.get(section, {}).get(key)
        if is_path(name, value) and not os.path.isabs(os.path.expanduser(value)):
            found[name] = os.path.relpath(here / value, there)
    return found


def _comparable(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump()
    for section, key in (name.split(".") for name in PATHS):
        if is_path(f"{section}.{key}", values[section][key]):
            values[section][key] = os.path.realpath(values[section][key])
    return values
