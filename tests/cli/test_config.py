"""`config check` and `config migrate`: what they print and write, and their exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from beam_serving.cli import main as cli
from beam_serving.config.schema import load_settings
from tests.service import DIGITS

CONFIGS = Path(__file__).parents[1] / "fixtures" / "configs"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text("# which\nmodelPath: m\njobName: birds\nredisMaxmemory: 8g\n", encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    return cli.main(["config", *map(str, arguments)])


def test_check_says_what_each_key_means(old: Path, capsys: Captured) -> None:
    assert run("check", old, "--no-model") == 0
    said = capsys.readouterr()
    assert said.err == ""
    title, blank, *rows = said.out.splitlines()
    assert (title, blank) == (f"{old}: Cluster Serving 0.10 or later", "")
    assert [row.split()[:4] for row in rows] == [
        ["key", "value", "new", "key"],
        ["modelPath", "m", "model.path", "m"],
        ["jobName", "birds", "name", "birds"],
        ["data.streams", '["image_stream",', '"serving_stream",', '"birds"]'],
        ["redisMaxmemory", "8g", "-", "-"],
        ["postProcessing", "-", "params.post_processing", "none"],
    ]
    assert rows[4].endswith(
        "warning: this service starts no Redis; set maxmemory, and maxmemory-policy noeviction, in its own"
    )


def test_check_prints_json_for_programs(old: Path, capsys: Captured) -> None:
    assert run("check", old, "--no-model", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["file"], about["form"], about["loads"], about["errors"]) == (
        str(old),
        "Cluster Serving 0.10 or later",
        True,
        [],
    )
    assert about["keys"][1] == {
        "key": "jobName",
        "line": 3,
        "value": "birds",
        "new": {"name": "birds", "data.streams": ["image_stream", "serving_stream", "birds"]},
        "remark": "the stream 'birds' is served beside those of clients without a name",
        "warning": False,
    }


@pytest.mark.parametrize("name", ["seed", "v0_7", "v0_8", "v0_9", "v0_10", "v2"])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_check_accepts_every_generation_and_shows_no_secret(name: str, flags: list[str], capsys: Captured) -> None:
    assert run("check", CONFIGS / f"{name}.yaml", "--no-model", *flags) == 0
    said = capsys.readouterr().out
    assert "s3cret" not in said
    assert "1234qwer" not in said


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_check_of_a_file_that_does_not_load_says_each_mistake_in_a_line(
    old: Path, flags: list[str], capsys: Captured
) -> None:
    old.write_text("modelPath: m\nredisTimeout: 0\nredisUrl: redis://:s3cret@a\n", encoding="utf-8")
    assert run("check", old, *flags) == 2
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"error: {old}:2: redisTimeout: wants milliseconds, more than 0 (got 0)",
        f"error: {old}:3: redisUrl: a password must not stand in the file; "
        "set BEAM_SERVING_REDIS_PASSWORD or redis: password_file",
    ]
    assert "s3cret" not in said.out
    if flags:
        assert json.loads(said.out)["loads"] is False


def test_check_loads_the_model_and_says_what_it_takes(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{path: {DIGITS / 'model'}}}\n", encoding="utf-8")
    assert run("check", path) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "the model can be served: engine openvino, takes data (float32[3, 32, 32]), gives prob (float32[10])"
    )
    assert run("check", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"]["inputs"][0]["shape"] == [3, 32, 32]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("model: {path: nothing}", "/nothing: there is no such directory; wanted is a model directory"),
        ("model: {path: MODEL, labels: two.txt}", "two.txt"),
        ("model: {path: MODEL}\nparams: {pipeline: 'bad.py:build'}", "RuntimeError: not today"),
        ("model: {path: MODEL}\ndata: {shape: {data: [9, 9, 9]}}", "data"),
        ("model: {path: MODEL}\ndata: {encryption: all, secret_file: none.txt}", "none.txt"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_check_fails_where_every_request_would(
    change: str, wanted: str, flags: list[str], tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "two.txt").write_text("zero\none\n", encoding="utf-8")
    (tmp_path / "bad.py").write_text(
        "def build(pipeline, serving):\n    raise RuntimeError('not today')\n", encoding="utf-8"
    )
    path = tmp_path / "config.yaml"
    path.write_text(change.replace("MODEL", str(DIGITS / "model")) + "\n", encoding="utf-8")
    assert run("check", path, *flags) == 2
    said = capsys.readouterr()
    assert wanted in said.err
    assert said.err.startswith("error: ")
    if flags:
        assert json.loads(said.out)["model"] is None
    assert run("check", path, "--no-model") == 0


def test_check_of_a_new_file_finds_nothing_to_change(capsys: Captured) -> None:
    assert run("check", "config.yaml", "--no-model") == 0
    assert capsys.readouterr().out.startswith("config.yaml: this project's own form\n")


def test_migrate_prints_the_new_form_and_leaves_the_file(old: Path, capsys: Captured) -> None:
    before = old.read_text(encoding="utf-8")
    assert run("migrate", old) == 0
    said = capsys.readouterr()
    assert said.out.startswith("name: birds\n\nmodel:\n  # which\n  path: m\n\n")
    assert said.err == ""
    assert old.read_text(encoding="utf-8") == before


def test_migrate_writes_to_another_file_once(old: Path, capsys: Captured) -> None:
    target = old.with_name("config.yaml")
    assert run("migrate", old, "-o", target) == 0
    assert load_settings(target) == load_settings(old)
    assert run("migrate", old, "-o", target) == 2
    assert capsys.readouterr().err == f"error: {target} exists already; --force overwrites it\n"
    assert run("migrate", old, "-o", target, "--force") == 0


def test_migrate_overwrites_the_file_itself_only_when_told(old: Path, capsys: Captured) -> None:
    settings = load_settings(old)
    assert run("migrate", old, "-o", old, "--force") == 2
    assert capsys.readouterr().err == f"error: {old} is the file to migrate; --in-place overwrites it\n"
    assert run("migrate", old, "--in-place") == 0
    assert load_settings(old) == settings
    text = old.read_text(encoding="utf-8")
    assert run("migrate", old, "--in-place") == 0
    assert capsys.readouterr().err == f"{old} is of the new form already\n"
    assert old.read_text(encoding="utf-8") == text


def test_migrate_to_another_folder_keeps_what_paths_lead_to(old: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    target = tmp_path / "new" / "config.yaml"
    assert run("migrate", old, "-o", target) == 0
    assert "path: ../m\n" in target.read_text(encoding="utf-8")


def test_migrate_writes_nothing_where_the_file_does_not_load(old: Path, capsys: Captured) -> None:
    old.write_text("modelPath: m\nmodelEncrypted: maybe\n", encoding="utf-8")
    assert run("migrate", old, "-o", old.with_name("new.yaml")) == 2
    assert capsys.readouterr().err.startswith(f"error: {old}:2: modelEncrypted: wants true or false")
    assert not old.with_name("new.yaml").exists()


def test_migrate_to_where_nothing_can_be_written_says_why(old: Path, capsys: Captured) -> None:
    target = old.parent / "none" / "config.yaml"
    assert run("migrate", old, "-o", target) == 2
    assert capsys.readouterr().err == f"error: {target}: cannot be written (No such file or directory)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command; beam-serving config --help has examples"),
        (["check"], "Missing argument 'FILE'; beam-serving config check --help has examples"),
        (["look"], "No such command 'look'"),
        (["migrate", "a", "-o", "b", "--in-place"], "--output and --in-place name two places; leave one out"),
        (["check", "/none.yaml"], "/none.yaml: cannot read the configuration (No such file or directory)"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_line(arguments: list[str], said: str, capsys: Captured) -> None:
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["migrate", "--help"]])
def test_every_help_has_an_example(arguments: list[str], capsys: Captured) -> None:
    assert run(*arguments) == 0
    assert "python -m beam_serving config " in capsys.readouterr().out


VARIABLES = """\
modelPath: ${DIR}/m   # the model
jobName: ${JOB}
postProcessing: topN(2)
"""


def test_check_shows_the_names_of_variables_and_not_what_they_hold(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    old.write_text(VARIABLES.replace("jobName: ${JOB}\n", "threadPerModel: ${N}\n"), encoding="utf-8")
    monkeypatch.setenv("DIR", "s3cret")
    monkeypatch.setenv("N", "77777")
    for flags in ([], ["--json"]):
        assert run("check", old, *flags) == 2
        said = capsys.readouterr()
        assert "s3cret" not in said.out + said.err
        assert "77777" not in said.out + said.err
        assert "${DIR}/m" in said.out
        assert said.err.startswith(
            f"error: {old}:2: threadPerModel: wants a number from 0 to 1024 or 'auto' (got '${{N}}')"
        )


def test_check_says_which_value_is_from_beside_the_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("BEAM_SERVING__DATA__SRC", "redis-1:1")
    assert run("check", old, "--set", "params.top_n=3", "--set", "name=", "--no-model", "--json") == 0
    keys = {(one["key"], one["line"]): one for one in json.loads(capsys.readouterr().out)["keys"]}
    assert keys["data.src", None]["new"] == {"data.src": "redis-1:1"}
    assert keys["data.src", None]["remark"] == "by environment variable BEAM_SERVING__DATA__SRC"
    assert keys["params.top_n", None]["remark"] == "by --set params.top_n"
    assert keys["postProcessing", None]["remark"].endswith("; replaced by --set params.top_n")
    assert keys["jobName", 3]["remark"].endswith("; replaced by --set name")
    assert keys["name", None]["new"] == {"name": None}


def test_check_shows_no_password_of_the_environment(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("BEAM_SERVING__DATA__SRC", "redis://:s3cret@host")
    for flags in ([], ["--json"]):
        assert run("check", old, *flags) == 2
        said = capsys.readouterr()
        assert "s3cret" not in said.out + said.err


def test_migrate_keeps_variables_and_refuses_to_write_down_what_they_hold(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("DIR", "s3cret")
    monkeypatch.setenv("JOB", "birds")
    old.write_text(VARIABLES.replace("jobName: ${JOB}\n", ""), encoding="utf-8")
    assert run("migrate", old) == 0
    said = capsys.readouterr().out
    assert "path: ${DIR}/m  # the model\n" in said
    assert "s3cret" not in said
    old.write_text(VARIABLES, encoding="utf-8")
    assert run("migrate", old) == 2
    hand = "has a variable, whose value would stand in the new form; write it there by hand"
    assert capsys.readouterr().err == f"error: {old}:2: jobName: {hand}\n"
    (old.parent / "new").mkdir()
    old.write_text(VARIABLES.replace("jobName: ${JOB}\n", ""), encoding="utf-8")
    assert run("migrate", old, "-o", old.parent / "new" / "config.yaml") == 2
    assert capsys.readouterr().err == f"error: {old}:1: modelPath: {hand}\n"


def test_the_environment_is_no_part_of_what_migrate_writes(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run("migrate", old) == 0
    without = capsys.readouterr().out
    monkeypatch.setenv("BEAM_SERVING__MODEL__PATH", "elsewhere")
    monkeypatch.setenv("BEAM_SERVING__NO__SUCH", "1")
    assert run("migrate", old) == 0
    assert capsys.readouterr().out == without


def test_a_check_that_loads_the_model_has_no_warnings_of_libraries(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"model:\n  path: {DIGITS / 'model'}\ndata:\n  shape: 3,32,32\n", encoding="utf-8")
    command = [sys.executable, "-m", "beam_serving", "config", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the model can be served" in done.stdout
