"""Models on the command line: what a directory holds, what runs it and how fast; an encrypted copy of it."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from beam_serving.cli.arguments import Group, json_option, run, with_examples
from beam_serving.cli.commands.encrypt_model import encrypt_model
from beam_serving.cli.tables import named
from beam_serving.cli.terminal import say
from beam_serving.config.values import BatchAxis, Constants, Sample, Shapes
from beam_serving.config.wanted import reason
from beam_serving.encryption.secrets import MODEL, warn_of_readers
from beam_serving.errors import ConfigError, ModelError, printable
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, describe, type_name
from beam_serving.models.batches import trial_batch, warm_up
from beam_serving.models.detect import ModelFiles
from beam_serving.models.encrypted import look_at
from beam_serving.models.formats.registry import engines, format_of
from beam_serving.models.opening import decided_model, open_model
from beam_serving.models.trial.probing import Verdict
from beam_serving.models.trial.verdicts import KEPT, keep_verdict

_BATCH_SIZES = (1, 8)
_TRIAL_S = 0.5
_MOST_RUNS = 200
_F = TypeVar("_F", bound=Callable[..., object])
_WEAK = "The secret that the files are encrypted with now may be a weak one"
_SECRET = f"File of two lines, secret and salt; else {MODEL.secret_variable} and {MODEL.salt_variable}"


def main(arguments: Sequence[str]) -> int:
    """Run `model inspect`, `model verify` or `model encrypt` and return the exit code.

    Raises:
        ConfigError: the directory holds no model that can be served; the message is one line.
    """
    try:
        return run(_group, arguments, "beam-serving model")
    except (ConfigError, ModelError) as err:
        raise ConfigError("; ".join(line.strip() for line in str(err).splitlines())) from err


class _Value(click.ParamType[Any]):
    """A value as the configuration has it."""

    name = "value"

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read and check it."""
        if self._kind is Shapes and re.fullmatch(r"\d+(x\d+)+", str(value)):
            value = value.replace("x", ",")
        try:
            return TypeAdapter(self._kind).validate_python(yaml.safe_load(value))
        except ValidationError as err:
            self.fail(f"{reason(err.errors()[0], FieldInfo.from_annotation(self._kind))}, got {value!r}", param, ctx)
        except (yaml.YAMLError, ValueError, RecursionError):  # of a number or a date that is none, too
            self.fail(f"no YAML, got {value!r}", param, ctx)


_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))
_SECRET_FILE = click.option("--secret-file", metavar="FILE", help=_SECRET)


def _loading_options(command: _F) -> _F:
    """Add what says how a model is loaded: each as the configuration has it."""
    options = (
        _DIRECTORY,
        json_option,
        click.option("--shape", type=_Value(Shapes), help="Shape of a record: 3,224,224 or {image: 3,320,320, n: 1}."),
        click.option("--outputs", default="", help="Outputs to serve, as a,b; all of them by default."),
        click.option(
            "--batch-axis", type=_Value(BatchAxis), default="auto", show_default=True, help="auto, none or a number."
        ),
        click.option(
            "--constants", type=_Value(Constants), default="{}", help="Inputs that requests do not send, {sr: 16000}."
        ),
        click.option("--sample", type=_Value(Sample), help="What to try it with: an .npz, an image, or shapes."),
        click.option("--engine", type=click.Choice(engines()), default="auto", show_default=True, help="What runs it."),
        click.option("--precision", type=click.Choice(("f32", "bf16", "int8")), default="f32", show_default=True),
        click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True),
        click.option("--threads", type=int, default=1, show_default=True, help="Engine threads."),
        click.option(
            "--sandbox",
            type=click.Choice(("auto", "required", "off")),
            default="auto",
            show_default=True,
            help="Where it is tried.",
        ),
        click.option("--encryption", type=click.Choice(("none", "gcm", "cbc")), default="none", show_default=True),
        _SECRET_FILE,
        click.option("--allow-weak-secret", is_flag=True, help=f"{_WEAK}."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _options(given: Mapping[str, Any]) -> ModelOptions:
    warn_of_readers([("--secret-file", given["secret_file"])])
    return ModelOptions(
        **{
            "input_shape" if name == "shape" else name: value
            for name, value in given.items()
            if name not in ("outputs",)
        },
        output_names=tuple(name.strip() for name in given["outputs"].split(",") if name),
    )


@with_examples(
    "beam_serving model inspect my_model/ --shape 3,224,224",
    "beam_serving model verify my_model/ --keep",
    "beam_serving model encrypt my_model/ --out encrypted/",
)
@click.group(cls=Group, no_args_is_help=False, help="Look at a model as the service would load it, or encrypt it.")
def _group() -> None:
    pass


@with_examples("beam_serving model inspect my_model/ --shape 3,224,224 --json")
@_group.command(
    "inspect",
    help="Load a model and print its format, engine, inputs, outputs, size on disk and speed.",
    short_help="Print a model's format, engine, inputs, outputs, size and speed.",
)
@_loading_options
def _inspect(directory: Path, as_json: bool, **given: Any) -> int:
    about = inspect_model(directory, _options(given))
    say(json.dumps(about) if as_json else table(about))
    return 0


@with_examples("beam_serving model verify my_model/ --keep")
@_group.command(
    "verify",
    help="Try a model as its first start does: which engine gives what its own framework gives, and which rows belong "
    "to which record. --keep puts the verdict beside the model, for machines without that framework.",
    short_help="Compare a model's engine with its own framework, ahead of the first start.",
)
@_loading_options
@click.option("--keep", is_flag=True, help=f"Write the verdict to {KEPT} in the directory.")
def _verify(directory: Path, as_json: bool, keep: bool, **given: Any) -> int:
    about = verify_model(directory, _options(given), keep)
    say(json.dumps(about) if as_json else table(about))
    return 0


@with_examples(
    "beam_serving model encrypt my_model/ --out encrypted/ --secret-file secret.txt",
    "beam_serving model encrypt old_model/ --out encrypted/ --from cbc --from-secret-file old.txt",
)
@_group.command(
    "encrypt",
    help="Write an encrypted copy of a model's directory, AES-GCM under a key of your secret.",
    short_help="Write an encrypted copy of a model's directory.",
)
@_DIRECTORY
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Directory to write, a new one."
)
@_SECRET_FILE
@click.option(
    "--from",
    "encryption",
    type=click.Choice(("none", "gcm", "cbc")),
    default="none",
    show_default=True,
    help="How the files are encrypted now; cbc is that of Cluster Serving.",
)
@click.option("--from-secret-file", metavar="FILE", help="The secret that they are encrypted with now.")
@click.option("--allow-weak-secret", is_flag=True, help=f"{_WEAK}; the new one never.")
def _encrypt(
    directory: Path,
    out: Path,
    secret_file: str | None,
    encryption: str,
    from_secret_file: str | None,
    allow_weak_secret: bool,
) -> int:
    warn_of_readers([("--secret-file", secret_file), ("--from-secret-file", from_secret_file)])
    now = ModelOptions(
        encryption=encryption, secret_file=from_secret_file or secret_file, allow_weak_secret=allow_weak_secret
    )
    names = encrypt_model(directory, out, now, secret_file)
    say(f"{out}: {len(names)} file{'s' * (len(names) > 1)} encrypted; serve it with model: encryption: gcm")
    return 0


def verify_model(directory: Path, options: ModelOptions, keep: bool) -> dict[str, Any]:
    """Decide how a model is served, keep the verdict where that is asked for, and give it as plain values.

    Raises:
        ModelLoadError: it cannot be served, or the verdict cannot be written.
    """
    files = look_at(directory, options)
    with decided_model(directory, options, fresh=True) as (_, verdict, copy):
        kept = {"kept": str(keep_verdict(verdict, options, copy.content, directory))} if keep else {}
        copy.close()
    sizes = _sizes(files, directory)
    return {**_head(directory, files, sizes), "engine": verdict.engine, **_reasons(verdict), **kept}


def inspect_model(directory: Path, options: ModelOptions) -> dict[str, Any]:
    """Load a model, try it, and give what there is to know of it as plain values.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    files = look_at(directory, options)
    started = time.perf_counter()
    model, verdict, copy = open_model(directory, options)
    loaded_s = time.perf_counter() - started
    shapes = verdict.shapes if verdict else None
    about = {
        **_head(directory, files, _sizes(files, directory)),
        "engine": model.engine,
        "load_s": round(loaded_s, 3),
        "inputs": [_about(spec, model.one_by_one) for spec in model.inputs],
        "outputs": [_about(spec, model.one_by_one) for spec in model.outputs],
        "classes": {name: list(names) for name, names in model.class_names.items()},
        **(_reasons(verdict) if verdict else {}),
        "trial": [_trial(model, size, shapes) for size in (_BATCH_SIZES[:1] if model.one_by_one else _BATCH_SIZES)],
    }
    if copy is not None:
        copy.close()
    return about


def _head(directory: Path, files: ModelFiles, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "directory": str(directory),
        "format": files.format,
        "title": format_of(files.format).title,
        "files": sizes,
        "size_bytes": sum(sizes.values()),
    }


def _sizes(files: ModelFiles, directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): path.stat().st_size for path in _files_of(files)}


def _reasons(verdict: Verdict) -> dict[str, Any]:
    return {
        "batch": _BATCH[verdict.plan.kind].format(axis=verdict.plan.axis, size=verdict.plan.size),
        "compared_with": verdict.compared_with,
        "difference": verdict.difference,
        "takes_nan": verdict.nan,
        "random": list(verdict.random),
        "state": list(verdict.state),
        "notes": list(verdict.notes),
        "sandbox": verdict.sandbox,
    }


_SPEED = "{median_ms:.3f} ms, {records_per_s:.1f} records/s"
_BATCH = {
    "rows": "any number of records along axis {axis}",
    "portions": "{size} records at a time along axis {axis}",
    "single": "one record at a time, with an axis of 1",
    "whole": "none: a request has whole tensors",
}


def table(about: dict[str, Any]) -> str:
    """Write what `inspect_model` or `verify_model` gave as lines for a person."""
    files = ", ".join(f"{name} ({size:,} bytes)" for name, size in about["files"].items())
    rows = [
        ("directory", about["directory"]),
        ("format", f"{about['format']} ({about['title']})"),
        ("engine", about["engine"]),
        ("files", files or "none"),
        ("size", f"{about['size_bytes']:,} bytes"),
    ]
    if "load_s" in about:
        rows += [
            ("load time", f"{about['load_s']:.3f} s"),
            *(("input", f"{one['name']}  {one['text']}") for one in about["inputs"] or [_ANYTHING]),
            *(("output", f"{one['name']}  {one['text']}") for one in about["outputs"]),
            *(("classes", f"{name}: {', '.join(names[:8])}") for name, names in about["classes"].items()),
        ]
    if "batch" in about:
        rows += _reason_rows(about)
    rows += [
        (
            f"batch of {one['batch_size']}",
            one["error"] or f"{one['median_ms']:.3f} ms, {one['records_per_s']:.1f} records/s",
        )
        for one in about.get("trial", ())
    ]
    return named(rows)


def _reason_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    compared = about["compared_with"]
    same = f"equal to {compared}, largest difference {about['difference']:.1e} of the largest value"
    own = format_of(about["format"]).own
    alone = ": it runs in its own framework" if about["engine"] == own else f", though its own framework is {own}"
    rows = [
        ("batch axis", about["batch"]),
        ("compared", same if compared else f"with nothing{alone}"),
    ]
    rows += [("NaN, inf", "refused: this engine computes them otherwise")] if not about["takes_nan"] else []
    rows += [(title, ", ".join(about[title])) for title in ("random", "state") if about[title]]
    rows += [("note", printable(note)) for note in about["notes"]]
    rows += [("tried with", about["sandbox"] or "no sandbox")]
    return rows + ([("kept in", about["kept"])] if "kept" in about else [])


_ANYTHING = {"name": "any", "text": "as it comes"}


def _files_of(files: ModelFiles) -> list[Path]:
    """Return all files of a model; of a SavedModel, everything in its directory."""
    if files.model.is_dir():
        return sorted(path for path in files.model.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path for path in (files.model, files.weights) if path is not None and path.exists()]


def _about(spec: TensorSpec, one_by_one: bool) -> dict[str, Any]:
    shape = spec.shape if spec.shape is None or one_by_one else (None, *spec.shape)
    return {
        "name": spec.name,
        "dtype": type_name(spec.dtype),
        "shape": None if shape is None else list(shape),
        "text": describe(spec.dtype, shape),
    }


def _trial(model: LoadedModel, batch_size: int, shapes: Mapping[str, tuple[int, ...]] | None) -> dict[str, Any]:
    if failure := warm_up(model, batch_size, shapes):
        return {"batch_size": batch_size, "median_ms": None, "records_per_s": None, "error": failure}
    batch = trial_batch(model.inputs, batch_size, shapes)
    times: list[float] = []
    while sum(times) < _TRIAL_S and len(times) < _MOST_RUNS:
        started = time.perf_counter()
        model.predict(batch)
        times.append(time.perf_counter() - started)
    median_s = statistics.median(times)
    return {
        "batch_size": batch_size,
        "median_ms": round(median_s * 1000, 3),
        "records_per_s": round(batch_size / median_s, 1),
        "error": "",
    }
