"""config.yaml: what it may say, and what a mistake in it is answered with."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from beam_serving.config.schema import Data, Params, Settings, Spark, load_settings
from beam_serving.config.values import SHAPES_WANTED
from beam_serving.errors import ConfigError
from beam_serving.transport.address import WANTED

FLINK_KEYS = (
    "config.yaml:2: flink.master: unknown key; valid here: rest, parallelism, worker_pool, worker_pool_secret_file, "
    "worker_command, uber_jar, job_server_jar, java_options, start_s"
)
TOP_N_WANTED = "wants 'auto' or a number: how many classes, 0 for the whole output"
BOOLEAN = "; without quotes yes, no, on and off are true and false"
TEXT_WANTED = "wants text, in quotes where it looks like a number or a date"
JAVA_WANTED = "wants one option of Java without blanks, as -Xmx1g"
REPOSITORY = Path(__file__).parents[1]


def settings_of(text: str, folder: Path) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def mistakes(text: str, folder: Path) -> str:
    """Gives what is said about a configuration, without the folder it lies in."""
    with pytest.raises(ConfigError) as caught:
        settings_of(text, folder)
    return str(caught.value).replace(f"{folder}/", "")


def test_only_the_path_of_the_model_must_be_given(tmp_path: Path) -> None:
    settings = settings_of("model:\n  path: digits\n", tmp_path)
    assert settings.model.path == str(tmp_path / "digits")
    assert (settings.data, settings.params, settings.spark) == (Data(), Params(), Spark())


def test_blank_sections_and_values_mean_the_default(tmp_path: Path) -> None:
    text = "name:\nmodel:\n  path: m\n  engine:\ndata:\nparams:\n  batch_size:\n  poll_s:\nredis:\nspark:\n"
    settings = settings_of(text, tmp_path)
    assert (settings.name, settings.model.engine) == ("beam-serving", "auto")
    assert (settings.data, settings.params, settings.spark) == (Data(), Params(), Spark())


def test_the_form_of_the_older_servers_is_read(tmp_path: Path) -> None:
    text = """\
## Cluster Serving
model:
  # model path must be set
  path: /opt/serving/model
data:
  # default, localhost:6379
  src:
  # default, 3,224,224
  shape: 3,224,224
params:
  # default, 4
  batch_size: 8
  top_n: 5
spark:
  # default, local[*]
  master: local[2]
  driver_memory: 2g
  executor_memory:
  num_executors:
  executor_cores: 4
  total_executor_cores:
"""
    settings = settings_of(text, tmp_path)
    assert settings.model.path == "/opt/serving/model"
    assert settings.data == Data(shape=(3, 224, 224))
    assert (settings.params.batch_size, settings.params.top_n) == (8, 5)
    assert settings.spark == Spark(master="local[2]", driver_memory="2g", executor_cores=4)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("shape", "3,224,224", (3, 224, 224)),
        ("shape", "3, 32, 32", (3, 32, 32)),
        ("shape", "[1, 28, 28]", (1, 28, 28)),
        ("shape", "784", (784,)),
        ("shape", '""', None),
        ("shape", "[[3, 8, 8], [3]]", ((3, 8, 8), (3,))),
        ("shape", '["3,8,8", 3]', ((3, 8, 8), (3,))),
        ("shape", '"[[3,8,8],[3]]"', ((3, 8, 8), (3,))),
        ("shape", "[[3, 8, 8], []]", ((3, 8, 8), ())),
        ("shape", "[[3, 8, 8]]", (3, 8, 8)),
        ("shape", "{image: [3, 8, 8], info: 3}", {"image": (3, 8, 8), "info": (3,)}),
        ("shape", "\n    image: 3,8,8\n    info: 3", {"image": (3, 8, 8), "info": (3,)}),
        ("mean", "127.5", (127.5,)),
        ("mean", "104, 117, 123", (104.0, 117.0, 123.0)),
        ("scale", "[0.5, 1, 2e-3]", (0.5, 1.0, 0.002)),
        ("streams", "one", ("one",)),
        ("streams", "one, two", ("one", "two")),
        ("streams", "[one, two]", ("one", "two")),
        ("streams", "'{digits}'", ("{digits}",)),
        ("streams", "'{digits}_one'", ("{digits}_one",)),
        ("streams", "'{digits}_one, {digits}_two'", ("{digits}_one", "{digits}_two")),
        ("src", "redis-1:6380", "redis-1:6380"),
        ("src", "rediss://worker@redis.example:6379/2", "rediss://worker@redis.example:6379/2"),
        ("src", '"[::1]:6379"', "[::1]:6379"),
    ],
)
def test_lists_are_written_with_commas_or_as_lists(key: str, text: str, value: Any, tmp_path: Path) -> None:
    assert getattr(settings_of(f"model: {{path: m}}\ndata:\n  {key}: {text}\n", tmp_path).data, key) == value


@pytest.mark.parametrize(("text", "workers"), [("auto", "auto"), ("1", 1), ("256", 256), ('"8"', 8)])
def test_workers_are_a_number_or_auto(text: str, workers: object, tmp_path: Path) -> None:
    assert settings_of(f"model: {{path: m}}\nparams: {{workers: {text}}}\n", tmp_path).params.workers == workers


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = "model: {path: ../m}\nredis: {password_file: ~/secret, ca_file: /etc/ca.pem}\nflink: {job_server_jar: a.jar}"
    settings = settings_of(text, tmp_path)
    assert settings.model.path == str(tmp_path / "../m")
    assert settings.redis.password_file == str(tmp_path / "home/secret")
    assert settings.redis.ca_file == "/etc/ca.pem"
    assert settings.flink.job_server_jar == str(tmp_path / "a.jar")


def test_the_model_that_computes_nothing_is_no_path(tmp_path: Path) -> None:
    assert settings_of("model: {path: noop}", tmp_path).model.path == "noop"


@pytest.mark.parametrize("shape", ["'3,4,5'", "[[3, 4, 5], [1]]", "{a: [3, 4], b: 1}"])
def test_settings_survive_the_way_to_a_worker(shape: str, tmp_path: Path) -> None:
    settings = settings_of(
        f"model: {{path: m}}\ndata: {{shape: {shape}, mean: 1}}\nspark: {{num_executors: 2}}\n", tmp_path
    )
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  batchsize: 8", "params.batchsize: unknown key; did you mean 'batch_size'?"),
        ("  topn: 8", "params.topn: unknown key; did you mean 'top_n'?"),
        (
            "  zzz: 8",
            "params.zzz: unknown key; valid here: batch_size, top_n, post_processing, pipeline, workers, poll_s, "
            "checkpoint_interval_s, reclaim_idle_s, max_deliveries, inference_timeout_s, grace_s, statistics_s",
        ),
        ("  batch_size: 0", "params.batch_size: wants a number from 1 to 4096 or 'auto' (got 0)"),
        ("  batch_size: 4097", "params.batch_size: wants a number from 1 to 4096 or 'auto' (got 4097)"),
        (
            "  batch_size: four",
            "params.batch_size: wants a number from 1 to 4096 or 'auto' (got 'four')",
        ),
        ("  batch_size: yes", f"params.batch_size: wants a number from 1 to 4096 or 'auto'{BOOLEAN} (got true)"),
        ("  top_n: -1", f"params.top_n: {TOP_N_WANTED} (got -1)"),
        ("  top_n: best", f"params.top_n: {TOP_N_WANTED} (got 'best')"),
        (
            "  post_processing: topN",
            "params.post_processing: wants topN(n), pickTopN(n) or none, with n above 0, or file.py:function "
            "(got 'topN')",
        ),
        ("  workers: many", "params.workers: wants a number from 1 to 256 or 'auto' (got 'many')"),
        ("  workers: 0", "params.workers: wants a number from 1 to 256 or 'auto' (got 0)"),
        ("  workers: 257", "params.workers: wants a number from 1 to 256 or 'auto' (got 257)"),
        ("  poll_s: 11", "params.poll_s: wants a number above 0 up to 10 (got 11)"),
        ("  poll_s: .nan", "params.poll_s: wants a number above 0 up to 10 (got .nan)"),
        ("  grace_s: .inf", "params.grace_s: wants a number above 0 up to 315360000 (got .inf)"),
        ("  grace_s: 0", "params.grace_s: wants a number above 0 up to 315360000 (got 0)"),
        ("  max_deliveries: [1]", "params.max_deliveries: wants a whole number from 1 to 1000000000 (got [1])"),
    ],
)
def test_a_wrong_parameter_is_named_with_file_and_line(line: str, said: str, tmp_path: Path) -> None:
    assert mistakes(f"model:\n  path: m\nparams:\n{line}\n", tmp_path) == f"config.yaml:4: {said}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "  src: http://host",
            f"data.src: wants {WANTED} (got 'http://host')",
        ),
        (
            "  src: host:1/x",
            f"data.src: wants {WANTED} (got 'host:1/x')",
        ),
        ("  src: ':6379'", f"data.src: wants {WANTED} (got ':6379')"),
        (
            "  src: host:1?db=2",
            f"data.src: wants {WANTED} (got 'host:1?db=2')",
        ),
        (
            "  src: host:99999",
            "data.src: wants host:port with a port from 0 to 65535 (got 'host:99999')",
        ),
        ("  src: 6379", f"data.src: {TEXT_WANTED} (got 6379)"),
        *(
            (f"  shape: {text}", f"data.shape: {SHAPES_WANTED} (got {got})")
            for text, got in (
                ("3,x", "'3,x'"),
                ("3,0", "'3,0'"),
                ("[3, -1]", "[3, -1]"),
                ("[3, true]", "[3, true]"),
                ("3.5", "3.5"),
                ("[[3, 8], [x]]", "[[3, 8], ['x']]"),
                ("[[[3]]]", "[[[3]]]"),
                ("{}", "{}"),
                ("{a: [3], 4: [3]}", "{a: [3], 4: [3]}"),
                ("{a: }", "{a: nothing}"),
                ("'[3,'", "'[3,'"),
            )
        ),
        ("  shape: []", "data.shape: wants at least one number (got [])"),
        ("  shape: [[]]", "data.shape: wants at least one number (got [[]])"),
        ("  mean: []", "data.mean: wants at least one number (got [])"),
        ("  scale: .nan", "data.scale: wants one number, or one for each channel, as 104, 117, 123 (got .nan)"),
        ("  streams: a,a", "data.streams: wants at least one stream name, each once (got 'a,a')"),
        ("  streams: a,", "data.streams: wants at least one stream name, each once (got 'a,')"),
        ("  streams: []", "data.streams: wants at least one stream name, each once (got [])"),
        ("  color: grey", "data.color: wants bgr or rgb (got 'grey')"),
        ("  layout: nchw", "data.layout: wants auto, chw or hwc (got 'nchw')"),
        ("  max_pixels: 0", "data.max_pixels: wants a whole number from 1 to 1000000000 (got 0)"),
        ("  result_ttl_s: -1", "data.result_ttl_s: wants a number from 0 to 315360000 (got -1)"),
        ("  1: 2", f"data.1: unknown key; valid here: {', '.join(Data.model_fields)}"),
    ],
)
def test_a_wrong_word_on_the_data_is_named_with_file_and_line(line: str, said: str, tmp_path: Path) -> None:
    assert mistakes(f"model:\n  path: m\ndata:\n{line}\n", tmp_path) == f"config.yaml:4: {said}"


def test_a_batch_size_is_a_number_or_auto(tmp_path: Path) -> None:
    assert settings_of("model: {path: m}\nparams: {batch_size: '8'}", tmp_path).params.batch_size == 8
    assert settings_of("model: {path: m}\nparams: {batch_size: auto}", tmp_path).params.batch_size == "auto"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("batch_axis", "auto", "auto"),
        ("batch_axis", "none", "none"),
        ("batch_axis", "1", 1),
        ("batch_axis", "'0'", 0),
        ("sandbox", "off", "off"),
        ("sandbox", "required", "required"),
        (
            "constants",
            "{keep_prob: 1.0, sizes: [[1, 2]], mode: fast, train: false}",
            {"keep_prob": 1.0, "sizes": [[1, 2]], "mode": "fast", "train": False},
        ),
        ("constants", "", {}),
        ("sample", "3,320,320", (3, 320, 320)),
        ("sample", "[[3, 8, 8], [3]]", ((3, 8, 8), (3,))),
        ("sample", "{image: [3, 8, 8]}", {"image": (3, 8, 8)}),
        ("sample", "/x/one.npz", "/x/one.npz"),
        ("sample", "", None),
    ],
)
def test_how_a_model_is_tried_and_cut_into_records_is_read(key: str, text: str, value: Any, tmp_path: Path) -> None:
    settings = settings_of(f"model:\n  path: m\n  {key}: {text}\n", tmp_path)
    assert getattr(settings.model, key) == value
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  batch_axis: -1", "model.batch_axis: wants auto, none or the number of an axis, from 0 (got -1)"),
        ("  batch_axis: first", "model.batch_axis: wants auto, none or the number of an axis, from 0 (got 'first')"),
        ("  sandbox: on", f"model.sandbox: wants auto, required or off{BOOLEAN} (got true)"),
        (
            "  batch_axis: no",
            f"model.batch_axis: wants auto, none or the number of an axis, from 0{BOOLEAN} (got false)",
        ),
        ("  constants: 5", "model.constants: wants values by input name, such as {keep_prob: 1.0, sr: 16000} (got 5)"),
        (
            "  constants: {a: {b: 1}}",
            "model.constants: wants values by input name, such as {keep_prob: 1.0, sr: 16000} (got {a: {b: 1}})",
        ),
        ("  sample: [[3, 0]]", f"model.sample: {SHAPES_WANTED} (got [[3, 0]])"),
        ("  sample: 3.5", f"model.sample: {SHAPES_WANTED} (got 3.5)"),
    ],
)
def test_a_wrong_word_on_the_model_is_named_with_file_and_line(line: str, said: str, tmp_path: Path) -> None:
    assert mistakes(f"model:\n  path: m\n{line}\n", tmp_path) == f"config.yaml:3: {said}"


def test_a_sample_lies_beside_the_configuration(tmp_path: Path) -> None:
    assert settings_of("model: {path: m, sample: one.npz}", tmp_path).model.sample == str(tmp_path / "one.npz")


def test_top_n_is_a_number_or_auto(tmp_path: Path) -> None:
    assert settings_of("model: {path: m}", tmp_path).params.top_n == "auto"
    assert settings_of("model: {path: m}\nparams: {top_n: '3'}", tmp_path).params.top_n == 3
    assert settings_of("model: {path: m}\nparams: {top_n: auto}", tmp_path).params.top_n == "auto"


def test_resize_to_goes_with_crop_only(tmp_path: Path) -> None:
    said = "config.yaml:2: data.resize_to: goes with resize: crop (got 256)"
    assert mistakes("model: {path: m}\ndata: {resize: fit, resize_to: 256}", tmp_path) == said
    assert settings_of("model: {path: m}\ndata: {resize: crop, resize_to: 256}", tmp_path).data.resize_to == 256


def test_an_output_lies_beside_the_configuration_or_in_a_store(tmp_path: Path) -> None:
    settings = settings_of("model: {path: noop}\ndata: {output: results, output_format: jsonl}\n", tmp_path)
    assert (settings.data.output, settings.data.output_format) == (str(tmp_path / "results"), "jsonl")
    settings = settings_of("model: {path: noop}\ndata: {output: 'gs://bucket/results'}\n", tmp_path)
    assert (settings.data.output, settings.data.output_format) == ("gs://bucket/results", "parquet")


def test_labels_lie_beside_the_configuration(tmp_path: Path) -> None:
    model = settings_of("model: {path: m, labels: names.txt, outputs: 'a, b'}", tmp_path).model
    assert model.labels == str(tmp_path / "names.txt")
    assert model.outputs == ("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {}", "config.yaml: model.path is missing; it names the directory with the model"),
        ("model:", "config.yaml:1: model.path is missing; it names the directory with the model"),
        ("\nmodel:\n  engine: auto", "config.yaml:2: model.path is missing; it names the directory with the model"),
        ("model: {path: m}\nparms: {}", "config.yaml:2: parms: unknown key; did you mean 'params'?"),
        (
            "model: {path: m}\nname: a b",
            "config.yaml:2: name: wants 1 to 64 letters, digits and _ . { } - (got 'a b')",
        ),
        (
            "model: {path: m}\nname: on",
            f"config.yaml:2: name: wants 1 to 64 letters, digits and _ . {{ }} -{BOOLEAN} (got true)",
        ),
        (
            "model: {path: m}\ndata: 5",
            "config.yaml:2: data: wants keys with values below it, indented (got 5)",
        ),
        ("model: {path: m}\nspark: {mster: x}", "config.yaml:2: spark.mster: unknown key; did you mean 'master'?"),
        (
            "model: {path: m}\nspark: {driver_memory: 4G}",
            "config.yaml:2: spark.driver_memory: wants a size with its unit, k, m, g or t, as 4g (got '4G')",
        ),
        (
            "model: {path: m}\nredis: {password: x}",
            "config.yaml:2: redis.password: unknown key; did you mean 'password_file'?",
        ),
        (
            "model: {path: m}\nredis: {timeout_s: 0}",
            "config.yaml:2: redis.timeout_s: wants a number above 0 up to 315360000 (got 0)",
        ),
        (
            "model: {path: m}\nflink: {java_options: -Xmx1g -Da=b}",
            f"config.yaml:2: flink.java_options: {JAVA_WANTED} (got '-Xmx1g -Da=b')",
        ),
        (
            "model: {path: m}\nflink: {parallelism: 0}",
            "config.yaml:2: flink.parallelism: wants a whole number from 1 to 256 (got 0)",
        ),
        ("model: {path: m}\nflink: {master: x}", FLINK_KEYS),
        ("", "config.yaml: is empty or no mapping; it wants at least 'model:' with 'path:' below it"),
        ("- a", "config.yaml: is empty or no mapping; it wants at least 'model:' with 'path:' below it"),
        ("a: [", "config.yaml:1: not valid YAML: expected the node content, but found '<stream end>'"),
        ("model:\n\tpath: m", "config.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: " + "[" * 5000, "config.yaml: lists or mappings are nested too deep"),
        ("? [1]\n: 2", "config.yaml:1: not valid YAML: found unhashable key"),
        ("model: {path: m}\n---\nname: a", "config.yaml:2: not valid YAML: but found another document"),
    ],
)
def test_a_wrong_file_is_answered_with_what_is_wanted(text: str, said: str, tmp_path: Path) -> None:
    assert mistakes(text, tmp_path) == said


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    said = mistakes("model:\n  pth: m\nparams:\n  top_n: x\n", tmp_path).splitlines()
    assert said == [
        "config.yaml:1: model.path is missing; it names the directory with the model",
        "config.yaml:2: model.pth: unknown key; did you mean 'path'?",
        f"config.yaml:4: params.top_n: {TOP_N_WANTED} (got 'x')",
    ]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    said = mistakes("model:\n  path: m\nparams:\n  top_n: 1\n  top_n: 2\n", tmp_path)
    assert said == "config.yaml:5: params.top_n stands here and in line 4; keep one"
    said = mistakes("model: {path: m}\ndata: {}\nmodel: {path: n}\n", tmp_path)
    assert said == "config.yaml:3: model stands here and in line 1; keep one"


@pytest.mark.parametrize("src", ["redis://:s3cret@host:6379", "worker:s3cret@host", "redis://:s3cret@/host@x"])
def test_a_password_in_the_file_is_refused_and_not_repeated(src: str, tmp_path: Path) -> None:
    said = mistakes(f"model: {{path: m}}\ndata:\n  src: {src}\n", tmp_path)
    assert said == (
        "config.yaml:3: data.src: a password must not stand in the file; "
        "set BEAM_SERVING_REDIS_PASSWORD or redis: password_file"
    )


def test_a_password_in_an_address_that_is_no_address_is_not_repeated(tmp_path: Path) -> None:
    assert "s3cret" not in mistakes("model: {path: m}\ndata: {src: 'redis://:s3/cret@host'}", tmp_path)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    said = mistakes("model:\n  path: !!python/object/apply:os.getcwd []\n", tmp_path)
    assert said.startswith("config.yaml:2: not valid YAML: could not determine a constructor for the tag")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    hint = "; --config names a YAML file such as config.yaml"
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, reason in (
        ("none.yaml", "No such file or directory"),
        (".", "Is a directory"),
        ("binary", "not UTF-8 text"),
    ):
        path = tmp_path / name
        with pytest.raises(ConfigError, match=re.escape(f"{path}: cannot read the configuration ({reason}){hint}")):
            load_settings(path)


def _defaults(section: type[BaseModel]) -> dict[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in section.model_fields.items()}


def _sections() -> dict[str, type[BaseModel]]:
    return {name: field.annotation for name, field in Settings.model_fields.items() if name != "name"}  # type: ignore[misc]


def test_every_key_stands_in_the_configuration_of_the_repository() -> None:
    shown = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    assert set(shown) == set(Settings.model_fields)
    for name, section in _sections().items():
        assert list(shown[name]) == list(section.model_fields), name


def test_the_values_in_the_configuration_of_the_repository_are_the_defaults() -> None:
    settings = load_settings(REPOSITORY / "config.yaml")
    assert settings.name == Settings.model_fields["name"].default
    for name, section in _sections().items():
        shown = dict(getattr(settings, name))
        wanted = _defaults(section)
        if name == "model":
            del shown["path"], wanted["path"]
        if name == "data":
            assert shown.pop("scale") == (1 / 255,)
            assert wanted.pop("scale") == (1.0,)
        assert shown == wanted, name


def test_the_configuration_of_the_repository_serves_the_bundled_model() -> None:
    settings = load_settings(REPOSITORY / "config.yaml")
    assert Path(settings.model.path) == REPOSITORY / "beam_serving/demo/model"
    assert Path(settings.model.path).is_dir()


def test_the_first_name_of_the_largest_request_is_still_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model:\n  path: noop\ndata:\n  max_payload_bytes: 1000\n")
    assert load_settings(file).data.max_request_bytes == 1000
    file.write_text("model:\n  path: noop\ndata:\n  max_payload_bytes: 1000\n  max_request_bytes: 2000\n")
    with pytest.raises(ConfigError, match="max_payload_bytes is the first name of max_request_bytes"):
        load_settings(file)
