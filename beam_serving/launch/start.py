"""From settings to a running pipeline in this process."""

from collections.abc import Sequence
from typing import Any

from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.io.readers import FN_API_RUNNER, Readers
from beam_serving.launch.own_pipeline import build_pipeline
from beam_serving.models.base import STRING, LoadedModel
from beam_serving.models.labels import check_labels
from beam_serving.telemetry.context import service_context


def checked_steps(settings: Settings, readers: Readers) -> Any:  # a Serving, whose module imports Beam
    """Make the steps, load their model and check what is configured against it, so that errors arrive as they are.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: labels, image rules or post-processing do not fit the model.
    """
    from beam_serving.pipeline import image_rules, steps
    from beam_serving.transforms.image import check_inputs

    serving = steps(settings, readers)
    model = serving.model.acquire().model
    check_labels(settings.model.labels, model)
    if reason := check_inputs(model.inputs, image_rules(settings)):
        raise ConfigError(f"{settings.model.path}: {reason}")
    _check_post_processing(settings, model)
    return serving


def _check_post_processing(settings: Settings, model: LoadedModel) -> None:
    """Refuse best classes of a model that has no scores, whose every request would fail."""
    params = settings.params
    asks = params.post_processing or (f"top_n: {params.top_n}" if params.top_n not in ("auto", 0) else "")
    texts = [spec.name for spec in model.outputs if spec.dtype == STRING]
    if asks and asks != "none" and len(texts) == len(model.outputs):
        raise ConfigError(f"params: {asks}: output {texts[0]!r} of {settings.model.path} is text; set top_n: 0 or auto")


def forget_model() -> None:
    """Frees the model that was checked, which only the workers need: Beam keeps alive what was shared last."""
    from apache_beam.utils.shared import Shared

    Shared().acquire(service_context)


def run_pipeline(settings: Settings, consumers: Sequence[str], arguments: Sequence[str], drain: bool) -> str:
    """Runs the pipeline in this process until it ends, and gives its last state ("DONE").

    Raises:
        ConfigError: see `checked_steps`.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    serving = checked_steps(settings, Readers(consumers, drain))
    # Beam's "DirectRunner" would first try to download another runner; this is the local one by name.
    options = PipelineOptions([*arguments, f"--runner={FN_API_RUNNER}"])
    pipeline = beam.Pipeline(options=options)
    build_pipeline(pipeline, serving, settings)
    result = pipeline.run()
    return str(result.wait_until_finish() or result.state)
