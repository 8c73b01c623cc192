"""From the files of a model to a model ready to predict: which engine may run it, and how its rows are told apart."""

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from beam_serving.errors import ModelLoadError
from beam_serving.models.alone import AloneForm
from beam_serving.models.arrangement import Port, arrange, ports_like
from beam_serving.models.base import EngineModel, LoadedModel, ModelOptions, Widening
from beam_serving.models.detect import ModelFiles
from beam_serving.models.formats.registry import NOOP, format_of, loader_of
from beam_serving.models.trial.batch_axis import BatchedModel
from beam_serving.models.trial.probing import (
    Comparison,
    Verdict,
    compare,
    constant_arrays,
    is_steady,
    plan_of,
    try_axis,
)

Loader = Callable[[ModelFiles, ModelOptions], EngineModel]

_LOG = logging.getLogger(__name__)

# What is missing, and what installs it.
_REMEDIES = {
    "torch": "pip install 'beam-serving[torch]'",
    "tensorflow": "pip install 'beam-serving[tensorflow]'",
    "onnxruntime": "pip install onnxruntime",
    "onnx": "pip install onnx",
    "openvino": "pip install openvino",
    "cv2": "pip install 'opencv-python-headless>=4.14,<5'",
}


class FrameworkMissingError(ModelLoadError):
    """The framework that would run the model is not installed."""


def load(files: ModelFiles, options: ModelOptions | None = None, verdict: Verdict | None = None) -> LoadedModel:
    """Load a model that `find_model` found, as the verdict says; without one the model is tried here and now.

    Args:
        files: the files of the model, which are not decrypted here.
        options: how to load it; None for the defaults.
        verdict: what `probe` said of these files and options, in this process or another.

    Returns:
        The model, ready to predict.

    Raises:
        ModelLoadError: the files are damaged, a framework is missing, or the options do not fit the model.
    """
    options = options or ModelOptions()
    if files.format == NOOP:
        noop: LoadedModel = _function(files, NOOP)(files, options)
        return noop
    if verdict is None:
        verdict = probe(files, options)
        for note in verdict.notes:
            _LOG.info("%s: %s", files.model, note)
    options = options if verdict.plan.kind == "rows" else replace(options, full_batch=None)
    return _as_decided(load_engine(files, options, verdict.engine), options, verdict)


def _as_decided(engine: EngineModel, options: ModelOptions, verdict: Verdict) -> LoadedModel:
    if verdict.plan.freed:
        freed = engine.freed()
        if freed is None:
            raise ModelLoadError(f"{verdict.engine} had a form of this model with a free batch, and has it no more")
        engine = freed
    engine = arrange(engine, verdict.inputs, verdict.outputs)
    if options.input_names:
        engine = _renamed(engine, options)
    engine.compile()
    constants = constant_arrays(engine.inputs, options)

    def batched(form: EngineModel) -> BatchedModel:
        return BatchedModel(form, verdict.plan, constants, verdict.nan, verdict.compared_with)

    model = batched(engine)
    if (widened := widened_form(engine, options, verdict)) is not None:
        model.alone = AloneForm(widened, batched, model, verdict.shapes or {})
    engine.settle()
    return model


def widened_form(engine: EngineModel, options: ModelOptions, verdict: Verdict) -> EngineModel | None:
    """Return the engine's form for one record on `alone_threads`; None without one, or where rows stay together."""
    if options.alone_threads < 2 or not isinstance(engine, Widening):
        return None
    plan = verdict.plan
    one_in_front = plan.kind in ("rows", "single") and plan.axis == 0 and plan.proven
    if not one_in_front or verdict.shapes is None or verdict.random or verdict.state:
        return None
    return engine.widened(options.alone_threads)


def _renamed(engine: EngineModel, options: ModelOptions) -> EngineModel:
    if len(options.input_names) != len(engine.inputs):
        given = list(options.input_names)
        raise ModelLoadError(f"input_names are {given}, the model has {len(engine.inputs)} inputs")
    outputs = tuple(enumerate(spec.name for spec in engine.outputs))
    return arrange(engine, tuple(enumerate(options.input_names)), outputs)


def probe(
    files: ModelFiles,
    options: ModelOptions,
    without: Sequence[str] = (),
    on_engine: Callable[[str], None] = lambda _: None,
    on_extremes: Callable[[], bool] = lambda: True,
) -> Verdict:
    """Find out how a model is served: by which engine, and which part of its tensors belongs to which record.

    OpenVINO serves where it gives what the model's own framework gives: by comparison where that is installed, by what
    its operators are known for where it is not. Else the own framework serves.

    Args:
        files: the files of the model.
        options: how it will be loaded.
        without: engines that are not to be tried.
        on_engine: is told the name of each engine before it is at work.
        on_extremes: says whether the largest numbers are tried; see `compare`.

    Raises:
        ModelLoadError: no engine can load it, a framework is missing, or it keeps state that cannot be set back.
    """
    choice = _Choosing(files, options, tuple(without), on_engine, on_extremes).choice()
    engine = arrange(choice.model, choice.inputs, choice.outputs)
    if options.input_names:
        engine = _renamed(engine, options)
    found, trial = try_axis(engine, options)
    notes = list(choice.notes)
    if trial.shapes is None and trial.error:
        sizes = "; set model: sample to a file or shapes that it takes" if options.sample is None else ""
        notes.append(f"a trial with invented data failed, so the first request decides: {trial.error}{sizes}")
    steady = is_steady(engine, found, trial, options)
    if not steady and not engine.facts.random:
        raise ModelLoadError(
            f"{files.model}: answers the same request in another way after other requests: it keeps state that "
            f"{engine.engine} cannot set back; export it without state, or with its state as inputs and outputs"
        )
    plan, more = plan_of(engine, found, trial, options, steady)
    notes += more
    return Verdict(
        engine=engine.engine,
        plan=plan,
        inputs=choice.inputs,
        outputs=choice.outputs,
        nan=choice.comparison.nan,
        shapes=trial.shapes,
        compared_with=choice.compared_with,
        difference=choice.comparison.difference,
        random=engine.facts.random,
        state=engine.facts.state,
        notes=tuple(notes),
    )


class _Choice(NamedTuple):
    """The engine that serves, the names and order that make it look like the model's own framework, and why it is."""

    model: EngineModel
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    notes: tuple[str, ...] = ()
    comparison: Comparison = Comparison("")
    compared_with: str = ""


@dataclass(frozen=True)
class _Choosing:
    """The choice of an engine for one model; see `probe` for the arguments."""

    files: ModelFiles
    options: ModelOptions
    without: tuple[str, ...]
    on_engine: Callable[[str], None]
    on_extremes: Callable[[], bool]

    def choice(self) -> _Choice:
        """Choose.

        Raises:
            ModelLoadError: none can serve the model.
        """
        own = format_of(self.files.format).own
        engines = [engine for engine in _engines(self.files, self.options) if engine not in self.without]
        if len(engines) == 1 or own == engines[0]:
            return self._first_that_loads(engines)
        try:
            candidate = self._load(engines[0], replace(self.options, precision="f32"))
            if not candidate.facts.doubts:
                candidate.compile()
        except ModelLoadError as err:
            return self._own(own, str(err), err)
        if candidate.facts.doubts:
            return self._own(own, f"{candidate.engine} would compute {candidate.facts.doubts[0]} otherwise")
        try:
            truth = self._load(own, replace(self.options, precision="f32"))
        except ModelLoadError as err:
            return self._unchecked(candidate, err)
        ports = ports_like(candidate, truth)
        if isinstance(ports, str):
            return self._own(own, f"{candidate.engine} is not equal: {ports}")
        comparison = self._compare(arrange(candidate, *ports), truth)
        if comparison.reason:
            return self._own(own, f"{candidate.engine} is not equal: {comparison.reason}")
        return _Choice(candidate, *ports, (), comparison, truth.engine)

    def _load(self, engine: str, options: ModelOptions) -> EngineModel:
        self.on_engine(engine)
        return load_engine(self.files, options, engine)

    def _compare(self, candidate: EngineModel, truth: EngineModel) -> Comparison:
        options = self.options
        found, trial = try_axis(truth, options)
        self.on_engine(candidate.engine)
        comparison = compare(candidate, truth, found, trial, options, self.on_extremes)
        self.on_engine(candidate.engine)
        return comparison

    def _plain(self, err: BaseException | str) -> str:
        return str(err).removeprefix(f"{self.files.model}: ")

    def _own(self, own: str, why: str, cause: ModelLoadError | None = None) -> _Choice:
        """Choose the model's own framework, for a reason."""
        why = self._plain(why)
        try:
            model = self._load(own, self.options)
        except ModelLoadError as err:
            is_missing = isinstance(err, FrameworkMissingError) and cause is None
            risk = "; model: engine: openvino serves it all the same, with wrong values where it differs"
            reasons = "; ".join(dict.fromkeys([why, self._plain(err)]))
            message = f"{self.files.model}: {reasons}{risk if is_missing else ''}"
            raise ModelLoadError(message) from (cause or err)
        return _Choice(model, notes=(f"runs in {model.engine}; {why}",))

    def _unchecked(self, candidate: EngineModel, err: ModelLoadError) -> _Choice:
        """Choose the engine that was not compared where its operators are known to be equal."""
        if unknown := candidate.facts.unproven:
            raise ModelLoadError(
                f"{self.files.model}: {candidate.engine} was never compared on {', '.join(unknown[:3])}, and "
                f"{self._plain(err)}; model: engine: {candidate.engine} serves it all the same, with wrong values "
                "where it differs"
            ) from err
        if isinstance(err, FrameworkMissingError):
            return _Choice(candidate)
        return _Choice(candidate, notes=(f"runs in {candidate.engine}, known to be equal; {self._plain(err)}",))

    def _first_that_loads(self, engines: Sequence[str]) -> _Choice:
        refusals: list[ModelLoadError] = []
        for engine in engines:
            try:
                model = self._load(engine, self.options)
                model.compile()
            except ModelLoadError as err:
                refusals.append(err)
                continue
            return _Choice(model, notes=tuple(f"runs in {engine}; {self._plain(err)}" for err in refusals[:1]))
        reported = list(dict.fromkeys(map(self._plain, refusals)))
        raise ModelLoadError(f"{self.files.model}: {'; '.join(reported)}") from refusals[0]


def _engines(files: ModelFiles, options: ModelOptions) -> tuple[str, ...]:
    """Return the engines to try, the best first."""
    known = format_of(files.format)
    on_cuda = options.device == "cuda"
    if on_cuda and ("torch" not in known.loaders or options.engine not in ("auto", "torch")):
        able = "wanted is a model of torch.jit or torch.export and engine auto or torch"
        raise ModelLoadError(f"{files.model}: device is 'cuda', which torch alone serves; {able}")
    if on_cuda or (options.device == "auto" and "torch" in known.loaders and _has_cuda()):
        return ("torch",) if options.engine in ("auto", "torch") else (options.engine,)
    return tuple(known.loaders) if options.engine == "auto" else (options.engine,)


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def load_engine(files: ModelFiles, options: ModelOptions, engine: str) -> EngineModel:
    """Load a model into one engine, whatever it gives there.

    Raises:
        FrameworkMissingError: the engine is not installed.
        ModelLoadError: the engine cannot load it.
    """
    if len(set(options.output_names)) < len(options.output_names):
        raise ModelLoadError(f"{files.model}: model: outputs names one output twice: {', '.join(options.output_names)}")
    if options.device == "auto" and engine != "torch":
        options = replace(options, device="cpu")
    try:
        model: EngineModel = _function(files, engine)(files, options)
    except ModuleNotFoundError as err:
        missing = (err.name or "").partition(".")[0]
        if missing not in _REMEDIES:
            raise
        raise FrameworkMissingError(f"{files.model}: needs {missing}, which is missing: {_REMEDIES[missing]}") from err
    return model


def _function(files: ModelFiles, engine: str) -> Callable[[ModelFiles, ModelOptions], Any]:
    module, function = loader_of(files.format, engine)
    loader: Callable[[ModelFiles, ModelOptions], Any] = getattr(importlib.import_module(module), function)
    return loader
