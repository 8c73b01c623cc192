"""What is told of a job's end, out of all that Java says."""

import pytest

from beam_serving.errors import ConfigError, ConnectError
from beam_serving.launch.portable.java_errors import raise_cause, telling_line

SAID = """\
Pipeline BeamApp failed in state FAILED: java.lang.RuntimeException: Error received from worker: \
Traceback (most recent call last):
  File "beam_serving/io/consumer.py", line 87, in _survive
    raise ConnectError(f"Redis at {self._reading.at}: {reason}") from err
{error} [while running 'Read requests/Poll-ptransform-22']
\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient.onNext(FnApiControlClient.java:180)
"""


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        ("beam_serving.errors.ConnectError: Redis at r:1: it refuses our user", ConnectError),
        ("beam_serving.errors.ConfigError: the labels are too few", ConfigError),
    ],
)
def test_what_the_operator_must_mend_is_told_without_java(raised: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        raise_cause(SAID.replace("{error}", raised))
    assert str(caught.value) == raised.split(": ", 1)[1]


def test_what_a_new_start_may_heal_is_not_raised() -> None:
    raise_cause(SAID.replace("{error}", "redis.exceptions.ConnectionError: connection reset"))


def test_the_innermost_cause_that_is_no_wrapper_is_told() -> None:
    said = """java.util.concurrent.ExecutionException: java.lang.RuntimeException: it failed
\tat org.apache.flink.Somewhere(Somewhere.java:1)
Caused by: org.apache.beam.x.UncheckedExecutionException: java.io.IOException: Cannot run program "/w": error=2
Caused by: java.io.IOException: Cannot run program "/w": error=2, No such file or directory
\t... 22 more
Caused by: java.io.IOException: error=2, No such file or directory
Caused by: java.lang.RuntimeException: something
"""
    assert telling_line(said) == 'Cannot run program "/w": error=2, No such file or directory'
    assert telling_line("no trace at all\nsecond\n\tindented") == "second"
    assert telling_line("") == ""
