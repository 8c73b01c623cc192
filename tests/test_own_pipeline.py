"""The operator's own pipeline: the one of docs/pipelines.md on each runner, and what is refused before it starts."""

import logging
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apache_beam as beam
import pytest
import redis
import yaml

from beam_serving.cli.main import main
from beam_serving.client import InputQueue, OutputQueue, ResultError
from beam_serving.config.own_code import OwnCode
from beam_serving.config.schema import load_settings
from beam_serving.errors import ConfigError
from beam_serving.io.readers import Readers
from beam_serving.launch.own_pipeline import build_pipeline
from beam_serving.launch.preflight import preflight
from beam_serving.launch.rehearsal import rehearse
from beam_serving.launch.service import serve
from beam_serving.pipeline import steps
from beam_serving.transport.connection import RedisAt
from tests.service import USUAL, Service, await_true, service

PAGE = Path(__file__).parents[1] / "docs" / "pipelines.md"


def blocks(part: str) -> list[str]:
    """Gives the indented blocks of the page that have this part."""
    found = re.findall(r"(?:^    .*\n(?:^\n)*)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [text for text in map(textwrap.dedent, found) if part in text]


def written(folder: Path, at: RedisAt, code: str, pipeline: str = "lengths.py:build", name: str = "lengths") -> Path:
    (folder / "lengths.py").write_text(code, encoding="utf-8")
    (config,) = blocks("{pipeline: ")
    path = folder / "config.yaml"
    about = yaml.safe_load(config)
    about["params"]["pipeline"] = pipeline
    path.write_text(
        yaml.safe_dump({"name": name, "data": {"src": str(at), "streams": USUAL}, **about}), encoding="utf-8"
    )
    return path


@pytest.fixture
def own(at: RedisAt, tmp_path: Path) -> Path:
    (code,) = blocks("class Length")
    return written(tmp_path, at, code)


@pytest.mark.parametrize("runner", ["DirectRunner", "FlinkRunner", "SparkRunner"])
def test_the_pipeline_of_the_page_answers_on_each_runner(
    at: RedisAt, client: redis.Redis, own: Path, runner: str
) -> None:
    with InputQueue(str(at)) as queue, OutputQueue(str(at)) as results:
        for number in range(1, 40):
            queue.enqueue(f"r{number}", point=[3.0 * number, 4.0 * number])
        client.xadd("serving_stream", {"uri": "odd", "nothing": "that a client would send"})
        assert main(["serve", "--config", str(own), "--runner", runner, "--drain", "--workers", "1"]) == 0
        for number in range(1, 40):
            assert results.query(f"r{number}", timeout_s=5) == [5.0 * number]
        with pytest.raises(ResultError):
            results.query("odd", timeout_s=5)
    assert client.xlen("serving_stream") == 0


@contextmanager
def served(at: RedisAt, folder: Path, code: str, workers: int) -> Iterator[tuple[Service, InputQueue, OutputQueue]]:
    """A service with a pipeline of its own, and its clients."""
    (folder / "lengths.py").write_text(code, encoding="utf-8")
    params = {"pipeline": "lengths.py:build", "top_n": 0, "workers": workers}
    with (
        service(at, folder, {"params": params}) as running,
        InputQueue(str(at)) as queue,
        OutputQueue(str(at)) as results,
    ):
        yield running, queue, results


def test_it_is_supervised_as_ours(at: RedisAt, client: redis.Redis, tmp_path: Path) -> None:
    (code,) = blocks("class Length")
    with served(at, tmp_path, code, workers=2) as (running, queue, results):
        first = running.worker_pids()[0]
        queue.enqueue("a", point=[3.0, 4.0])
        assert results.query("a", timeout_s=10) == [5.0]
        subprocess.run(["kill", "-9", str(first)], check=True)
        for number in range(20):
            queue.enqueue(f"b{number}", point=[6.0, 8.0])
        assert [results.query(f"b{number}", timeout_s=30) for number in range(20)] == [[10.0]] * 20
        await_true(lambda: "died (signal SIGKILL)" in running.log, "the supervisor has seen it")
        assert running.stop() == 0


def test_the_program_of_the_page_serves(at: RedisAt, own: Path) -> None:
    (program,) = blocks("serve(load_settings")
    with InputQueue(str(at)) as queue, OutputQueue(str(at)) as results:
        queue.enqueue("a", point=[3.0, 4.0])
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=own.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert results.query("a", timeout_s=5) == [5.0]


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("lengths.py:biuld", r"lengths\.py defines no 'biuld'; it has Examples, Flush, Iterator, Length, "),
        ("missing.py:build", r"there is no file .*missing\.py$"),
        ("no_such_package.module:build", r"there is no module 'no_such_package\.module'; install its package"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_before_anything_runs(
    at: RedisAt, own: Path, pipeline: str, told: str
) -> None:
    path = written(own.parent, at, (own.parent / "lengths.py").read_text(encoding="utf-8"), pipeline)
    with pytest.raises(ConfigError, match=told):
        preflight(load_settings(path))


@pytest.mark.parametrize("form", ["lengths", "lengths.py", "a:b.py:c", "os.system('x'):y", "lengths.py:build()", 3])
def test_what_names_no_code_is_refused_with_its_line(own: Path, form: object) -> None:
    config = yaml.safe_load(own.read_text(encoding="utf-8"))
    config["params"]["pipeline"] = form
    own.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml:\d+: params\.pipeline: wants package\.module:name, or file"):
        load_settings(own)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", r"does not apply `serving\.read`"),
        ("_ = pipeline | 'Read' >> serving.read", r"does not apply `serving\.write`, so no request would be answered"),
        (
            "examples, refused = pipeline | 'Read' >> serving.read | 'Decode' >> serving.decode\n"
            "    marks = examples | 'Mark' >> beam.Map(lambda _: [])\n"
            "    _ = (marks, refused) | 'All' >> beam.Flatten() | 'Write' >> serving.write",
            r"'All' waits for the end of what it reads, and this source has none",
        ),
        ("1 / 0", r"ZeroDivisionError: division by zero"),
    ],
)
def test_a_pipeline_that_could_answer_nobody_does_not_start(
    at: RedisAt, tmp_path: Path, capfd: pytest.CaptureFixture[str], body: str, told: str
) -> None:
    code = f"import apache_beam as beam\n\ndef build(pipeline, serving):\n    {body}\n"
    path = written(tmp_path, at, code)
    assert main(["serve", "--config", str(path), "--drain", "--workers", "1"]) == 2
    assert re.search(told, capfd.readouterr().err)


BODY = """
import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.pvalue import AsDict, AsIter, AsList, AsSingleton
from apache_beam.transforms.periodicsequence import PeriodicImpulse

from beam_serving import Flush

WINDOWS = beam.WindowInto(beam.window.FixedWindows(60))


class One(beam.transforms.core.RestrictionProvider):
    def initial_restriction(self, element):
        return OffsetRange(0, 1)

    def create_tracker(self, restriction):
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element, restriction):
        return 1


class Split(beam.DoFn):
    def process(self, element, tracker=beam.DoFn.RestrictionParam(One())):
        if tracker.try_claim(0):
            yield element


class Numbered(beam.DoFn):
    NUMBER = beam.transforms.userstate.CombiningValueStateSpec("number", sum)

    def process(self, keyed, number=beam.DoFn.StateParam(NUMBER)):
        number.add(1)
        yield keyed[1]


def build(pipeline, serving):
    decoded = pipeline | "Read" >> serving.read | "Decode" >> serving.decode
"""
REST = """
    inferred = decoded.examples | "Batch" >> serving.batch | "Infer" >> serving.infer
    _ = inferred.predictions | "Top N" >> serving.top_n | "Write results" >> serving.write
    _ = decoded.refused | "Write refused" >> serving.write
    _ = inferred.failed | "Write failed" >> serving.write
"""


def build(folder: Path, at: RedisAt, code: str, name: str = "") -> None:
    """Build a pipeline as a start and a rehearsal do; a module of this name is one file in a process."""
    name = name or folder.name
    settings = load_settings(written(folder, at, "", f"{name}.py:build"))
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    params = settings.params.model_copy(update={"batch_size": 1})
    serving = steps(settings.model_copy(update={"params": params}), Readers(["me"]))
    pipeline = beam.Pipeline()
    try:
        build_pipeline(pipeline, serving, settings)
    finally:
        assert not Path(pipeline.local_tempdir).exists()


def of(mapped: str) -> str:
    """Give a pipeline that maps examples, which has everything else."""
    return BODY + REST.replace('decoded.examples | "Batch"', f'decoded.examples | {mapped} | "Batch"')


@pytest.mark.parametrize("view", ["AsList", "AsIter", "AsSingleton", "AsDict"])
@pytest.mark.parametrize("made_of", ["decoded.refused", "(decoded.refused | 'Count' >> beam.Map(len))"])
def test_a_side_input_that_is_made_of_what_is_read_is_refused(
    at: RedisAt, tmp_path: Path, view: str, made_of: str
) -> None:
    code = of(f"'Mark' >> beam.Map(lambda one, _: one, {view}({made_of}))")
    with pytest.raises(ConfigError, match=r"a side input of 'Mark' is made of what is read, so it waits for the end"):
        build(tmp_path, at, code)


def test_a_side_input_of_another_endless_source_is_refused(at: RedisAt, tmp_path: Path) -> None:
    code = of("'Mark' >> beam.Map(lambda one, _: one, AsIter(pipeline | PeriodicImpulse()))")
    with pytest.raises(ConfigError, match=r"a side input of 'Mark' is made of an endless source, so it waits"):
        build(tmp_path, at, code)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("'Shuffle' >> beam.Reshuffle()", "'Shuffle' waits for the end"),
        ("WINDOWS | beam.Map(lambda one: (1, one)) | 'Group' >> beam.GroupByKey()", "'Group' waits for the end"),
        ("WINDOWS | 'Count' >> beam.combiners.Count.PerElement()", "'Count/.*/GroupByKey' waits for the end"),
        ("'Split' >> beam.ParDo(Split())", "'Split' waits for the end"),
    ],
)
def test_a_step_that_waits_for_the_end_of_what_is_read_is_refused(
    at: RedisAt, tmp_path: Path, step: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        build(tmp_path, at, f"{BODY}{REST}    _ = decoded.examples | {step}\n")


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ('    _ = decoded.refused | "Write refused" >> serving.write\n', "`refused` of 'Decode'"),
        ('    _ = inferred.failed | "Write failed" >> serving.write\n', "`failed` of 'Infer'"),
        (
            '    _ = inferred.predictions | "Top N" >> serving.top_n | "Write results" >> serving.write\n',
            "`predictions` of 'Infer'",
        ),
    ],
)
@pytest.mark.parametrize("is_logged", [False, True])
def test_a_pipeline_that_does_not_write_all_that_is_read_is_refused(
    at: RedisAt, tmp_path: Path, line: str, lost: str, is_logged: bool
) -> None:
    instead = line.partition('"')[0] + '"Log" >> beam.Map(print)\n' if is_logged else ""
    with pytest.raises(ConfigError, match=f"{lost} reaches no `serving.write`, so these requests would get no answer"):
        build(tmp_path, at, (BODY + REST).replace(line, instead))


def test_a_restart_is_told_so_before_it_stops_anything(at: RedisAt, tmp_path: Path) -> None:
    code = BODY + REST.replace('    _ = decoded.refused | "Write refused" >> serving.write\n', "")
    with pytest.raises(ConfigError, match=r"`refused` of 'Decode' reaches no `serving\.write`"):
        rehearse(load_settings(written(tmp_path, at, code)))


def test_a_pipeline_that_writes_something_else_than_what_is_read_is_refused(at: RedisAt, tmp_path: Path) -> None:
    code = BODY.replace(' | "Decode" >> serving.decode', "") + "    _ = pipeline | beam.Create([[]]) | serving.write\n"
    with pytest.raises(ConfigError, match=r"what is read of 'Read' reaches no `serving\.write`"):
        build(tmp_path, at, code)


def test_a_second_model_is_written_whole_or_is_there_for_a_log(at: RedisAt, tmp_path: Path) -> None:
    second = (
        "    from beam_serving import Infer\n"
        "    other = decoded.examples | 'B' >> serving.batch | 'Other' >> Infer(serving.model, 60.0)\n"
    )
    build(tmp_path, at, BODY + REST + second + "    _ = other.predictions | 'Log' >> beam.Map(print)\n", "second_model")
    written_of_it = "    _ = other.predictions | 'T' >> serving.top_n | 'W' >> serving.write\n"
    with pytest.raises(ConfigError, match=r"`failed` of 'Other' reaches no `serving\.write`"):
        build(tmp_path, at, BODY + REST + second + written_of_it, "second_model_half")


@pytest.mark.parametrize(
    "step",
    [
        "'Only examples' >> beam.Filter(lambda one: not isinstance(one, Flush))",
        "'Weigh' >> beam.Map(lambda one, _: one, AsList(pipeline | 'Weights' >> beam.Create([1, 2])))",
        "'Weigh' >> beam.Map(lambda one, _: one, AsDict((pipeline | beam.Create([(1, 2)]), pipeline | 'B' >> "
        "beam.Create([(2, 2)])) | beam.Flatten() | beam.GroupByKey() | beam.Reshuffle()))",
        "beam.Map(lambda one: (1, one)) | 'Number' >> beam.ParDo(Numbered())",
        "WINDOWS",
    ],
)
def test_what_does_not_wait_for_the_end_is_built(at: RedisAt, tmp_path: Path, step: str) -> None:
    build(tmp_path, at, of(step))


def test_a_table_beside_what_is_read_serves(at: RedisAt, tmp_path: Path) -> None:
    (code,) = blocks("class Length")
    table = "beam.pvalue.AsList(pipeline | 'Factors' >> beam.Create([2.0, 5.0]))"
    code = code.replace("examples: Examples | Flush)", "examples: Examples | Flush, factors: list[float])")
    code = code.replace('{"length": lengths}', '{"length": lengths * sum(factors)}')
    code = code.replace("beam.ParDo(Length())", f"beam.ParDo(Length(), {table})")
    with served(at, tmp_path, code, workers=1) as (running, queue, results):
        queue.enqueue("a", point=[3.0, 4.0])
        assert results.query("a", timeout_s=30) == [35.0]
        assert running.stop() == 0


@pytest.mark.parametrize(
    "more",
    [
        "    _ = decoded.examples | 'Log' >> beam.Map(print)\n",
        "    _ = decoded.refused | 'Write again' >> serving.write\n",
        "    marks = decoded.examples | 'Mark' >> beam.Map(lambda _: []).with_outputs('odd', main='even')\n"
        "    _ = marks.odd | 'Write odd' >> serving.write\n",
    ],
)
def test_branches_may_end_anywhere(at: RedisAt, tmp_path: Path, more: str) -> None:
    build(tmp_path, at, BODY + REST + more)


def test_an_error_while_the_file_is_imported_names_its_line(
    at: RedisAt, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, at, "import nothing_of_that_name\n\ndef build(pipeline, serving): ...\n")
    assert main(["serve", "--config", str(path), "--drain", "--workers", "1"]) == 2
    assert re.search(r"ModuleNotFoundError: No module named .*lengths\.py, line 1\)", capfd.readouterr().err)


def test_a_file_that_is_called_as_a_module_that_is_installed_is_refused(at: RedisAt, tmp_path: Path) -> None:
    path = written(tmp_path, at, "", "json.py:build")
    (tmp_path / "json.py").write_text("def build(pipeline, serving): ...\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "beam_serving", "--config", str(path), "--drain", "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "there is a module 'json' already (" in done.stderr


@pytest.mark.parametrize(
    ("code", "pipeline", "told"),
    [
        ("def build(p, s):\n    inner = 1\n", "lengths.py:inner", "defines no 'inner'; it has build"),
        ("class A:\n    def b(self): ...\n", "lengths.py:b", "defines no 'b'; it has A"),
        ("import nothing_of_that_name\ndef build(p, s): ...\n", "lengths.py:build", "ModuleNotFoundError"),
        ("def build(p, s): ...\n", "lengths.py:build", "does not apply `serving.read`"),
        ("build = 3\n", "lengths.py:build", "is no function"),
        ("import sys\nsys.exit()\ndef build(p, s): ...\n", "lengths.py:build", "SystemExit"),
    ],
)
def test_a_restart_with_code_that_cannot_run_leaves_the_good_service_alone(
    at: RedisAt, tmp_path: Path, capfd: pytest.CaptureFixture[str], code: str, pipeline: str, told: str
) -> None:
    with service(at, tmp_path, {"name": "lengths", "params": {"workers": 1}}) as running:
        (tmp_path / "new").mkdir()
        path = written(tmp_path / "new", at, code, pipeline)
        capfd.readouterr()
        assert main(["restart", "--config", str(path)]) == 2
        assert told in capfd.readouterr().err
        assert running.process.poll() is None
        assert running.ready()


@pytest.mark.parametrize("name", ["time.py", "my.lengths.py", "json.py"])
def test_a_file_whose_name_is_no_module_of_its_own_is_told_so(at: RedisAt, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, at, "", f"{name}:build")
    (tmp_path / name).write_text("def build(pipeline, serving): ...\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"call the file (otherwise|name\.py)$"):
        preflight(load_settings(path))


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twins.py").write_text("def step(given): ...\n", encoding="utf-8")
    OwnCode("data: preprocess", str(tmp_path / "x" / "twins.py"), "step").load()
    with pytest.raises(ConfigError, match=r"y/twins\.py:step: there is a module 'twins' already \(.*x/twins\.py\)"):
        OwnCode("params: post_processing", str(tmp_path / "y" / "twins.py"), "step").load()


def test_a_package_that_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising").mkdir()
    (tmp_path / "raising" / "__init__.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"raising\.steps:step: ZeroDivisionError: division by zero$"):
        OwnCode("data: preprocess", "raising.steps", "step").look()


def test_serving_from_a_program_gives_its_log_back_and_wants_the_main_thread(at: RedisAt, own: Path) -> None:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    assert serve(load_settings(own), workers=1, drain=True) == 0
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    raised: list[Exception] = []

    def elsewhere() -> None:
        try:
            serve(load_settings(own), drain=True)
        except ConfigError as err:
            raised.append(err)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert str(*raised) == "serve handles the signals of its process, so call it in the main thread"
