"""The command line: every mistake is one line on standard error and the documented exit code."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
import redis

from beam_serving import __version__
from beam_serving.cli import legacy_names as old_names
from beam_serving.cli import main as cli
from beam_serving.cli.arguments import run
from beam_serving.errors import BeamServingError, ConfigError
from beam_serving.launch.embedded_redis import embedded_redis, free_port
from beam_serving.transport.connection import PASSWORD_VARIABLE, RedisAt

Captured = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("logging_as_before")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that serves the no-op model from a Redis that is not there."""
    path = tmp_path / "config.yaml"
    src = f"127.0.0.1:{free_port()}"
    path.write_text(f"model: {{path: noop}}\ndata: {{src: '{src}'}}\nredis: {{wait_s: 0.1}}\n", encoding="utf-8")
    return path


def error(arguments: list[str], code: int, capsys: Captured) -> str:
    """Runs a command that must fail with `code` and gives its error, which is one line, after what was logged."""
    assert cli.main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    logged = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (INFO|WARNING) \[service\] ")
    (line,) = [line for line in lines if not logged.match(line)]
    assert line == lines[-1]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--worker", "2"], "unknown flag --worker; did you mean --workers?"),
        (["--conf=x"], "unknown flag --conf; did you mean --config?"),
        (["--drain", "--job_nme=x"], "unknown flag --job_nme; did you mean --job_name?"),
        (["--zzzzzzzzzz"], "unknown flag --zzzzzzzzzz; --help lists ours, Beam's documentation the rest"),
        (["--job_name"], "argument --job_name: expected one argument"),
        (
            ["--direct_num_workers=4"],
            "--direct_num_workers would lose records of an endless source; use --workers N",
        ),
        (["server"], f"unknown command 'server'; commands: {', '.join(cli.COMMANDS)}; see --help"),
        (
            ["--runner=DataflowRunner"],
            "--runner=DataflowRunner is not served yet; wanted is one of DirectRunner, FnApiRunner, FlinkRunner, "
            "SparkRunner",
        ),
        (["--", "--runner=FlinkRunner"], "--runner is ours, and stands behind --; put it in front"),
        (
            ["--direct_running_mode=multi_processing"],
            "--direct_running_mode would give one source to several processes; use --workers N",
        ),
        (["--output", "results"], "--output goes with --drain: its files are complete when the queue is empty"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_named(arguments: list[str], said: str, capsys: Captured) -> None:
    assert error(arguments, 2, capsys) == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "0"], "Invalid value for '--workers': wants a number from 1 to 256 or 'auto', got '0'"),
        (["--workers", "many"], "Invalid value for '--workers': wants a number from 1 to 256 or 'auto', got 'many'"),
        (["--workers"], "Option '--workers' requires an argument"),
        (["--log-level", "loud"], "Invalid value for '--log-level': 'loud' is not one of 'debug', 'info', "),
    ],
)
def test_a_wrong_value_of_a_flag_is_answered_in_one_line(arguments: list[str], said: str, capsys: Captured) -> None:
    line = error(arguments, 2, capsys)
    assert line.startswith(said)
    assert line.endswith("; beam-serving --help has examples")


def test_a_flag_of_beam_passes(config: Path, capsys: Captured) -> None:
    said = error(["--config", str(config), "--job_name=digits"], 1, capsys)
    assert "cannot be reached" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output-format", "jsonl"], "--output-format goes with --output"),
        (["--output", ""], "--output is empty; wanted is a folder or an address as gs://bucket/folder"),
        (
            ["--output", "ftp://host/results"],
            "output: ftp:// is no file system of Beam; wanted is a folder or one of gs://, s3://, azfs://, hdfs://",
        ),
        (["--output", "s3://bucket/results"], "output: s3:// needs an extra of Beam: pip install 'apache-beam[aws]'"),
        (["--output", "/r[1]*"], "output /r[1]*: cannot hold * [ ], which Beam takes for a pattern"),
    ],
)
def test_an_output_that_cannot_be_is_told_before_redis_is_asked(
    config: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert error(["--config", str(config), "--drain", *arguments], 2, capsys) == said


def test_an_output_that_cannot_be_written_is_told_before_redis_is_asked(config: Path, capsys: Captured) -> None:
    said = error(["--config", str(config), "--drain", "--output", f"{config}/results"], 2, capsys)
    assert said == f"output {config}/results: cannot be written to: [Errno 20] Not a directory: '{config}/results'"


def test_the_output_may_stand_in_the_configuration(config: Path, capsys: Captured) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace("{src", "{output: nightly, src"), encoding="utf-8")
    said = error(["--config", str(config), "--drain"], 1, capsys)
    assert "cannot be reached" in said
    assert list((config.parent / "nightly").iterdir()) == []


def test_a_missing_configuration_is_named(tmp_path: Path, capsys: Captured) -> None:
    said = error(["--config", str(tmp_path / "none.yaml")], 2, capsys)
    assert said == (
        f"{tmp_path}/none.yaml: cannot read the configuration (No such file or directory); "
        "--config names a YAML file such as config.yaml"
    )


def test_the_configuration_is_looked_for_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error([], 2, capsys).startswith("config.yaml: cannot read the configuration (No such file or directory)")


def test_a_configuration_that_is_no_yaml_is_named_with_its_line(config: Path, capsys: Captured) -> None:
    config.write_text("model:\n  path: [\n", encoding="utf-8")
    said = error(["--config", str(config)], 2, capsys)
    assert said.startswith(f"{config}:3: not valid YAML: ")


def test_a_missing_model_directory_is_named(config: Path, capsys: Captured) -> None:
    config.write_text("model: {path: nothing}\n", encoding="utf-8")
    said = error(["--config", str(config)], 2, capsys)
    assert said == f"{config.parent}/nothing: there is no such directory; wanted is a model directory"


def test_an_empty_model_directory_is_named(config: Path, capsys: Captured) -> None:
    (config.parent / "empty").mkdir()
    config.write_text("model: {path: empty}\n", encoding="utf-8")
    said = error(["--config", str(config)], 2, capsys)
    assert said.startswith(f"{config.parent}/empty: is empty; wanted is one model: *.xml + *.bin (an OpenVINO model), ")


def test_a_redis_that_cannot_be_reached_is_named(config: Path, capsys: Captured) -> None:
    said = error(["--config", str(config)], 1, capsys)
    assert re.fullmatch(
        r"Redis at 127\.0\.0\.1:\d+ cannot be reached \(Error 111 connecting to .* Connection refused\.\); "
        r"start one there \(`beam-serving redis` runs a small one for trying\), or set data: src to where it is",
        said,
    )


def test_a_stream_that_is_no_stream_is_named(config: Path, at: RedisAt, client: redis.Redis, capsys: Captured) -> None:
    client.set("taken", "text")
    text = f"model: {{path: noop}}\ndata: {{src: '{at}', streams: taken}}\n"
    config.write_text(text, encoding="utf-8")
    said = error(["--config", str(config)], 1, capsys)
    assert said.startswith(f"Redis at {at}, stream 'taken': a key that we need holds something else: WRONGTYPE ")


def test_a_wrong_password_ends_the_program_with_one_line(config: Path) -> None:
    with embedded_redis(0, "--requirepass", "right") as port:
        config.write_text(f"model: {{path: noop}}\ndata: {{src: '127.0.0.1:{port}'}}\n", encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-m", "beam_serving", "--config", str(config)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, PASSWORD_VARIABLE: "s3cret-and-wrong"},
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: Redis at 127.0.0.1:{port}: it refuses our user or password (")
    assert line.endswith(f"; set {PASSWORD_VARIABLE} or redis: password_file")
    assert "s3cret" not in line


def test_sigterm_while_redis_is_waited_for_is_handled_so_that_a_first_process_gets_it(config: Path) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace("wait_s: 0.1", "wait_s: 60"), encoding="utf-8")
    command = [sys.executable, "-m", "beam_serving", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("does not answer yet" in line for line in process.stderr)
        process.terminate()
        assert process.wait(10) == 143


def test_the_version_is_told(capsys: Captured) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"beam-serving {__version__}\n"


def test_the_help_lists_flags_and_commands(capsys: Captured) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    for word in ("--config", "--runner", "--workers", "--drain", "--log-level", *cli.COMMANDS):
        assert word in said


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str, capsys: Captured) -> None:
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"\n  python -m beam_serving {command}" in said
    assert max(map(len, said.splitlines())) <= 120


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name not in ("serve", "restart")])
def test_a_flag_that_a_command_does_not_know_is_answered_in_one_line(command: str, capsys: Captured) -> None:
    needed = {"config": ["check", "f"], "model": ["inspect", "m"], "enqueue": ["f"]}.get(command, [])
    said = error([command, *needed, "--zzz"], 2, capsys)
    assert re.match(rf"No such option '--zzz'; beam-serving {command}.* --help has examples$", said)


@pytest.mark.parametrize("command", ["serve", "restart"])
def test_a_command_that_serves_refuses_flags_as_the_bare_program_does(command: str, capsys: Captured) -> None:
    assert error([command, "--worker", "2"], 2, capsys) == "unknown flag --worker; did you mean --workers?"
    said = "--detach waits until the service is ready, and --drain may end it before; leave one out"
    assert error([command, "--detach", "--drain"], 2, capsys) == said


def test_serve_is_the_bare_program(config: Path, capsys: Captured) -> None:
    assert "cannot be reached" in error(["serve", "--config", str(config)], 1, capsys)


def test_an_old_name_is_a_command_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(old_names, "main", lambda arguments: asked.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["cluster-serving-x", "-c", "old.yaml", "-p", "5"])
    assert [old_names.start(), old_names.restart(), old_names.stop()] == [0, 0, 0]
    monkeypatch.setattr(sys, "argv", ["cluster-serving-init"])
    assert old_names.init() == 0
    assert asked == [
        ["serve", "--detach", "-c", "old.yaml", "--workers", "5"],
        ["restart", "--detach", "-c", "old.yaml", "--workers", "5"],
        ["stop", "-c", "old.yaml", "-p", "5"],
        ["init"],
    ]


def _run_as_model(monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException) -> int:
    """Runs a command that does nothing but what `outcome` says."""

    def command(arguments: list[str]) -> int:
        assert arguments == ["--quick"]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setitem(sys.modules, "beam_serving.cli.commands.model", types.SimpleNamespace(main=command))
    return cli.main(["model", "--quick"])


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0),
        (3, 3),
        (ConfigError("wrong"), 2),
        (BeamServingError("wrong"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_command_gives_the_exit_code(
    outcome: int | BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert _run_as_model(monkeypatch, outcome) == code
    assert capsys.readouterr().err == ("error: wrong\n" if isinstance(outcome, BeamServingError) else "")


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        _run_as_model(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize("raised", [EOFError("end"), BrokenPipeError(32, "Broken pipe")])
def test_what_ends_inside_a_command_is_not_taken_for_a_closed_terminal(raised: Exception) -> None:
    @click.command()
    def command() -> None:
        raise raised

    with pytest.raises(type(raised)):
        run(command, [], "test")
