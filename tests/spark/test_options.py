"""What Spark is told, from the configuration and the command line."""

from pathlib import Path

import pytest

from beam_serving.cli import main as cli
from beam_serving.config.schema import Spark
from beam_serving.errors import ConfigError
from beam_serving.launch.embedded_redis import free_port
from beam_serving.launch.spark.options import Master, command, cores_of, flags, jar_of, master_of, require_master

CLUSTER = "spark://127.0.0.1:7077"


@pytest.mark.parametrize(
    ("url", "readers"), [("local", 3), ("local[*]", 3), ("local[2]", 2), ("local[2,4]", 2), ("local[*, 4]", 3)]
)
def test_a_local_master_says_how_many_read(url: str, readers: int) -> None:
    master = master_of([], Spark(master=url), workers=3)
    assert (master.readers, master.local) == (readers, True)


@pytest.mark.parametrize(
    ("section", "readers", "each"),
    [
        ({}, 1, 1),
        ({"num_executors": 3}, 3, 1),
        ({"num_executors": 2, "executor_cores": 2}, 4, 2),
        ({"executor_cores": 4, "total_executor_cores": 4}, 4, 4),
        ({"num_executors": 2, "total_executor_cores": 4}, 4, 1),
        ({"executor_cores": 2, "total_executor_cores": 5}, 4, 2),
    ],
)
def test_a_cluster_has_a_reader_for_each_core_of_its_executors(
    section: dict[str, int], readers: int, each: int
) -> None:
    master = master_of([], Spark(master=CLUSTER, **section), workers=9)
    assert master == Master(CLUSTER, readers, each)
    assert (master.local, master.addresses) == (False, [("127.0.0.1", 7077)])


def test_the_command_line_wins_over_the_configuration() -> None:
    spark = Spark(master=CLUSTER, job_server_jar="a.jar")
    assert master_of(["--spark_master_url=local[5]"], spark, 1).readers == 5
    assert (jar_of([], spark), jar_of(["--spark_job_server_jar", "b.jar"], spark)) == ("a.jar", "b.jar")


@pytest.mark.parametrize("url", ["yarn", "mesos://host:5050", "spark://host", "local[0]", "local[x]", "k8s://h:1", ""])
def test_another_master_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        master_of([], Spark(master=url), 1)
    assert str(caught.value) == f"spark: master: wanted local[N] or spark://HOST:PORT, got {url!r}"


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    url = f"spark://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError) as caught:
        require_master(master_of([], Spark(master=url), 1))
    assert str(caught.value) == f"spark: master: nobody answers at {url}; is a cluster running there?"


def test_fewer_cores_than_one_executor_wants_are_refused() -> None:
    with pytest.raises(ConfigError, match="total_executor_cores is 2, and each executor wants executor_cores: 4; no"):
        master_of([], Spark(master=CLUSTER, executor_cores=4, total_executor_cores=2), 1)


def test_every_field_is_an_option_of_the_job_server(tmp_path: Path) -> None:
    spark = Spark(master=CLUSTER, driver_memory="2g", executor_memory="512m", num_executors=2, executor_cores=3)
    started = command(["--job_server_jvm_properties=-Da=b"], spark, master_of([], spark, 1), Path("a.jar"), tmp_path)
    assert started[:2] == ["java", "-Xmx2g"]
    for option in ("executor.memory=512m", "executor.cores=3", "executor.instances=2", "cores.max=6"):
        assert f"-Dspark.{option}" in started
    assert started[-5:] == ["-Da=b", "-jar", "a.jar", "--spark-master-url", CLUSTER]
    assert cores_of(spark) == 6


def test_a_spark_in_the_job_server_has_no_executors_and_no_second_try(tmp_path: Path) -> None:
    spark = Spark(master="local[2,4]")
    started = command([], spark, master_of([], spark, 1), Path("a.jar"), tmp_path)
    assert not [option for option in started if "executor" in option or "cores.max" in option]
    assert started[-1] == "local[2]"


@pytest.mark.parametrize(("url", "processes"), [("local[2]", "2"), (CLUSTER, "1")])
def test_the_pipeline_is_a_batch_with_as_many_processes_as_fit(url: str, processes: str) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    master = master_of([], Spark(master=url, num_executors=2), 1)
    own = flags("digits", master, "127.0.0.1:1", ["--environment_type=EXTERNAL"])
    options = PipelineOptions([*own, "--job_name=mine"]).get_all_options()
    assert (options["job_name"], options["streaming"], options["sdk_worker_parallelism"]) == ("mine", False, processes)
    assert (options["spark_master_url"], options["job_endpoint"]) == (url, "127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "section", "said"),
    [
        (
            ["--runner=SparkRunner"],
            "",
            "--runner=SparkRunner needs --drain, since Spark runs no pipeline whose source never ends; or --every "
            "SECONDS, which drains the queue in every interval",
        ),
        (
            ["--runner=SparkRunner", "--drain", "--every=5"],
            "",
            "--every drains the queue again and again, and --drain once; leave one out",
        ),
        (["--every=5"], "", "--every goes with --runner=SparkRunner; DirectRunner serves all the time"),
        (
            ["--runner=SparkRunner", "--every=0"],
            "",
            "Invalid value for '--every': wants seconds, a number above 0, got '0'; beam-serving --help has examples",
        ),
        (
            ["--runner=SparkRunner", "--drain", "--workers=2"],
            f"spark: {{master: '{CLUSTER}'}}",
            f"--workers is for one machine; on {CLUSTER} it is spark: num_executors, executor_cores",
        ),
        (
            ["--runner=SparkRunner", "--drain"],
            "spark: {master: yarn}",
            "spark: master: wanted local[N] or spark://HOST:PORT, got 'yarn'",
        ),
        (
            ["--runner=SparkRunner", "--drain", "--job_server_java_launcher=no-such-java"],
            "",
            "--runner=SparkRunner needs Java, and 'no-such-java' cannot be run; install Java 17, for example Debian's "
            "package openjdk-17-jre-headless",
        ),
        pytest.param(
            ["--runner=SparkRunner", "--drain"],
            "spark: {job_server_jar: /nowhere.jar}",
            "spark: job_server_jar: no such file: /nowhere.jar",
            marks=pytest.mark.java,
        ),
    ],
)
def test_what_cannot_work_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], section: str, said: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{path: noop}}\n{section}\n", encoding="utf-8")
    assert cli.main(["--config", str(config), *arguments]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
