"""How a model is served, decided once: in a process of its own, and remembered by the content of its files.

The process runs in a sandbox and survives what a framework does to it: an engine that ends it twice is left out. Its
verdict is kept in the cache, under all that it depends on: files, options, versions of the engines, the processor. A
verdict that `model verify --keep` has put beside the model counts too, whatever the processor, for machines without
that framework; the model is then loaded by it in the sandbox once.
"""

import hashlib
import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from beam_serving.errors import ModelLoadError
from beam_serving.models.arrangement import Port
from beam_serving.models.base import ModelOptions
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats.registry import NOOP, engines, format_of
from beam_serving.models.info import ModelInfo
from beam_serving.models.store import cache_folder, derived_folder, exclusive, read_json, write_json
from beam_serving.models.trial import sandbox
from beam_serving.models.trial.batch_axis import Kind
from beam_serving.models.trial.probing import Verdict
from beam_serving.owner import tied
from beam_serving.telemetry.context import service_context

_LOG = logging.getLogger(__name__)
KEPT = ".beam-serving-verdict.json"
_RULES = 5
"""Counts up with every change of how verdicts are made: older ones are made anew."""
_CRASHES = 2
_NO_ENGINE = "none"
"""Stands for the engine while none is at work: what ends the process then would end each next one."""
_TRIAL_S, _TICK_S = 1800, 0.2
_DISTRIBUTIONS = ("openvino", "onnxruntime", "tensorflow", "torch", "opencv-python-headless")
_IRRELEVANT = (
    *("full_batch", "threads", "alone_threads", "secret_file", "allow_weak_secret"),
    *("encryption", "precision", "input_names", "sandbox"),
)
"""Options that change neither which engine is right nor whose rows are whose."""


def verdict_of(
    files: ModelFiles, options: ModelOptions, content: str, directory: Path | None = None, *, fresh: bool = False
) -> Verdict:
    """Return the verdict on a model, from the cache or by a trial in a process of its own.

    Args:
        files: the files of the model.
        options: how it will be loaded.
        content: the hash of the files.
        directory: where a kept verdict may lie.
        fresh: try it whatever is remembered.

    Raises:
        ModelLoadError: the model cannot be served.
    """
    key = _key(options, content, _processor())
    path = cache_folder() / "verdicts" / f"{key}.json"
    if not fresh and (known := _read(path, options)) is not None:
        return known
    kept = read_json(directory / KEPT) if directory is not None and not fresh else None
    if isinstance(kept, dict) and (known := _decoded(kept.get(_key(options, content, "")))) is not None:
        loaded = tried_apart(files, options, known)
        write_json(path, loaded.encode())
        return loaded
    with exclusive(path.with_suffix(".lock")):
        if not fresh and (known := _read(path, options)) is not None:
            return known
        _LOG.info("%s: first start: trying which engine gives what its own framework gives", directory or files.model)
        verdict = tried_apart(files, options)
        write_json(path, verdict.encode())
    return verdict


def keep_verdict(verdict: Verdict, options: ModelOptions, content: str, directory: Path) -> Path:
    """Put a verdict beside the model; return the file.

    Raises:
        ModelLoadError: the file cannot be written.
    """
    path = directory / KEPT
    kept = read_json(path)
    text = json.dumps(
        {**(kept if isinstance(kept, dict) else {}), _key(options, content, ""): verdict.encode()}, indent=1
    )
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as err:
        raise ModelLoadError(f"{path}: cannot be written ({err.strerror})") from err
    return path


def tried_apart(files: ModelFiles, options: ModelOptions, known: Verdict | None = None) -> Verdict:
    """Try a model in a process of its own; an engine that ends it twice is left out of the next tries.

    A model whose verdict is `known` is loaded there and not tried.

    Raises:
        ModelLoadError: no engine can serve it, or each that could ends its process.
    """
    crashes: dict[str, list[str]] = {}
    extremes = True
    engines = list(format_of(files.format).loaders) if options.engine == "auto" else [options.engine]
    if known is not None:
        engines = [known.engine]
    while True:
        without = {engine: reasons[-1] for engine, reasons in crashes.items() if len(reasons) >= _CRASHES}
        if not set(engines) - without.keys():
            raise ModelLoadError(f"{files.model}: {'; '.join(without.values())}")
        answer, code, log_tail = _run(files, options, list(without), extremes, known)
        if code == sandbox.EXIT_NONE:
            raise ModelLoadError(f"{files.model}: model: sandbox is required: {log_tail}; set it to auto or off")
        if (verdict := _decoded(answer.get("verdict"))) is not None:
            notes = [note.replace(f"{files.model.parent}/", "") for note in verdict.notes]
            return replace(verdict, notes=(*(f"is served without that: {why}" for why in without.values()), *notes))
        if "refusal" in answer:
            raise ModelLoadError("; ".join([str(answer["refusal"]), *without.values()]))
        if answer.get("extremes") and extremes:
            extremes = False
            continue
        engine = str(answer.get("engine", _NO_ENGINE))
        reasons = crashes.setdefault(engine, [])
        reasons.append(f"engine {engine} {_how(code, log_tail)} while it loaded or tried the model")
        _LOG.warning("%s: %s", files.model, reasons[-1])
        if code is not None and code > 0:
            # An exception that nobody expected comes again.
            reasons.append(reasons[-1])
        if engine == _NO_ENGINE and len(reasons) >= _CRASHES:
            raise ModelLoadError(f"{files.model}: its trial {_how(code, log_tail)} before an engine was at work")
        reasons[-1] += f", {_CRASHES} times" if len(reasons) == _CRASHES and code is not None and code < 0 else ""


def described_apart(
    files: ModelFiles, options: ModelOptions, verdict: Verdict, content: str, batch_size: int | None
) -> ModelInfo:
    """Say what a model is as it will serve, from the cache or by loading it in a process of its own.

    Args:
        files: the files of the model.
        options: how it will be loaded.
        verdict: how it is served.
        content: the hash of the files.
        batch_size: the most records in one inference; None to have it measured.

    Raises:
        ModelLoadError: the process could not load it.
    """
    as_served = [verdict.engine, batch_size, options.threads, options.precision, options.input_names]
    whole = json.dumps([_key(options, content, _processor()), *as_served])
    name = hashlib.sha256(whole.encode()).hexdigest()[:32]
    path = cache_folder() / "infos" / f"{name}.json"
    with exclusive(path.with_suffix(".lock")):
        if (info := _info(read_json(path))) is None:
            answer, code, log_tail = _run(files, options, [], False, verdict, {"batch_size": batch_size})
            if (info := _info(answer.get("info"))) is None:
                reason = answer.get("refusal") or f"engine {verdict.engine} {_how(code, log_tail)} while it was loaded"
                raise ModelLoadError(f"{files.model}: {reason}")
            write_json(path, info.encode())
    return info


def _info(plain: object) -> ModelInfo | None:
    try:
        return ModelInfo.decode(plain) if isinstance(plain, Mapping) else None
    except (KeyError, TypeError, ValueError):
        return None


def _how(code: int | None, log_tail: str) -> str:
    if code is None:
        return f"did not end within {_TRIAL_S} s"
    return f"ended its process with {signal.Signals(-code).name}" if code < 0 else f"failed ({log_tail})"


def _run(
    files: ModelFiles,
    options: ModelOptions,
    without: list[str],
    extremes: bool,
    known: Verdict | None,
    describe: Mapping[str, int | None] | None = None,
) -> tuple[dict[str, Any], int | None, str]:
    """Return what the process answered, its exit code, None where it took too long, and the last line of its log."""
    with tempfile.TemporaryDirectory(prefix="beam-serving-trial-") as folder:
        writable = [Path(folder), *filter(None, [derived_folder(files.model)])]
        memory = _folder_in_memory(files.model) if options.sandbox != "off" else None
        inside = sandbox.place_of(memory, writable[0]) if memory else files.model.parent
        job = json.dumps(
            {
                "files": [files.format, *(path and str(_moved(path, memory, inside)) for path in files[1:])],
                "options": asdict(options),
                "without": without,
                "extremes": extremes,
                "verdict": known and known.encode(),
                "describe": describe,
            },
            default=dict,
        )
        answer = Path(folder, "answer.json")
        module = "beam_serving.models.trial.trial_process"
        command = sandbox.command(options.sandbox, writable, module, str(answer), model=memory)
        code, reported = _completed(command, job.encode())
        if code:
            _LOG.debug("the trial's process wrote: %s", reported[-4000:])
        log_tail = "" if code is None else (reported.strip().splitlines() or ["no reason"])[-1][:300]
        return _answer(answer, inside, memory), code, log_tail


def _completed(command: list[str], given: bytes) -> tuple[int | None, str]:
    """Run a process and return its exit code, None where it took too long, and what it wrote to its log.

    Raises:
        ModelLoadError: this service was asked to stop meanwhile.
    """
    stop = service_context().stop
    give_up_at = time.monotonic() + _TRIAL_S
    unsent: bytes | None = given
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=sandbox.without_secrets(os.environ),
        preexec_fn=tied(),
    ) as process:
        try:
            while time.monotonic() < give_up_at and not stop.is_set():
                try:
                    _, reported = process.communicate(unsent, timeout=_TICK_S)
                except subprocess.TimeoutExpired:
                    unsent = None
                    continue
                return process.returncode, reported.decode(errors="replace")
        finally:
            process.kill()
    if stop.is_set():
        raise ModelLoadError("the model was not tried to the end: the service was asked to stop")
    return None, ""


def _folder_in_memory(model: Path) -> Path | None:
    """Return the folder of a model that was decrypted into memory, which the sandbox does not reach by its path."""
    linked = next((path for path in (model, *model.rglob("*")) if path.is_symlink()), None)
    if linked is None or not os.readlink(linked).startswith("/proc/"):
        return None
    return model if model.is_dir() and not model.is_symlink() else model.parent


def _moved(path: Path, memory: Path | None, inside: Path) -> Path:
    return inside / path.relative_to(memory) if memory else path


def _answer(path: Path, inside: Path, memory: Path | None) -> dict[str, Any]:
    answer = read_json(path)
    if memory and answer is not None:
        answer = json.loads(json.dumps(answer).replace(str(inside), str(memory)))
    return answer if isinstance(answer, dict) else {}


def _read(path: Path, options: ModelOptions) -> Verdict | None:
    """Return what is remembered; where the sandbox is required, only what was found in it."""
    known = _decoded(read_json(path))
    return None if known and options.sandbox == "required" and known.sandbox != sandbox.FULL else known


def _decoded(plain: object) -> Verdict | None:
    try:
        verdict = Verdict.decode(plain) if isinstance(plain, Mapping) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return verdict if verdict is not None and _is_sound(verdict) else None


def _is_sound(verdict: Verdict) -> bool:
    """Return whether a verdict that was read is one that `probe` may give: a file may hold anything."""
    plan = verdict.plan
    counts = [plan.axis, *([] if plan.size is None else [plan.size])]
    ports = [*verdict.inputs, *verdict.outputs]
    places = [sorted(place for place, _ in some) for some in (verdict.inputs, verdict.outputs) if _are_ports(some)]
    return (
        verdict.engine in {*engines()} - {"auto", NOOP}
        and all(isinstance(text, str) for text in (verdict.sandbox, verdict.compared_with))
        and type(verdict.difference) in (int, float)
        and all(isinstance(text, str) for text in (*verdict.random, *verdict.state, *verdict.notes))
        and plan.kind in get_args(Kind)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(type(one) is bool for one in (*plan.drops, plan.freed, plan.proven, verdict.nan))
        and _are_ports(ports)
        and bool(verdict.inputs) == bool(verdict.outputs)
        and all(some == list(range(len(some))) for some in places)
    )


def _are_ports(ports: Sequence[Port]) -> bool:
    return all(type(place) is int and isinstance(name, str) for place, name in ports)


def _key(options: ModelOptions, content: str, processor: str) -> str:
    relevant = {name: value for name, value in asdict(options).items() if name not in _IRRELEVANT}
    if isinstance(options.sample, str):
        relevant["sample"] = _file_hash(options.sample)
    whole = json.dumps([_RULES, content, relevant, _versions(processor != ""), processor], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _file_hash(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as err:
        raise ModelLoadError(f"model: sample: {path} cannot be read ({err.strerror})") from err


def _versions(of_all: bool) -> dict[str, str]:
    """Return the versions of what may serve or be compared with; of a kept verdict, of OpenVINO alone."""
    versions = {"beam-serving": _version("beam-serving")}
    for name in _DISTRIBUTIONS if of_all else _DISTRIBUTIONS[:1]:
        versions[name] = _version(name)
    return versions


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Name what of the processor decides which code an engine runs."""
    limits = {name: os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS")}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    known_by = {
        line.partition(":")[0].strip(): line for line in lines if line.startswith(("flags", "Features", "model name"))
    }
    return json.dumps([sorted(known_by.values()), limits])
