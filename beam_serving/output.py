"""Where a drain writes its results as files, and whether it can: asked before anything is served."""

from __future__ import annotations

import importlib
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from beam_serving.errors import ConfigError
from beam_serving.logs import beam_is_quiet

_STORES = {
    "gs": ("google.cloud.storage", "gcp"),
    "s3": ("boto3", "aws"),
    "azfs": ("azure.storage.blob", "azure"),
    "hdfs": ("hdfs", "hadoop"),
}
"""The schemes of Beam's file systems: the package that each needs, and the extra of Beam that brings it."""
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def is_url(path: str) -> bool:
    """Whether a path is in a store, and not a folder of this machine."""
    return bool(_SCHEME.match(path))


def path_of_flag(text: str) -> str:
    """Gives the path that an argument of the command line means, seen from the folder where it was given.

    Raises:
        ConfigError: it is empty, as an unset variable of a shell is.
    """
    if not text:
        raise ConfigError("--output is empty; wanted is a folder or an address as gs://bucket/folder")
    return text if is_url(text) else str(Path(text).expanduser().absolute())


def check_output(path: str, arguments: Sequence[str]) -> None:
    """Makes the folder, where it is one, and writes a small file that it removes again.

    `arguments` are Beam's flags, of which some say how to reach a store.

    Raises:
        ConfigError: the scheme is unknown, its extra is not installed, or nothing can be written there.
    """
    if found := _SCHEME.match(path):
        _check_scheme(found[1])
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
