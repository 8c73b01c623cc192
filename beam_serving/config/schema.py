"""config.yaml: every key with its type, default, unit and check; a mistake is answered with file, line and remedy.

Secrets never stand in the file: the Redis password comes from the environment variable
`BEAM_SERVING_REDIS_PASSWORD` or from the file that `redis: password_file` names, those for decryption alike
(`beam_serving.encryption.secrets`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from beam_serving.config.legacy.translate import FLAT_0_10, Translation, renamed, translate
from beam_serving.config.output import is_url
from beam_serving.config.overrides import overridden, overrides
from beam_serving.config.own_code import OwnCode, is_own_code, own_code
from beam_serving.config.post_processing import checked as checked_rule
from beam_serving.config.values import (
    LONGEST_S,
    BatchAxis,
    BatchSize,
    Constants,
    Count,
    Floats,
    Names,
    Sample,
    Seconds,
    Shapes,
    Text,
    Threads,
    TopN,
    WorkerCount,
)
from beam_serving.config.wanted import given, reason
from beam_serving.config.whereabouts import NAME
from beam_serving.config.yaml_file import YamlFile, has_variables, read_yaml
from beam_serving.errors import ConfigError
from beam_serving.transport.address import Address
from beam_serving.transport.keys import shared_keys

_log = logging.getLogger(__name__)

CODE = ("data.preprocess", "params.post_processing", "params.pipeline")
"""Keys that may name code of the operator's."""
_OTHER_KIND = "other_kind"
_NO_TEXT = re.compile("[\\0\ud800-\udfff]")
PATHS = (
    *("model.path", "model.labels", "model.sample", "model.secret_file", "data.secret_file", "data.output"),
    *("redis.password_file", "redis.ca_file", "flink.job_server_jar", "spark.job_server_jar"),
    "flink.worker_pool_secret_file",
    *CODE,
)
"""Keys whose values are paths, or may be; relative ones are taken from the folder of the file."""


def _is_clean(value: object) -> bool:
    """Return whether all texts of a value can be file names, JSON and names in Redis."""
    if isinstance(value, list | tuple):
        return all(map(_is_clean, value))
    if isinstance(value, dict):
        return all(_is_clean(key) and _is_clean(member) for key, member in value.items())
    return not isinstance(value, str) or not _NO_TEXT.search(value)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads yes, no, on and off as booleans, and pydantic would take these for 1 and 0.
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is False and "off" in get_args(annotation):
            return "off"
        if isinstance(value, bool) and annotation is not bool:
            raise PydanticCustomError(_OTHER_KIND, _OTHER_KIND)
        if not (isinstance(annotation, type) and issubclass(annotation, _Section)) and not _is_clean(value):
            raise PydanticCustomError(_OTHER_KIND, _OTHER_KIND)
        return value


class Model(_Section):
    """Which model is served and by what."""

    path: Text
    engine: Text = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Threads = "auto"
    precision: Literal["f32", "bf16", "int8"] = "f32"
    labels: Text | None = None
    outputs: Names = ()
    batch_axis: BatchAxis = "auto"
    constants: Constants = Field(default_factory=dict)
    sample: Sample = None
    sandbox: Literal["auto", "required", "off"] = "auto"
    encryption: Literal["none", "gcm", "cbc"] = "none"
    secret_file: Text | None = None
    allow_weak_secret: bool = False

    @property
    def openmp_threads(self) -> int:
        """The threads of libraries that have no setting of their own: one where nothing else is said."""
        return 1 if self.threads == "auto" else self.threads or 1


class Data(_Section):
    """Where requests come from and how images become tensors."""

    src: Text = "localhost:6379"
    shape: Shapes = None
    streams: Names = ("image_stream", "serving_stream")
    group: Text = "serving"
    share: bool = False
    color: Literal["bgr", "rgb"] = "bgr"
    layout: Literal["auto", "chw", "hwc"] = "auto"
    resize: Literal["stretch", "fit", "crop"] = "stretch"
    resize_to: Annotated[int | None, Field(ge=1, le=1 << 16)] = None
    resize_filter: Literal["auto", "linear", "area", "antialias"] = "auto"
    mean: Floats = (0.0,)
    scale: Floats = (1.0,)
    strict_images: bool = False
    preprocess: Annotated[Text | None, BeforeValidator(own_code)] = None
    max_pixels: Count = 50_000_000
    max_request_bytes: Annotated[int, Field(ge=1, le=1 << 40)] = 64 * 1024 * 1024
    max_decode_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 384
    max_dead_letters: Count = 10_000
    max_dead_letters_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    result_ttl_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 86_400
    max_result_bytes: Annotated[int | None, Field(ge=1, le=1 << 50)] = None
    output: Text | None = None
    output_format: Literal["parquet", "jsonl"] = "parquet"
    encryption: Literal["none", "images", "all"] = "none"
    secret_file: Text | None = None
    allow_weak_secret: bool = False

    @model_validator(mode="before")
    @classmethod
    def _by_its_first_name(cls, values: object) -> object:
        if not isinstance(values, dict) or "max_payload_bytes" not in values:
            return values
        if "max_request_bytes" in values:
            raise ValueError("max_payload_bytes is the first name of max_request_bytes; leave one of them out")
        return {("max_request_bytes" if key == "max_payload_bytes" else key): one for key, one in values.items()}

    @field_validator("streams")
    @classmethod
    def _at_least_one_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value) or len(set(value)) != len(value):
            raise ValueError("wants at least one stream name, each once")
        for stream in value:
            if reason := shared_keys(stream, value):
                raise ValueError(reason)
        return value

    @field_validator("resize_to")
    @classmethod
    def _only_where_it_counts(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and others.data.get("resize") != "crop":
            raise ValueError("goes with resize: crop")
        return value

    @field_validator("src")
    @classmethod
    def _address_without_secret(cls, value: str) -> str:
        if Address.parse(value).password:
            raise ValueError(
                "a password must not stand in the file; set BEAM_SERVING_REDIS_PASSWORD or redis: password_file"
            )
        return value


class Params(_Section):
    """How work is batched, spread and guarded."""

    batch_size: BatchSize = 4
    top_n: TopN = "auto"
    post_processing: Annotated[Text | None, BeforeValidator(checked_rule)] = None
    pipeline: Annotated[Text | None, BeforeValidator(own_code)] = None
    workers: WorkerCount = "auto"
    poll_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    checkpoint_interval_s: Seconds = 600.0
    reclaim_idle_s: Seconds = 30.0
    max_deliveries: Count = 3
    inference_timeout_s: Seconds = 60.0
    grace_s: Seconds = 30.0
    statistics_s: Seconds = 10.0

    @field_validator("post_processing")
    @classmethod
    def _not_beside_top_n(cls, value: str | None, others: ValidationInfo) -> str | None:
        top_n = others.data.get("top_n", "auto")
        if value is not None and top_n != "auto":
            raise ValueError(f"says what is served of an output, and so does top_n: {top_n}; leave one of them out")
        return value


class Redis(_Section):
    """How to reach Redis: everything but its address."""

    username: Text | None = None
    password_file: Text | None = None
    ca_file: Text | None = None
    timeout_s: Seconds = 5.0
    wait_s: Annotated[float, Field(ge=0, le=LONGEST_S)] = 10.0


_Memory = Annotated[
    str, Field(pattern=r"^\d{1,9}[kmgt]$", description="wants a size with its unit, k, m, g or t, as 4g")
]


class Spark(_Section):
    """Where Spark is, and what a drain gets of it: the keys of Cluster Serving, then ours."""

    master: Text = "local[*]"
    driver_memory: _Memory = "4g"
    executor_memory: _Memory = "1g"
    num_executors: Count = 1
    executor_cores: Count = 1
    total_executor_cores: Count | None = None
    worker_command: Text | None = None
    job_server_jar: Text | None = None
    start_s: Seconds = 60.0


class Flink(_Section):
    """Where Flink is, an embedded one where `rest` is unset, and how the pipeline runs on it."""

    rest: Text | None = None
    parallelism: Annotated[int | None, Field(ge=1, le=256)] = None
    worker_pool: Text | None = None
    worker_pool_secret_file: Text | None = None
    worker_command: Text | None = None
    uber_jar: bool = False
    job_server_jar: Text | None = None
    java_options: Annotated[
        str, Field(pattern=r"^-\S+$", description="wants one option of Java without blanks, as -Xmx1g")
    ] = "-Xmx1g"
    start_s: Seconds = 60.0


_NAME = r"[\w.{}-]{1,64}"


class Settings(_Section):
    """The whole of config.yaml, checked; the file config.yaml of the repository explains each key.

    Attributes:
        name: the service's, under which its state is in Redis: 1 to 64 letters, digits and `_.{}-`.
        model: which model is served and by what.
        data: where requests come from and how images become tensors.
        params: how work is batched, spread and guarded.
        redis: how to reach Redis, beside its address, which is `data.src`.
        flink: of the runner of that name.
        spark: of the runner of that name.
    """

    name: Annotated[str, Field(pattern=f"^{_NAME}$", description="wants 1 to 64 letters, digits and _ . { } -")] = NAME
    model: Model
    data: Data = Data()
    params: Params = Params()
    redis: Redis = Redis()
    flink: Flink = Flink()
    spark: Spark = Spark()

    @model_validator(mode="before")
    @classmethod
    def _stream_of_its_name(cls, values: object) -> object:
        """Let a service with a name of its own serve the stream of that name, where no streams are said.

        The streams of clients that name none belong to the one service that has no name of its own, or says so.
        """
        name = values.get("name") if isinstance(values, dict) else None
        if not isinstance(values, dict) or not isinstance(name, str) or name == NAME or not re.fullmatch(_NAME, name):
            return values
        data = values.get("data")
        if data is None or (isinstance(data, dict) and data.get("streams") is None):
            return {**values, "data": {**(data or {}), "streams": [name]}}
        if isinstance(data, Data) and "streams" not in data.model_fields_set:
            return {**values, "data": data.model_copy(update={"streams": (name,)})}
        return values

    def own_code(self, key: str) -> OwnCode | None:
        """Return the code of the operator's that a key names, None where it names none.

        Args:
            key: one of `CODE`, as `params.pipeline`.
        """
        section, name = key.split(".")
        text = getattr(getattr(self, section), name)
        return OwnCode.of(f"{section}: {name}", text) if is_own_code(text) else None

    def about(self, workers: int) -> dict[str, object]:
        """Return what a service says of itself while it is ready.

        Args:
            workers: how many worker processes it has.
        """
        return {
            "model": self.model.path,
            "streams": self.data.streams,
            "workers": workers,
            "configuration": self.fingerprints(),
        }

    def fingerprints(self) -> dict[str, str]:
        """Return what tells configurations apart without showing their values: by key, for those not at the default."""
        plain = type(self)(model=Model(path="")).model_dump(mode="json")
        found = {}
        for section, body in self.model_dump(mode="json").items():
            for key, value in body.items() if isinstance(body, dict) else [("", body)]:
                if value != (plain[section][key] if key else plain[section]):
                    digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
                    found[f"{section}.{key}".rstrip(".")] = digest
        return found


def load_settings(path: Path, sets: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Settings:
    """Read and check a configuration file, also one of Cluster Serving; what is not used of it is logged as warnings.

    Args:
        path: the file, YAML; paths inside it are taken from the folder that it lies in, those of the environment and of
            `sets` from the current directory.
        sets: values that take the place of the file's and of the environment's, each as `data.src=redis-host:6379`.
        environment: its variables of the form `BEAM_SERVING__DATA__SRC` take the place of the file's values, and any
            may stand in values as `${NAME}` or `${NAME:-default}`.

    Returns:
        The settings, with absolute paths and with defaults for the keys that nothing is said of.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or a key or value is wrong, wherever it was given; one line
            per mistake, each with the file and the line, or with the variable or flag.
    """
    translation = translated(read_yaml(path, environment), sets, environment)
    settings = checked(translation)
    for entry in translation.entries:
        if entry.warns:
            _log.warning("%s: %s: %s", translation.file.where(entry.line), entry.key, entry.remark)
    for key, source in translation.sources.items():
        _log.info("%s: by %s", key, source)
    return settings


def all_keys() -> tuple[str, ...]:
    """Return the keys of the file in its order, as `params.workers`."""
    names = [name for name in Settings.model_fields if name != "name"]
    return ("name", *(f"{name}.{key}" for name in names for key in _section_of(name).model_fields))


def translated(
    file: YamlFile, sets: Sequence[str] = (), environment: Mapping[str, str] = MappingProxyType({})
) -> Translation:
    """Bring a file of any version into the form of `Settings`, unchecked, with the values from beside it.

    Raises:
        ConfigError: a name there is none of the keys.
    """
    translation = translate(file, {*Settings.model_fields, *all_keys()})
    return overridden(translation, overrides(all_keys(), sets, environment))


def checked(translation: Translation) -> Settings:
    """Check values and make paths absolute.

    Raises:
        ConfigError: see `load_settings`.
    """
    values = {**translation.values, "model": translation.values.get("model") or {}}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as err:
        # Of a list each wrong member is a finding; one for each key is enough.
        first = {error["loc"][:2]: error for error in reversed(err.errors())}
        lines = [*translation.errors, *(_explain(error, translation) for error in reversed(first.values()))]
        raise ConfigError("\n".join(lines)) from err
    if translation.errors:
        raise ConfigError("\n".join(translation.errors))
    base = translation.file.path.resolve().parent
    sections: dict[str, dict[str, str]] = {}
    for section, key in (name.split(".") for name in PATHS):
        value = getattr(getattr(settings, section), key)
        if is_path(f"{section}.{key}", value):
            folder = Path.cwd() if f"{section}.{key}" in translation.sources else base
            sections.setdefault(section, {})[key] = str(folder / os.path.expanduser(value))
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=paths) for name, paths in sections.items()}
    )


def is_path(name: str, value: object) -> bool:
    """Return whether the value of one of `PATHS` is a path of this machine: code of the operator's may be a module."""
    if not isinstance(value, str) or value in ("", "noop") or is_url(value):
        return False
    return name not in CODE or (is_own_code(value) and ".py:" in value)


def _explain(error: ErrorDetails, translation: Translation) -> str:
    """Turn one finding of pydantic into `place: what was wanted (got what came)`, in the words of who gave it."""
    location = tuple(str(part) for part in error["loc"])
    if error["type"] in ("missing", "extra_forbidden", "invalid_key"):
        return _explain_key(location, translation, is_missing=error["type"] == "missing")
    place, field = _place(location, translation), _field_of(location)
    wanted = reason(error, field)
    if place in translation.sources.values():
        elsewhere = "stand on the command line" if place.startswith("--set") else "stand in an address"
        wanted = wanted.replace("stand in the file", elsewhere)
    if isinstance(error["input"], bool) and field.annotation is not bool:
        wanted += "; without quotes yes, no, on and off are true and false"
    whole = _value_of(location, translation)
    secret = location[:2] == ("data", "src") and isinstance(whole, str) and "@" in f"{whole}{getattr(whole, 'raw', '')}"
    if secret or (len(location) == 1 and isinstance(error["input"], dict) and location != ("name",)):
        return f"{place}: {wanted}"
    return f"{place}: {wanted} (got {given(whole if has_variables(whole) else error['input'])})"


def _explain_key(location: tuple[str, ...], translation: Translation, *, is_missing: bool) -> str:
    """Say that a key is not there, or that there is none of that name."""
    file, name = translation.file, ".".join(location)
    if is_missing:
        name = "modelPath" if translation.form == FLAT_0_10 else name
        return f"{file.where(file.lines.get(location[:1]))}: {name} is missing; it names the directory with the model"
    where = file.where(file.lines.get(location))
    if new := renamed(name):
        return f"{where}: {name}: a key of Cluster Serving among new ones; here it is '{new}'"
    return f"{where}: {name}: unknown key{_nearest(location)}"


def _place(location: tuple[str, ...], translation: Translation) -> str:
    """Return where the value of a key was given, and how the key is called there."""
    file = translation.file
    if source := translation.sources.get(".".join(location[:2])) or translation.sources.get(location[0]):
        return source
    prefixes = [location[:end] for end in range(len(location), 0, -1)]
    if old := next(filter(None, (translation.source_of(".".join(prefix)) for prefix in prefixes)), None):
        return f"{file.where(old.line)}: {old.key}"
    known = next((prefix for prefix in prefixes if prefix in file.lines), ())
    return f"{file.where(file.lines.get(known))}: {'.'.join(known or location)}"


def _value_of(location: tuple[str, ...], translation: Translation) -> object:
    body = translation.values.get(location[0])
    return body.get(location[1]) if len(location) > 1 and isinstance(body, dict) else body


def _field_of(location: tuple[str, ...]) -> FieldInfo:
    field = Settings.model_fields[location[0]]
    if len(location) == 1 or location[0] == "name":
        return field
    fields: dict[str, FieldInfo] = _section_of(location[0]).model_fields
    return fields[location[1]]


def _nearest(location: tuple[str, ...]) -> str:
    fields: Any = Settings
    for part in location[:-1]:
        fields = _section_of(part)
    names = list(fields.model_fields)
    close = difflib.get_close_matches(location[-1], names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; valid here: {', '.join(names)}"


def _section_of(name: str) -> Any:
    return Settings.model_fields[name].annotation
