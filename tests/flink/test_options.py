"""The flags of the Flink runner: ours, the operator's, and those that the embedded Flink cannot take."""

import pytest

from beam_serving.config import Flink
from beam_serving.errors import ConfigError
from beam_serving.flink.options import FLAGS, jar_of, java_of, our_flags, parallelism_of, require_embedded
from beam_serving.launch import check_beam_arguments


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

    flags = our_flags(2, "127.0.0.1:1", "127.0.0.1:2")
    options = PipelineOptions([*flags, "--max_parallelism=8", "--job_name=digits"]).get_all_options()
    assert (options["streaming"], options["parallelism"], options["max_parallelism"]) == (True, 2, 8)
    assert (options["job_endpoint"], options["environment_config"]) == ("127.0.0.1:2", "127.0.0.1:1")


def test_flags_that_only_the_job_server_knows_pass() -> None:
    check_beam_arguments(["--max_bundle_size=10", "--max_bundle_time_mills", "5"], [], FLAGS)
    with pytest.raises(ConfigError, match=r"^unknown flag --max_bundle_siz; did you mean --max_bundle_size\?$"):
        check_beam_arguments(["--max_bundle_siz=10"], [], FLAGS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--flink_master=host:8081"], "--flink_master=host:8081: clusters are not served yet; leave the flag out"),
        (["--environment_type=DOCKER"], "--environment_type is set by the embedded Flink itself; leave it out"),
        (["--job_endpoint", "x:1"], "--job_endpoint is set by the embedded Flink itself; leave it out"),
    ],
)
def test_what_the_embedded_flink_does_not_do_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_embedded(arguments)
    assert str(caught.value) == said


def test_the_embedded_flink_may_be_named() -> None:
    require_embedded(["--flink_master=[local]", "--flink_master", "[auto]"])


def test_java_and_the_jar_can_be_named_by_beams_own_flags() -> None:
    flink = Flink(job_server_jar="a.jar", java_options="-Xmx2g")
    assert java_of([], flink) == ["java", "-Xmx2g"]
    arguments = ["--job_server_java_launcher=/jdk/java", "--job_server_jvm_properties=-Da=b"]
    assert java_of(arguments, flink) == ["/jdk/java", "-Xmx2g", "-Da=b"]
    assert (jar_of([], flink), jar_of(["--flink_job_server_jar", "b.jar"], flink)) == ("a.jar", "b.jar")
