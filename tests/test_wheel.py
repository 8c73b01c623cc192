"""The wheel, built and installed into a folder of its own, serves from there: nothing of the checkout is needed."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
import redis
import yaml
from packaging.requirements import Requirement

from beam_serving import __version__
from beam_serving.cli.main import COMMANDS
from beam_serving.client import InputQueue, OutputQueue
from beam_serving.launch.portable.jar import FLINK, SPARK, Engine
from beam_serving.transport.connection import RedisAt
from tests.jars import jar_of
from tests.service import Service, say_it_is_read
from tests.setup_py import ROOT, SOURCES, copy_sources, declared, needed

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
WITNESS = """
import os, sys

def _tell(event, about):
    if event == "open" and isinstance(about[0], str) and "/beam_serving/" in about[0] and ".py" in about[0]:
        folder = about[0].partition("/beam_serving/")[0]
        if folder not in _told:
            _told.add(folder)
            log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(log, f"{{os.getpid()}} {{folder}}\\n".encode())
            os.close(log)

_told = set()
sys.addaudithook(_tell)
"""
"""A sitecustomize: it has each Python say which folder it reads the package from."""
DONE_S = 120


def pip(*arguments: str) -> None:
    ended = subprocess.run([*PIP, *arguments], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: what an earlier build left in the checkout must not get into it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_sources(source)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={built}", str(source))
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed") / "target"
    pip("install", "--no-deps", "--no-index", f"--target={target}", str(wheel))
    return target


@pytest.fixture(scope="module")
def client_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of what `pip install beam-serving` brings: the wheel, and what setup.py wants always."""
    venv = tmp_path_factory.mktemp("client") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    for name in needed(map(Requirement, declared()["install_requires"])):
        for file in distribution(name).files or ():
            if file.suffix != ".pyc" and not file.as_posix().startswith(".."):
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), packages / file)
    return venv


def run_alone(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(venv / "bin" / "python"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=venv, env=environment)


@pytest.fixture
def outside(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not the checkout, current for this test; Python finds the installed wheel from there."""
    (tmp_path / "sitecustomize.py").write_text(WITNESS.format(log=str(tmp_path / "read-from")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{installed}{os.pathsep}{tmp_path}")
    return tmp_path


@pytest.fixture
def jar(request: pytest.FixtureRequest) -> None:
    """The job server's real jar and the guard's; on a new machine Maven builds them here, once."""
    engine: Engine | None = request.param
    if engine is not None:
        jar_of(engine)


def test_it_holds_every_file_that_the_package_and_its_runners_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if not name.endswith("/")}
    made = {name for name in held if name.startswith("beam_serving-")}
    assert {name.split("/", 1)[1] for name in made} >= {"METADATA", "entry_points.txt", "licenses/LICENSE"}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "beam_serving", "runners"],
        check=True, cwd=ROOT, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    there = {name for name in tracked if (ROOT / name).is_file()}
    assert held - made == {f"beam_serving/{name}" if name.startswith("runners/") else name for name in there}


def test_the_client_alone_is_small(client_alone: Path) -> None:
    (packages,) = client_alone.glob("lib/python3*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 80_000_000


def test_the_client_alone_queues_requests_and_reads_results(
    client_alone: Path, at: RedisAt, client: redis.Redis
) -> None:
    say_it_is_read(client)
    client.hset("cluster-serving_serving_stream:a", mapping={"value": "[[3,0.5]]"})
    program = (
        "from beam_serving import InputQueue, OutputQueue\n"
        f"queue, results = InputQueue({str(at)!r}), OutputQueue({str(at)!r})\n"
        "queue.enqueue('b', [[1.0, 2.0]], text='x')\n"
        "print(results.query('a', timeout_s=5))"
    )
    ended = run_alone(client_alone, "-c", program)
    assert (ended.stdout, ended.stderr) == ("{3: 0.5}\n", "")
    assert client.xlen("serving_stream") == 1


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("from beam_serving import serve", "pip install 'beam-serving[serve]'"),
        ("from beam_serving import Settings", "pip install 'beam-serving[serve]'"),
        ("from beam_serving import InputQueue; InputQueue().enqueue('a', [1.0])", "pip install 'beam-serving[legacy]'"),
        (
            "from beam_serving import InputQueue; InputQueue('h', secret='a secret of ours', salt='and salt')",
            "pip install 'beam-serving[encryption]'",
        ),
        ("from beam_serving import RedisQueue; RedisQueue('pyvenv.cfg')", "pip install 'beam-serving[legacy]'"),
    ],
)
def test_what_the_client_alone_lacks_is_told_with_its_remedy(client_alone: Path, program: str, said: str) -> None:
    ended = run_alone(client_alone, "-c", program)
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]


def test_commands_of_a_client_work_alone(client_alone: Path, at: RedisAt, client: redis.Redis) -> None:
    (client_alone / "cat.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    say_it_is_read(client)
    client.hset("cluster-serving_serving_stream:a", mapping={"value": "[[3,0.5]]"})
    client.xadd("serving_stream:dead", {"uri": "d", "image:": "x", "error": "given up"})
    said = {}
    for command in (
        ["enqueue", "cat.jpg"],
        ["results"],
        ["results", "a", "--json"],
        ["list"],
        ["dead-letter", "list"],
        ["dead-letter", "retry", "--all"],
    ):
        ended = run_alone(client_alone, "-m", "beam_serving", *command, "--src", str(at))
        assert (ended.returncode, ended.stderr) == (0, ""), command
        said[" ".join(command)] = ended.stdout
    assert said["results"].splitlines() == ["uri  result", "a    3: 0.5"]
    assert said["results a --json"] == '{"uri": "a", "result": {"3": 0.5}}\n'
    assert "given up" in said["dead-letter list"]
    assert client.xlen("serving_stream") == 2


def test_commands_of_the_service_say_in_one_line_what_the_client_alone_lacks(client_alone: Path) -> None:
    (client_alone / "config.yaml").write_text("model:\n  path: noop\n", encoding="utf-8")
    for command in [
        [],
        ["--workers", "2"],
        *([name] for name in COMMANDS if name not in ("dead-letter", "enqueue", "init", "model", "redis")),
    ]:
        ended = run_alone(client_alone, "-m", "beam_serving", *command)
        assert (ended.returncode, ended.stdout) == (2, ""), command
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: this needs "), command
        assert line.endswith(", which is not installed: pip install 'beam-serving[serve]'"), command
    helped = run_alone(client_alone, "-m", "beam_serving", "--help")
    assert helped.returncode == 0
    assert all(f"\n  {command} " in helped.stdout for command in COMMANDS)
    assert "pip install 'beam-serving[serve]'" in " ".join(helped.stdout.split())
    assert run_alone(client_alone, "-m", "beam_serving", "--version").stdout == f"beam-serving {__version__}\n"


def test_the_image_builds_it_of_the_same_files() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    before_the_wheel = dockerfile[: dockerfile.index("RUN pip wheel")]
    copied = [line.split()[1:-1] for line in before_the_wheel.splitlines() if line.startswith("COPY")]
    assert {name for names in copied for name in names} == {*SOURCES, "docker/locks"}
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in SOURCES} <= set(let_in)


def test_its_programs_and_clusters_start(outside: Path, installed: Path) -> None:
    where = "import beam_serving; print(beam_serving.__file__)"
    commands = {
        f"{sys.executable} -c": [sys.executable, "-c", where],
        "beam-serving": [str(installed / "bin" / "beam-serving"), "--version"],
        "worker": [str(installed / "bin" / "beam-serving-worker"), "--help"],
        "flink": [sys.executable, "-m", "beam_serving.runners.flink.cluster", "--help"],
        "spark": [sys.executable, "-m", "beam_serving.runners.spark.cluster", "--help"],
    }
    ended = {name: subprocess.run(one, check=False, capture_output=True, text=True) for name, one in commands.items()}
    assert {name: one.returncode for name, one in ended.items()} == dict.fromkeys(ended, 0)
    assert ended[f"{sys.executable} -c"].stdout.strip() == str(installed / "beam_serving" / "__init__.py")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("runner", "jar"),
    [("DirectRunner", None), ("FlinkRunner", FLINK), ("SparkRunner", SPARK)],
    indirect=["jar"],
    ids=["DirectRunner", "FlinkRunner", "SparkRunner"],
)
@pytest.mark.usefixtures("jar")
def test_it_drains_a_queue_on_each_runner(
    runner: str, at: RedisAt, client: redis.Redis, outside: Path, installed: Path
) -> None:
    demo = installed / "beam_serving" / "demo"
    config = yaml.safe_load((demo / "config.yaml").read_text(encoding="utf-8"))
    config["model"] = {key: str(demo / file) for key, file in config["model"].items()}
    del config["data"]["src"]
    images = sorted((demo / "images").glob("*.png"))
    with InputQueue(str(at)) as queue:
        for image in images:
            queue.enqueue_image(image.stem, image)
    running = Service(at, outside, config, f"--runner={runner}", "--drain")
    try:
        assert running.process.wait(DONE_S) == 0, running.log
    finally:
        running.process.kill()
    with OutputQueue(str(at)) as results:
        answers = results.query_many([image.stem for image in images], timeout_s=0, delete=True)
    served = {name: list(map(str, answer)) for name, answer in answers.items() if isinstance(answer, dict)}
    assert served == {image.stem: [image.stem.removeprefix("digit_")] for image in images}
    assert client.xlen("serving_stream") == 0
    told = [line.split(" ", 1) for line in (outside / "read-from").read_text(encoding="utf-8").splitlines()]
    assert {folder for _, folder in told} == {str(installed)}
    assert len({pid for pid, _ in told}) >= 2, "not even two processes of it"
