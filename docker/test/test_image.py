"""The image and what runs of it, looked at from outside."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine
from serving import IMAGE, LISTENERS, NAME, SCRIPT, Running, running, serve_digits

from beam_serving.launch.embedded_redis import embedded_redis
from beam_serving.transport.connection import RedisAt


@pytest.fixture(scope="module")
def serving(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that the tests only look at."""
    folder = tmp_path_factory.mktemp("serving")
    with embedded_redis() as port:
        serve_digits(folder, RedisAt("127.0.0.1", port))
        with running(engine, folder) as service:
            service.await_log("ready: ")
            yield service


def test_it_runs_as_an_unprivileged_user_without_capabilities(serving: Running) -> None:
    lines = serving.inside("cat", "/proc/1/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split() + status["Gid"].split()) == {"10001"}
    assert [int(status[which], 16) for which in ("CapInh", "CapPrm", "CapEff", "CapBnd")] == [0, 0, 0, 0]
    assert status["NoNewPrivs"] == "1"


def test_its_user_is_a_number_so_that_kubernetes_can_tell(engine: Engine) -> None:
    user = engine.run("image", "inspect", "--format", "{{.Config.User}}", IMAGE)
    assert user.strip() == "10001:10001"


def test_its_root_file_system_is_read_only(serving: Running) -> None:
    places = ["/", "/serving", "/serving/model", "/opt/beam-serving", "/run", "/var/tmp"]  # noqa: S108
    for place in places:
        # As root, whom only a file system stops.
        with pytest.raises(RuntimeError, match="Read-only file system"):
            serving.engine.run("exec", "--user", "0", NAME, "touch", f"{place}/written")
    serving.inside("touch", "/tmp/written")  # noqa: S108


def test_it_listens_nowhere(serving: Running) -> None:
    assert json.loads(serving.inside("python", "-c", LISTENERS)) == []


def test_it_holds_no_package_installer(serving: Running) -> None:
    with pytest.raises(RuntimeError, match="No module named pip"):
        serving.inside("python", "-m", "pip", "--version")


def test_it_is_healthy_while_it_serves(serving: Running) -> None:
    assert serving.healthy()
    assert serving.engine.run("inspect", "--format", "{{.State.Health.Status}}", NAME).strip() == "healthy"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.yaml", "error: there is no file config.yaml; docker/README.md says how to get one\n"),
        ("model", "error: there is no directory model; set MODEL to the one that holds the model\n"),
    ],
)
def test_what_is_missing_is_told_before_anything_starts(missing: str, message: str, folder: Path) -> None:
    (folder / missing).rename(folder / "elsewhere")
    ended = subprocess.run(
        [SCRIPT], check=False, cwd=folder, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    )
    assert (ended.returncode, ended.stderr) == (2, message)


def test_a_configuration_to_start_from_comes_out_of_the_image(engine: Engine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    engine.run("run", "--rm", "--user=0", f"--volume={tmp_path}:/serving", IMAGE, "init")
    assert "path: model " in (tmp_path / "config.yaml").read_text(encoding="utf-8")
