"""From a model directory to a model ready to predict, safely: a private copy, a verdict, and then it is loaded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.batch_size import best_batch_size
from beam_serving.models.detect import ModelFiles, find_model
from beam_serving.models.encrypted import files_in, opened_model
from beam_serving.models.formats.registry import NOOP
from beam_serving.models.info import ModelInfo
from beam_serving.models.loading import load
from beam_serving.models.store import PrivateCopy, private_copy
from beam_serving.models.trial.probing import Verdict
from beam_serving.models.trial.verdicts import described_apart, verdict_of

_LOG = logging.getLogger(__name__)


class OpenedModel(NamedTuple):
    """A loaded model, the verdict that it was loaded by (None for the no-op model), and the copy that it lives on."""

    model: LoadedModel
    verdict: Verdict | None
    copy: PrivateCopy | None


def open_model(directory: Path | str, options: ModelOptions) -> OpenedModel:
    """Load the one model in a directory.

    Raises:
        ModelLoadError: the directory does not hold one model that can be served; the message names its files.
        ConfigError: the secret of an encrypted model is missing.
    """
    if NOOP in (options.engine, str(directory)):
        return OpenedModel(load(find_model(directory, options.engine), options), None, None)
    with decided_model(directory, options) as (files, verdict, copy):
        for note in verdict.notes:
            _LOG.info("%s: %s", directory, note)
        return OpenedModel(load(files, options, verdict), verdict, copy)


def model_info(directory: Path | str, options: ModelOptions, batch_size: int | None) -> ModelInfo:
    """Say what a model is, without loading it in this process: one of its own does, the first time.

    Args:
        directory: the model's.
        options: how it will be loaded where it serves.
        batch_size: the most records in one inference; None to have it measured.

    Raises:
        ModelLoadError: it cannot be served.
        ConfigError: the secret of an encrypted model is missing.
    """
    if NOOP in (options.engine, str(directory)):
        model = open_model(directory, options).model
        return ModelInfo.of(model, batch_size or best_batch_size(model))
    with decided_model(directory, options) as (files, verdict, copy):
        info = described_apart(files, options, verdict, copy.content, batch_size)
        copy.close()
    return info


@contextmanager
def decided_model(
    directory: Path | str, options: ModelOptions, *, fresh: bool = False
) -> Iterator[tuple[ModelFiles, Verdict, PrivateCopy]]:
    """Yield the files of a model's private copy and the verdict on them.

    The copy stays until it is closed, which a refusal does. A `fresh` verdict is made anew.

    Raises:
        ModelLoadError, ConfigError: see `open_model`.
    """
    # The directory holds one model: otherwise its files are not worth a copy.
    with opened_model(directory, options) as found:
        _refuse_links_out(Path(directory), found.model.name)
    copy = private_copy(Path(directory))
    try:
        with opened_model(copy.path, options) as files:
            yield files, verdict_of(files, options, copy.content, Path(directory), fresh=fresh), copy
    except ModelLoadError as err:
        copy.close()
        raise ModelLoadError(str(err).replace(str(copy.path), str(directory))) from err


def _refuse_links_out(directory: Path, model: str) -> None:
    """Make sure that the copy of a directory gets no file from elsewhere: it would be weights, or a vocabulary.

    The model itself may be a link, and in a snapshot of the Hugging Face Hub, where files are links into `blobs`, all.

    Raises:
        ModelLoadError: a file is a link out of the directory.
    """
    home = directory.resolve()
    homes = (home, home.parent.parent / "blobs") if home.parent.name == "snapshots" else (home,)
    for name in files_in(directory):
        target = (directory / name).resolve()
        if name != Path(model) and not any(target.is_relative_to(one) for one in homes):
            raise ModelLoadError(
                f"{directory / name}: is a link to {target}, out of the directory of the model; copy the file"
            )
