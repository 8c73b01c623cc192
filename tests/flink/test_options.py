"""The flags of the Flink runner: ours, the operator's, and those that the embedded Flink cannot take."""

import json
import sys
from pathlib import Path

import pytest

from beam_serving.config.schema import Flink
from beam_serving.errors import ConfigError
from beam_serving.launch.beam_flags import check_beam_flags
from beam_serving.launch.flink.options import (
    FLAGS,
    cluster_flags,
    cluster_of,
    embedded_flags,
    jar_of,
    java_for,
    parallelism_of,
)
from beam_serving.launch.worker import ALLOCATOR


@pytest.mark.parametrize(
    ("arguments", "configured", "parallelism"),
    [
        ([], None, 2),
        ([], 3, 3),
        (["--parallelism=4"], 3, 4),
        (["--parallelism", "4", "--parallelism=5"], None, 5),
    ],
)
def test_the_command_line_wins_over_the_configuration(
    arguments: list[str], configured: int | None, parallelism: int
) -> None:
    assert parallelism_of(arguments, Flink(parallelism=configured), workers=2) == parallelism


@pytest.mark.parametrize("text", ["0", "-1", "x", "257"])
def test_a_parallelism_that_is_no_number_of_tasks_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--parallelism wants a number from 1 to 256, got '{text}'$"):
        parallelism_of([f"--parallelism={text}"], Flink(), 1)


def test_the_operators_flags_come_after_ours_and_win() -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = embedded_flags(2, "127.0.0.1:1", "127.0.0.1:2")
    options = PipelineOptions([*flags, "--max_parallelism=8", "--job_name=digits"]).get_all_options()
    assert (options["streaming"], options["parallelism"], options["max_parallelism"]) == (True, 2, 8)
    assert (options["job_endpoint"], options["environment_config"]) == ("127.0.0.1:2", "127.0.0.1:1")


def test_flags_that_only_the_job_server_knows_pass() -> None:
    check_beam_flags(["--max_bundle_size=10", "--max_bundle_time_mills", "5"], [], FLAGS)
    with pytest.raises(ConfigError, match=r"^unknown flag --max_bundle_siz; did you mean --max_bundle_size\?$"):
        check_beam_flags(["--max_bundle_siz=10"], [], FLAGS)


@pytest.mark.parametrize("flag", ["--environment_type=DOCKER", "--job_endpoint=x:1", "--flink_submit_uber_jar"])
def test_what_the_embedded_flink_does_not_do_is_refused(flag: str) -> None:
    name = flag.split("=", maxsplit=1)[0]
    with pytest.raises(
        ConfigError, match=f"^{name} is set by the embedded Flink itself; leave it out, or name a cluster$"
    ):
        cluster_of([flag], Flink())
    assert cluster_of([flag], Flink(rest="host:8081")) == "host:8081"


def test_the_command_line_names_the_cluster_or_the_embedded_flink() -> None:
    assert cluster_of(["--flink_master=[local]", "--flink_master", "[auto]"], Flink(rest="host:1")) is None
    assert cluster_of(["--flink_master=other:2"], Flink(rest="host:1")) == "other:2"


@pytest.mark.parametrize(
    ("section", "kind", "environment"),
    [
        (
            {},
            "PROCESS",
            {
                "command": str(Path(sys.executable).with_name("beam-serving-worker")),
                "env": {**ALLOCATOR, "BEAM_SERVING_JOB": "{}"},
            },
        ),
        ({"worker_command": "/w"}, "PROCESS", {"command": "/w", "env": {**ALLOCATOR, "BEAM_SERVING_JOB": "{}"}}),
        ({"worker_pool": "h:1"}, "EXTERNAL", {"url": "h:1", "params": {"job": "{}"}}),
    ],
)
def test_workers_of_a_cluster_are_told_their_job(
    section: dict[str, str], kind: str, environment: dict[str, object]
) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = cluster_flags("digits", 4, 2, "1.19", Flink.model_validate(section), "{}")
    options = PipelineOptions(flags).get_all_options()
    assert (options["job_name"], options["environment_type"]) == ("digits", kind)
    assert (options["parallelism"], options["sdk_worker_parallelism"]) == (4, "2")
    assert json.loads(options["environment_config"]) == environment


def test_java_and_the_jar_can_be_named_by_beams_own_flags() -> None:
    flink = Flink(job_server_jar="a.jar", java_options="-Xmx2g")
    assert java_for([], flink) == ["java", "-Xmx2g"]
    arguments = ["--job_server_java_launcher=/jdk/java", "--job_server_jvm_properties=-Da=b"]
    assert java_for(arguments, flink) == ["/jdk/java", "-Xmx2g", "-Da=b"]
    assert (jar_of([], flink), jar_of(["--flink_job_server_jar", "b.jar"], flink)) == ("a.jar", "b.jar")
