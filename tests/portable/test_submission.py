"""A pipeline on its way to a job server: the server may die before it has it."""

import socket
import time

import pytest

from beam_serving.config.schema import Settings
from beam_serving.io.readers import Readers
from beam_serving.launch.portable.driver import JobServerDiedError, submit
from beam_serving.launch.portable.jar import SPARK
from beam_serving.launch.portable.job_server import JobServer
from beam_serving.pipeline import steps

SAYS = "echo 'java.lang.OutOfMemoryError: Java heap space'; sleep 1"


def test_a_submission_ends_with_the_server_that_it_is_for() -> None:
    settings = Settings.model_validate({"model": {"path": "noop"}})
    serving = steps(settings, Readers(["one"]))
    # One that takes connections and never answers, as the port of a server that is frozen and then dies.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        JobServer(SPARK, lambda _: ["sh", "-c", SAYS, "sh"]) as server,
    ):
        flags = ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{silent.getsockname()[1]}"]
        began = time.monotonic()
        with pytest.raises(JobServerDiedError, match=r"^the job server died: Java heap space$"):
            submit(serving, settings, flags, server)
        assert time.monotonic() - began < 15
