"""Models on the command line: what a directory holds, what runs it and how fast; an encrypted copy of it."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from beam_serving.cli.arguments import Parser
from beam_serving.cli.commands.encrypt_model import encrypt_model
from beam_serving.cli.terminal import say
from beam_serving.config.values import BatchAxis, Constants, Sample, Shapes
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
_WEAK = "the secret that the files are encrypted with now may be a weak one"
_SECRET = f"file of two lines, secret and salt; else {MODEL.secret_variable} and {MODEL.salt_variable}"


def main(arguments: Sequence[str]) -> int:
    """Run `model inspect`, `model verify` or `model encrypt` and give the exit code.

    Raises:
        ConfigError: the directory holds no model that can be served; the message is one line.
    """
    given = _parser().parse_args(arguments)
    try:
        if given.action == "encrypt":
            return _encrypt(given)
        warn_of_readers([("--secret-file", given.secret_file)])
        options = ModelOptions(
            given.engine,
            given.threads,
            given.precision,
            given.device,
            given.shape,
            output_names=given.outputs,
            encryption=given.encryption,
            secret_file=given.secret_file,
            allow_weak_secret=given.allow_weak_secret,
            batch_axis=given.batch_axis,
            constants=given.constants,
            sample=given.sample,
            sandbox=given.sandbox,
        )
        about = verify_model(given.directory, options, given.keep) if given.action == "verify" else None
        about = about or inspect_model(given.directory, options)
    except (ConfigError, ModelError) as err:
        raise ConfigError("; ".join(line.strip() for line in str(err).splitlines())) from err
    say(json.dumps(about) if given.json else table(about))
    return 0


def _encrypt(given: argparse.Namespace) -> int:
    old_file = given.from_secret_file or given.secret_file
    warn_of_readers([("--secret-file", given.secret_file), ("--from-secret-file", given.from_secret_file)])
    now = ModelOptions(encryption=given.encryption, secret_file=old_file, allow_weak_secret=given.allow_weak_secret)
    names = encrypt_model(given.directory, given.out, now, given.secret_file)
    say(f"{given.out}: {len(names)} file{'s' * (len(names) > 1)} encrypted; serve it with model: encryption: gcm")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving model",
        description="Look at a model as the service would load it, or encrypt it.",
        epilog="examples:\n  python -m beam_serving model inspect my_model/ --shape 3,224,224\n"
        "  python -m beam_serving model verify my_model/ --keep\n"
        "  python -m beam_serving model encrypt my_model/ --out encrypted/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    _add_inspect(actions)
    _add_verify(actions)
    _add_encrypt(actions)
    return parser


def _add_inspect(actions: Any) -> None:
    inspect = actions.add_parser(
        "inspect",
        help="print a model's format, engine, inputs, outputs, size and speed",
        description="Load a model and print its format, engine, inputs, outputs, size on disk and speed.",
        epilog="example:\n  python -m beam_serving model inspect my_model/ --shape 3,224,224 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_loading(inspect)


def _add_verify(actions: Any) -> None:
    verify = actions.add_parser(
        "verify",
        help="compare a model's engine with its own framework, ahead of the first start",
        description="Try a model as its first start does: which engine gives what its own framework gives, and which\n"
        "rows belong to which record. --keep puts the verdict beside the model, for machines without that framework.",
        epilog="example:\n  python -m beam_serving model verify my_model/ --keep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_loading(verify)
    verify.add_argument("--keep", action="store_true", help=f"write the verdict to {KEPT} in the directory")


def _add_loading(parser: Any) -> None:
    """Adds what says how a model is loaded: each as the configuration has it."""
    parser.add_argument("directory", type=Path, help="directory with one model")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--shape", type=_shape, help="shape of a record: 3,224,224 or {image: 3,320,320, n: 1}")
    parser.add_argument("--outputs", type=_names, default=(), help="outputs to serve, as a,b; all of them by default")
    parser.add_argument("--batch-axis", type=_batch_axis, default="auto", help="auto, none or a number (%(default)s)")
    parser.add_argument(
        "--constants", type=_constants, default={}, help="inputs that requests do not send, {sr: 16000}"
    )
    parser.add_argument("--sample", type=_sample, help="what to try it with: an .npz, an image, or shapes")
    parser.add_argument("--engine", choices=engines(), default="auto", help="what runs it (%(default)s)")
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32", help="(%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="engine threads (%(default)s)")
    parser.add_argument(
        "--sandbox", choices=("auto", "required", "off"), default="auto", help="where it is tried (%(default)s)"
    )
    parser.add_argument("--encryption", choices=("none", "gcm", "cbc"), default="none", help="(%(default)s)")
    parser.add_argument("--secret-file", metavar="FILE", help=_SECRET)
    parser.add_argument("--allow-weak-secret", action="store_true", help=_WEAK)


def _add_encrypt(actions: Any) -> None:
    encrypt = actions.add_parser(
        "encrypt",
        help="write an encrypted copy of a model's directory",
        description="Write an encrypted copy of a model's directory, AES-GCM under a key of your secret.",
        epilog="examples:\n  python -m beam_serving model encrypt my_model/ --out encrypted/ --secret-file secret.txt\n"
        "  python -m beam_serving model encrypt old_model/ --out encrypted/ --from cbc --from-secret-file old.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    encrypt.add_argument("directory", type=Path, help="directory with one model; it stays as it is")
    encrypt.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write, a new one")
    encrypt.add_argument("--secret-file", metavar="FILE", help=_SECRET)
    encrypt.add_argument(
        "--from",
        dest="encryption",
        choices=("none", "gcm", "cbc"),
        default="none",
        help="how the files are encrypted now; cbc is that of Cluster Serving (%(default)s)",
    )
    encrypt.add_argument("--from-secret-file", metavar="FILE", help="the secret that they are encrypted with now")
    encrypt.add_argument("--allow-weak-secret", action="store_true", help=f"{_WEAK}; the new one never")


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
    return "\n".join(f"{title:12}{value}" for title, value in rows)


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


def _shape(text: str) -> Any:
    return _value(text.replace("x", ",") if re.fullmatch(r"\d+(x\d+)+", text) else text, Shapes)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _batch_axis(text: str) -> Any:
    return _value(text, BatchAxis)


def _constants(text: str) -> Any:
    return _value(text, Constants)


def _sample(text: str) -> Any:
    return _value(text, Sample)


def _value(text: str, kind: Any) -> Any:
    """Reads a value as the configuration has it."""
    try:
        return TypeAdapter(kind).validate_python(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as err:
        reason = err.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(err, ValidationError) else "no YAML"
        raise argparse.ArgumentTypeError(f"{reason}, got {text!r}") from err


def _files_of(files: ModelFiles) -> list[Path]:
    """Gives all files of a model; of a SavedModel, everything in its directory."""
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
