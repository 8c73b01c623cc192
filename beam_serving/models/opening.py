"""From a model directory to a model ready to predict, safely: a private copy, a verdict, and then it is loaded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import LoadedModel, ModelOptions
from beam_serving.models.detect import ModelFiles, find_model
from beam_serving.models.encrypted import opened_model
from beam_serving.models.formats import NOOP
from beam_serving.models.loading import load
from beam_serving.models.probing import Verdict
from beam_serving.models.store import PrivateCopy, private_copy
from beam_serving.models.verdicts import verdict_of

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


@contextmanager
def decided_model(
    directory: Path | str, options: ModelOptions, *, fresh: bool = False
) -> Iterator[tuple[ModelFiles, Verdict, PrivateCopy]]:
    """Give the files of a model's private copy and the verdict on them.

    The copy stays until it is closed, which a refusal does. A `fresh` verdict is made anew.

    Raises:
        ModelLoadError, ConfigError: see `open_model`.
    """
    with opened_model(directory, options):
        # The directory holds one model: otherwise its files are not worth a copy.
        pass
    copy = private_copy(Path(directory))
    try:
        with opened_model(copy.path, options) as files:
            yield files, verdict_of(files, options, copy.content, Path(directory), fresh=fresh), copy
    except ModelLoadError as err:
        copy.close()
        raise ModelLoadError(str(err).replace(str(copy.path), str(directory))) from err
