"""The job server's jar: what the tests of Spark share."""

from pathlib import Path

import pytest

from beam_serving.launch.portable.jar import SPARK
from tests.jars import jar_of


@pytest.fixture(scope="session")
def job_server_jar() -> Path:
    """The real jar; on a new machine Maven builds it here, once, and the guard's with it."""
    return jar_of(SPARK)
