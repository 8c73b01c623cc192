"""Whether a drain can write its results where they are wanted: asked before anything is served."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence

from beam_serving.config.output import scheme_of
from beam_serving.errors import ConfigError
from beam_serving.telemetry.logs import beam_is_quiet

_STORES = {
    "gs": ("google.cloud.storage", "gcp"),
    "s3": ("boto3", "aws"),
    "azfs": ("azure.storage.blob", "azure"),
    "hdfs": ("hdfs", "hadoop"),
}
"""The schemes of Beam's file systems: the package that each needs, and the extra of Beam that brings it."""


def check_output(path: str, arguments: Sequence[str]) -> None:
    """Make the folder, where it is one, and write a small file that it removes again.

    `arguments` are Beam's flags, of which some say how to reach a store.

    Raises:
        ConfigError: the scheme is unknown, its extra is not installed, or nothing can be written there.
    """
    if scheme := scheme_of(path):
        _check_scheme(scheme)
    if unusable := set(path) & set("*?[]"):
        raise ConfigError(f"output {path}: cannot hold {' '.join(sorted(unusable))}, which Beam takes for a pattern")
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(arguments)))
    try:
        with beam_is_quiet():
            probe = FileSystems.join(path, f".beam-serving-{uuid.uuid4().hex}")
            with FileSystems.create(probe) as file:
                file.write(b"can this be written?\n")
            FileSystems.delete([probe])
    except Exception as err:  # whatever the library of a store raises; the operator gets its words
        raise ConfigError(f"output {path}: cannot be written to: {' '.join(str(err).split())}") from err


def _check_scheme(scheme: str) -> None:
    if scheme not in _STORES:
        known = ", ".join(f"{name}://" for name in _STORES)
        raise ConfigError(f"output: {scheme}:// is no file system of Beam; wanted is a folder or one of {known}")
    module, extra = _STORES[scheme]
    try:
        importlib.import_module(module)
    except ImportError as err:
        raise ConfigError(f"output: {scheme}:// needs an extra of Beam: pip install 'apache-beam[{extra}]'") from err
