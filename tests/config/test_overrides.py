"""Values from beside the file: file < environment < --set, with the same checks, and variables in values."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from beam_serving.config.overrides import variable_of
from beam_serving.config.schema import Settings, all_keys, load_settings
from beam_serving.errors import ConfigError

CONFIG = "model: {path: m}\ndata: {src: 'file:1', group: of file}\nparams: {batch_size: 8}\n"
V = "BEAM_SERVING__"


def load(folder: Path, text: str, *sets: str, **environment: str) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, sets, environment)


def refused(folder: Path, text: str, *sets: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *sets, **environment)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def said_of(folder: Path, text: str, *sets: str, **environment: str) -> str:
    """Gives what is said of a configuration, nothing where it can be used."""
    try:
        load(folder, text, *sets, **environment)
    except ConfigError as err:
        return str(err)
    return ""


def test_the_last_source_that_says_something_counts(tmp_path: Path) -> None:
    assert load(tmp_path, CONFIG).data.src == "file:1"
    assert load(tmp_path, CONFIG, BEAM_SERVING__DATA__SRC="variable:2").data.src == "variable:2"
    settings = load(tmp_path, CONFIG, "data.src=flag:3", BEAM_SERVING__DATA__SRC="variable:2")
    assert (settings.data.src, settings.data.group, settings.params.batch_size) == ("flag:3", "of file", 8)
    assert load(tmp_path, CONFIG, "data.src=one:1", "data.src=two:2").data.src == "two:2"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("name", "123", "123"),
        ("name", "on", "on"),
        ("data.src", "redis://u@host:1/2", "redis://u@host:1/2"),
        ("data.group", "a=b", "a=b"),
        ("data.group", " 2026-11-30 ", "2026-11-30"),
        ("data.shape", "3,224,224", (3, 224, 224)),
        ("data.shape", "[[3,224,224],[10]]", ((3, 224, 224), (10,))),
        ("data.shape", "{image: [3, 8, 8], n: 1}", {"image": (3, 8, 8), "n": (1,)}),
        ("data.streams", "a, b", ("a", "b")),
        ("data.streams", "[a, b]", ("a", "b")),
        ("data.mean", "[1, 2.5]", (1.0, 2.5)),
        ("data.scale", "1e-3", (0.001,)),
        ("data.share", "true", True),
        ("data.share", "off", False),
        ("data.max_pixels", "100", 100),
        ("params.workers", "auto", "auto"),
        ("params.workers", "3", 3),
        ("params.poll_s", "0.5", 0.5),
        ("model.constants", "{keep_prob: 1.0, mode: fast}", {"keep_prob": 1.0, "mode": "fast"}),
        ("model.sandbox", "off", "off"),
        ("model.sample", "[[3, 8, 8], [3]]", ((3, 8, 8), (3,))),
        ("spark.master", "local[*]", "local[*]"),
        ("data.max_request_bytes", "", 64 * 1024 * 1024),
        ("data.group", "", "serving"),
    ],
)
def test_a_value_is_read_as_one_in_quotes_is(key: str, text: str, value: Any, tmp_path: Path) -> None:
    for settings in (
        load(tmp_path, CONFIG, f"{key}={text}"),
        load(tmp_path, CONFIG, **{variable_of(key): text}),
        load(tmp_path, CONFIG, f"{key}=${{X}}", X=text.strip()),
        load(tmp_path, "model: {path: m}", f"{key}={text}"),
    ):
        section, _, name = key.partition(".")
        found = getattr(getattr(settings, section), name) if name else getattr(settings, section)
        assert found == value
        assert type(found) is type(value)
        assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("key", all_keys())
def test_every_key_has_a_variable_and_a_flag(key: str, tmp_path: Path) -> None:
    wrong = "{1: 2}"
    (of_flag,) = refused(tmp_path, CONFIG, f"{key}={wrong}") if key not in TAKES_ANY_TEXT else [f"--set {key}: "]
    assert of_flag.startswith(f"--set {key}: ")
    if key not in TAKES_ANY_TEXT:
        (of_variable,) = refused(tmp_path, CONFIG, **{variable_of(key): wrong})
        assert of_variable == of_flag.replace(f"--set {key}: ", f"environment variable {variable_of(key)}: ")
    else:
        load(tmp_path, CONFIG, f"{key}={wrong}", **{variable_of(key): wrong})


TAKES_ANY_TEXT = (
    *("model.path", "model.engine", "model.labels", "model.secret_file", "data.group", "data.output"),
    *("data.secret_file", "redis.username", "redis.password_file", "redis.ca_file", "flink.rest", "flink.worker_pool"),
    *("flink.worker_pool_secret_file", "flink.worker_command", "flink.job_server_jar", "spark.master"),
    *("spark.worker_command", "spark.job_server_jar"),
)


def test_a_name_that_is_none_is_refused_with_the_nearest(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        CONFIG,
        "data.scr=x",
        "redisUrl=x:1",
        "data.src",
        "=x",
        "redis.password=s3cret",
        BEAM_SERVING__DATA__SCR="s3cret",
        BEAM_SERVING__WORKERS="1",
        BEAM_SERVING_DATA__SRC="x:1",
        BEAM_SERVING__zzz="1",
        BEAM_SERVING__data__src="1",
        BEAM_SERVING_REDIS_PASSWORD="s3cret",  # noqa: S106
        BEAM_SERVING_SERVICE_HOST="of Kubernetes",
        OTHER__THING="1",
    )
    assert said == [
        f"environment variable BEAM_SERVING_DATA__SRC: there is no such key; did you mean {V}DATA__SRC?",
        f"environment variable {V}DATA__SCR: there is no such key; did you mean {V}DATA__SRC?",
        f"environment variable {V}WORKERS: there is no such key; did you mean {V}PARAMS__WORKERS?",
        f"environment variable {V}data__src: there is no such key; did you mean {V}DATA__SRC?",
        f"environment variable {V}zzz: there is no such key; did you mean {V}NAME?",
        "--set data.scr: there is no such key; did you mean data.src?",
        "--set redisUrl: is a key of Cluster Serving; here it is 'data.src'",
        "--set data.src: wants a value behind =, as --set data.src=VALUE",
        "--set : there is no such key; wanted is SECTION.KEY=VALUE, as --set data.src=redis-host:6379",
        "--set redis.password: there is no such key; did you mean redis.password_file?",
    ]


def test_a_wrong_value_is_told_with_its_source_and_those_of_the_file_too(tmp_path: Path) -> None:
    text = "model: {path: m}\nparams:\n  workers: many\n  batch_size: 0\n"
    said = refused(tmp_path, text, "params.top_n=best", BEAM_SERVING__PARAMS__WORKERS="none")
    assert said == [
        "config.yaml:4: params.batch_size: wants a number from 1 to 4096 or 'auto' (got 0)",
        "--set params.top_n: wants 'auto' or a number: how many classes, 0 for the whole output (got 'best')",
        f"environment variable {V}PARAMS__WORKERS: wants a number from 1 to 256 or 'auto' (got 'none')",
    ]
    assert load(tmp_path, text, "params.batch_size=2", BEAM_SERVING__PARAMS__WORKERS="1").params.batch_size == 2


@pytest.mark.parametrize("src", ["redis://:s3cret@host", "u:s3cret@host"])
def test_a_password_is_refused_and_not_repeated_wherever_it_stands(src: str, tmp_path: Path) -> None:
    remedy = "; set BEAM_SERVING_REDIS_PASSWORD or redis: password_file"
    assert refused(tmp_path, CONFIG, f"data.src={src}") == [
        f"--set data.src: a password must not stand on the command line{remedy}"
    ]
    of_variable = refused(tmp_path, CONFIG, BEAM_SERVING__DATA__SRC=src)
    assert of_variable == [f"environment variable {V}DATA__SRC: a password must not stand in an address{remedy}"]
    text = CONFIG.replace("file:1", "${SRC}")
    assert refused(tmp_path, text, SRC=src) == [
        f"config.yaml:2: data.src: a password must not stand in the file{remedy}"
    ]


def test_paths_from_beside_the_file_are_taken_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = load(
        tmp_path, CONFIG, "model.path=../m2", "data.preprocess=steps.py:f", BEAM_SERVING__MODEL__LABELS="names.txt"
    )
    assert settings.model.path == str(tmp_path / "here/../m2")
    assert settings.model.labels == str(tmp_path / "here/names.txt")
    assert settings.data.preprocess == str(tmp_path / "here/steps.py:f")
    assert load(tmp_path, CONFIG).model.path == str(tmp_path / "m")
    assert load(tmp_path, CONFIG, "model.path=noop", "data.output=gs://b/c").data.output == "gs://b/c"


def test_a_file_without_a_path_of_the_model_may_get_it_from_beside(tmp_path: Path) -> None:
    assert load(tmp_path, "data: {}\n", BEAM_SERVING__MODEL__PATH="noop").model.path == "noop"
    assert load(tmp_path, "model:\n", "model.path=noop").model.path == "noop"
    assert refused(tmp_path, "model: 5\n", "model.engine=auto")[0].startswith("config.yaml:1: model: wants keys")


def test_what_is_served_is_said_once_and_the_last_source_that_says_it_counts(tmp_path: Path) -> None:
    both = "model: {path: m}\nparams:\n  top_n: 3\n  post_processing: topN(2)\n"
    said = "says what is served of an output, and so does top_n: 3; leave one of them out (got 'topN(2)')"
    assert refused(tmp_path, both) == [f"config.yaml:4: params.post_processing: {said}"]
    flags = ("params.top_n=3", "params.post_processing=topN(2)")
    assert refused(tmp_path, CONFIG, *flags) == [f"--set params.post_processing: {said}"]

    rule = "model: {path: m}\nparams: {top_n: auto, post_processing: topN(2)}\n"
    assert load(tmp_path, rule).params.post_processing == "topN(2)"
    params = load(tmp_path, rule, BEAM_SERVING__PARAMS__TOP_N="3").params
    assert (params.top_n, params.post_processing) == (3, None)
    params = load(tmp_path, rule, "params.post_processing=none", BEAM_SERVING__PARAMS__TOP_N="3").params
    assert (params.top_n, params.post_processing) == ("auto", "none")


def test_a_file_of_cluster_serving_takes_them_too(tmp_path: Path) -> None:
    old = "modelPath: noop\nredisUrl: file:1\npostProcessing: topN(2)\n"
    settings = load(tmp_path, old, "params.top_n=3", BEAM_SERVING__DATA__SRC="b:2")
    assert (settings.data.src, settings.params.top_n, settings.params.post_processing) == ("b:2", 3, None)


def test_the_first_name_of_a_key_makes_way_for_the_new_one(tmp_path: Path) -> None:
    text = "model: {path: m}\ndata: {max_payload_bytes: 1000}\n"
    assert load(tmp_path, text, "data.max_request_bytes=2000").data.max_request_bytes == 2000


def test_a_start_says_where_values_are_from_and_not_which(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load(tmp_path, CONFIG, "params.workers=3", BEAM_SERVING__DATA__SRC="s3cret:1")
    assert caplog.messages == [
        f"data.src: by environment variable {V}DATA__SRC",
        "params.workers: by --set params.workers",
    ]


def test_the_environment_of_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("file:1", "${HERE}:1"), encoding="utf-8")
    monkeypatch.setenv("HERE", "redis-1")
    monkeypatch.setenv("BEAM_SERVING__PARAMS__WORKERS", "7")
    settings = load_settings(path)
    assert (settings.data.src, settings.params.workers) == ("redis-1:1", 7)


def test_a_variable_of_other_bytes_than_utf_8_is_told(tmp_path: Path) -> None:
    (said,) = refused(tmp_path, CONFIG, BEAM_SERVING__DATA__GROUP=os.fsdecode(b"\xff"))
    assert said.startswith(f"environment variable {V}DATA__GROUP: wants text")


# --- variables in values of the file


def test_variables_in_values_are_expanded_wherever_they_stand(tmp_path: Path) -> None:
    text = """\
name: ${NUMBER}
model:
  path: models/${MODEL}
  constants: {"keep": "${P}", deep: ["${P}", "${WORD}"]}
  allow_weak_secret: ${YES}
data:
  src: ${HOST:-localhost}:${PORT:-6379}
  shape: ${SHAPE}
  streams: ["${A}", b]
  group: $${A} $A costs $5
  labels_are_no_key_here:
params:
  workers: ${NUMBER}
  poll_s: ${P}
  post_processing: ${NOTHING:-}
"""
    text = text.replace("  labels_are_no_key_here:\n", "")
    environment = {"NUMBER": "12", "MODEL": "m", "P": "0.5", "WORD": "x", "YES": "yes", "SHAPE": "[[3, 2],[1]]"}
    settings = load(tmp_path, text, **environment, A="a", HOST="h")
    assert settings.name == "12"
    assert settings.model.path == str(tmp_path / "models/m")
    assert settings.model.constants == {"keep": 0.5, "deep": [0.5, "x"]}
    assert settings.model.allow_weak_secret is True
    assert (settings.data.src, settings.data.shape) == ("h:6379", ((3, 2), (1,)))
    assert (settings.data.streams, settings.data.group) == (("a", "b"), "${A} $A costs $5")
    assert (settings.params.workers, settings.params.poll_s) == (12, 0.5)
    assert settings.params.post_processing is None


def test_a_variable_that_is_not_set_is_named_with_file_and_line(tmp_path: Path) -> None:
    text = "model: {path: m}\ndata:\n  src: ${HOST}:1\n  streams:\n    - ok\n    - ${ A}\nparams: {top_n: '${N'}\n"
    neither = "has a ${ that is neither ${NAME} nor ${NAME:-default}; $${ stands for it"
    assert refused(tmp_path, text) == [
        "config.yaml:3: data.src: the environment has no variable HOST; set it, or write ${HOST:-default} "
        "($${ stands for ${)",
        f"config.yaml:6: data.streams: {neither} ('${{ A}}')",
        f"config.yaml:7: params.top_n: {neither} ('${{N')",
    ]
    assert refused(tmp_path, "model: {path: m}\ndata: {'${A}': 1}", A="src") == [
        "config.yaml:2: ${A}: a key cannot have variables"
    ]
    (said,) = refused(tmp_path, "model: {path: ${A}}", A="src")
    assert said.endswith("; between { } and [ ] a value with ${ } wants quotes around it")
    assert refused(tmp_path, CONFIG, "data.group=${NONE}")[0].startswith("--set data.group: the environment has no")


@pytest.mark.parametrize("key", all_keys())
def test_the_value_of_a_variable_is_never_shown(key: str, tmp_path: Path) -> None:
    section, _, name = key.partition(".")
    body = f"{section}:\n  {name}: ${{SECRET}}\n" if name else f"{key}: ${{SECRET}}\n"
    text = (
        body if key == "model.path" else body + "  path: m\n" if section == "model" else f"model: {{path: m}}\n{body}"
    )
    for value in ("s3cret value!", "[s3cret, [x]]", "s3cret,1", "redis://:s3cret@x", "s3cret@x:y:z", "a;s3cret"):
        for said in (
            said_of(tmp_path, text, SECRET=value),
            said_of(tmp_path, CONFIG, f"{key}=${{SECRET}}", SECRET=value),
        ):
            assert "s3cret" not in said
            assert not said or "${SECRET}" in said or key == "data.src"
