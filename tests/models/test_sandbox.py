"""What a process in the sandbox can do, tried for real; and that the first load of a model happens in it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_serving.cli.commands import model as command
from beam_serving.errors import ModelLoadError
from beam_serving.models.base import ModelOptions
from beam_serving.models.opening import open_model
from beam_serving.models.trial import sandbox, verdicts
from tests.models.onnx_files import FLOAT, node, saved

ATTEMPTS = """
import json, os, socket, subprocess, sys
own, outside, port = os.environ["TMPDIR"], sys.argv[1], int(sys.argv[2])
attempts = {
    "write": lambda: open(f"{outside}/new", "w"),
    "change": lambda: open(f"{outside}/there", "r+"),
    "append": lambda: open(f"{outside}/there", "a"),
    "cut off": lambda: os.truncate(f"{outside}/there", 1),
    "remove": lambda: os.unlink(f"{outside}/there"),
    "rename": lambda: os.rename(f"{outside}/there", f"{outside}/gone"),
    "move in": lambda: os.rename(f"{outside}/there", f"{own}/there"),
    "link": lambda: os.link(f"{outside}/there", f"{own}/there"),
    "directory": lambda: os.mkdir(f"{outside}/directory"),
    "symlink": lambda: os.symlink("/", f"{outside}/symlink"),
    "rights": lambda: os.chmod(f"{outside}/there", 0o777),
    "owner": lambda: os.chown(f"{outside}/there", os.getuid(), os.getgid()),
    "by a child": lambda: subprocess.run(["/bin/sh", "-c", f"echo x > {outside}/new"], check=True, capture_output=True),
    "connect": lambda: socket.create_connection(("127.0.0.1", port)),
    "datagram": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "signal": lambda: os.kill(os.getppid(), 0),
    "memory of the parent": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "environment of the parent": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
    "own file": lambda: open(f"{own}/file", "w").write("x"),
    "own child": lambda: subprocess.run(["/bin/sh", "-c", f"echo x > {own}/x"], check=True),
    "null": lambda: open("/dev/null", "w").write("x"),
    "read": lambda: open(f"{outside}/there").read(),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, subprocess.CalledProcessError):
        continue
    done.append(name)
print(json.dumps([os.environ["BEAM_SERVING_SANDBOX"], done]))
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_process_can_read_and_write_into_its_own_folder_only(tmp_path: Path, listening: int) -> None:
    outside, own, code = tmp_path / "outside", tmp_path / "own", tmp_path / "code"
    for folder in (outside, own, code):
        folder.mkdir()
    (outside / "there").write_text("unchanged")
    (code / "attempts_of_a_test.py").write_text(ATTEMPTS)
    before = (outside / "there").stat()

    run = sandbox.command("required", [own], "attempts_of_a_test", str(outside), str(listening))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(code), *sys.path])}
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)

    assert json.loads(done.stdout) == [sandbox.FULL, ["own file", "own child", "null", "read"]]
    assert [path.name for path in outside.iterdir()] == ["there"]
    assert (outside / "there").read_text() == "unchanged"
    assert (outside / "there").stat().st_mode == before.st_mode


def test_secrets_of_the_service_do_not_reach_the_process() -> None:
    secrets = ("MODEL_SECRET", "RECORD_SALT", "REDIS_PASSWORD")
    given = {f"BEAM_SERVING_{name}": "x" for name in secrets} | {"AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "x"}
    plain = {"PATH": "/bin", "OMP_NUM_THREADS": "1"}

    assert sandbox.without_secrets(given | plain) == plain


def scaled(directory: Path, by: float) -> Path:
    tensor = ("batch", 2)
    return saved(directory, [node("Mul", "x w", "y")], [("x", FLOAT, tensor)], [("y", FLOAT, tensor)], {"w": by})


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    started: list[list[str]] = []
    completed = verdicts._completed

    def noted(command: list[str], given: bytes) -> Any:
        started.append(command)
        return completed(command, given)

    monkeypatch.setattr(verdicts, "_completed", noted)
    return started


def served(directory: Path, **options: Any) -> float:
    found = open_model(directory, ModelOptions(**options))
    assert found.copy is not None
    found.copy.close()
    return float(found.model.predict({"x": np.ones((1, 2), np.float32)})["y"][0, 0])


def test_the_first_load_of_a_model_is_in_the_sandbox_and_later_ones_cost_nothing(
    tmp_path: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = scaled(tmp_path / "model", 2.5)
    assert served(directory) == 2.5
    assert [one[3:5] for one in commands] == [["beam_serving.models.trial.sandbox", "auto"]]
    assert served(directory, sandbox="required") == 2.5
    assert len(commands) == 1

    assert command.main(["inspect", str(directory)]) == 0
    assert f"tried with  {sandbox.FULL}" in capsys.readouterr().out


def test_what_was_found_without_the_sandbox_does_not_do_where_it_is_required(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    directory = scaled(tmp_path / "model", 3.5)
    assert served(directory, sandbox="off") == 3.5
    assert [one[3] for one in commands] == ["beam_serving.models.trial.trial_process"]
    assert served(directory) == 3.5
    assert len(commands) == 1
    assert served(directory, sandbox="required") == 3.5
    assert [one[4] for one in commands[1:]] == ["required"]


def test_a_verdict_that_came_with_a_model_does_not_let_it_around_the_sandbox(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = scaled(tmp_path / "model", 4.5)
    command.verify_model(directory, ModelOptions(), keep=True)
    assert (directory / verdicts.KEPT).exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    commands.clear()

    assert served(directory) == 4.5
    assert served(directory) == 4.5
    assert [one[3:5] for one in commands] == [["beam_serving.models.trial.sandbox", "auto"]]


def test_a_machine_without_a_sandbox_is_told_where_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python says of the machine stands for one without Landlock."""
    directory, code = scaled(tmp_path / "model", 5.5), tmp_path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text("import sys\nsys.platform = 'darwin'\n" if sys.platform == "linux" else "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), *sys.path]))

    with pytest.raises(ModelLoadError) as refused:
        served(directory, sandbox="required")
    assert str(refused.value) == (
        f"{directory / 'model.onnx'}: model: sandbox is required: wanted is a sandbox with no network, no writes, "
        "this machine gives none: darwin has no Landlock and no seccomp; set it to auto or off"
    )


def test_a_link_out_of_the_directory_is_no_part_of_a_model(tmp_path: Path) -> None:
    directory = scaled(tmp_path / "model", 6.5)
    (tmp_path / "secret").write_text("secret")
    (directory / "inside").write_text("vocabulary")
    (directory / "also").symlink_to("inside")
    assert served(directory) == 6.5

    (directory / "vocabulary").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelLoadError, match=r"vocabulary: is a link to .*secret, out of the directory of the model"):
        served(directory)


def test_a_model_of_links_as_the_hugging_face_hub_keeps_them_is_served(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1234"
    scaled(snapshot, 7.5)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    (snapshot / "labels.txt").write_text("a\nb\n")
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")

    assert served(snapshot) == 7.5
