"""Models on the command line: what a directory holds, what runs it and how fast; an encrypted copy of it."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beam_serving.arguments import Parser
from beam_serving.commands.encrypt_model import encrypt_model
from beam_serving.encryption.secrets import MODEL
from beam_serving.errors import ConfigError, ModelError
from beam_serving.models.base import LoadedModel, ModelOptions, TensorSpec, describe, type_name, zeros
from beam_serving.models.batches import warm_up
from beam_serving.models.detect import ModelFiles
from beam_serving.models.encrypted import look_at, opened_model
from beam_serving.models.formats import ENGINES, format_of
from beam_serving.models.loading import load

_BATCH_SIZES = (1, 8)
_TRIAL_S = 0.5
_MOST_RUNS = 200
_SECRET = f"file of two lines, secret and salt; else {MODEL.secret_variable} and {MODEL.salt_variable}"


def main(arguments: Sequence[str]) -> int:
    """Runs `model inspect` or `model encrypt` and gives the exit code.

    Raises:
        ConfigError: the directory holds no model that can be served; the message is one line.
    """
    given = _parser().parse_args(arguments)
    try:
        if given.action == "encrypt":
            return _encrypt(given)
        options = ModelOptions(
            given.engine,
            given.threads,
            given.precision,
            given.device,
            given.shape,
            encryption=given.encryption,
            secret_file=given.secret_file,
        )
        about = inspect_model(given.directory, options)
    except (ConfigError, ModelError) as err:
        raise ConfigError("; ".join(line.strip() for line in str(err).splitlines())) from err
    print(json.dumps(about) if given.json else table(about))
    return 0


def _encrypt(given: argparse.Namespace) -> int:
    old_file = given.from_secret_file or given.secret_file
    names = encrypt_model(
        given.directory, given.out, ModelOptions(encryption=given.encryption, secret_file=old_file), given.secret_file
    )
    print(f"{given.out}: {len(names)} file{'s' * (len(names) > 1)} encrypted; serve it with model: encryption: gcm")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="beam-serving model",
        description="Look at a model as the service would load it, or encrypt it.",
        epilog="examples:\n  python -m beam_serving model inspect my_model/ --shape 3,224,224\n"
        "  python -m beam_serving model encrypt my_model/ --out encrypted/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    _add_inspect(actions)
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
    inspect.add_argument("directory", type=Path, help="directory with one model")
    inspect.add_argument("--json", action="store_true", help="print JSON instead of a table")
    inspect.add_argument("--shape", type=_shape, help="input shape without batch, where the model does not say it")
    inspect.add_argument("--engine", choices=ENGINES, default="auto", help="what runs it (%(default)s)")
    inspect.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32", help="(%(default)s)")
    inspect.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    inspect.add_argument("--threads", type=int, default=1, help="engine threads (%(default)s)")
    inspect.add_argument("--encryption", choices=("none", "gcm", "cbc"), default="none", help="(%(default)s)")
    inspect.add_argument("--secret-file", metavar="FILE", help=_SECRET)


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


def inspect_model(directory: Path, options: ModelOptions) -> dict[str, Any]:
    """Loads a model, tries it, and gives what there is to know of it as plain values.

    Raises:
        ModelLoadError: it cannot be loaded, or a trial inference failed.
        ModelError: it cannot run one of the batch sizes that are tried.
    """
    started = time.perf_counter()
    with opened_model(directory, options) as found:
        model = load(found, options)
    loaded_s = time.perf_counter() - started
    warm_up(model)
    files = look_at(directory, options)
    sizes = {str(path.relative_to(directory)): path.stat().st_size for path in _files_of(files)}
    return {
        "directory": str(directory),
        "format": files.format,
        "title": format_of(files.format).title,
        "engine": model.engine,
        "files": sizes,
        "size_bytes": sum(sizes.values()),
        "load_s": round(loaded_s, 3),
        "inputs": [_about(spec) for spec in model.inputs],
        "outputs": [_about(spec) for spec in model.outputs],
        "trial": [_trial(model, size) for size in _BATCH_SIZES],
    }


def table(about: dict[str, Any]) -> str:
    """Writes what `inspect_model` gave as lines for a person."""
    files = ", ".join(f"{name} ({size:,} bytes)" for name, size in about["files"].items())
    rows = [
        ("directory", about["directory"]),
        ("format", f"{about['format']} ({about['title']})"),
        ("engine", about["engine"]),
        ("files", files or "none"),
        ("size", f"{about['size_bytes']:,} bytes"),
        ("load time", f"{about['load_s']:.3f} s"),
        *(("input", f"{one['name']}  {one['text']}") for one in about["inputs"] or [_ANYTHING]),
        *(("output", f"{one['name']}  {one['text']}") for one in about["outputs"]),
        *(
            (f"batch of {one['batch_size']}", f"{one['median_ms']:.3f} ms, {one['records_per_s']:.1f} records/s")
            for one in about["trial"]
        ),
    ]
    return "\n".join(f"{title:12}{value}" for title, value in rows)


_ANYTHING = {"name": "any", "text": "as it comes"}


def _shape(text: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"wants numbers joined by commas, as 3,224,224, got {text!r}")
    return tuple(map(int, parts))


def _files_of(files: ModelFiles) -> list[Path]:
    """Gives all files of a model; of a SavedModel, everything in its directory."""
    if files.model.is_dir():
        return sorted(path for path in files.model.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path for path in (files.model, files.weights) if path is not None and path.exists()]


def _about(spec: TensorSpec) -> dict[str, Any]:
    shape = (None, *spec.shape)
    return {
        "name": spec.name,
        "dtype": type_name(spec.dtype),
        "shape": list(shape),
        "text": describe(spec.dtype, shape),
    }


def _trial(model: LoadedModel, batch_size: int) -> dict[str, Any]:
    specs = model.inputs or (TensorSpec("input", (1,), model.outputs[0].dtype),)
    batch = {spec.name: zeros(spec, batch_size) for spec in specs}
    model.predict(batch)
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
    }
