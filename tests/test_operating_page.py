"""docs/operating.md: its unit of systemd starts what there is, and its line of JSON is one of ours."""

import configparser
import json
import logging
import shlex
import signal
from pathlib import Path

import pytest

from beam_serving.cli.main import COMMANDS
from beam_serving.config.schema import Params
from beam_serving.records import Origin
from beam_serving.telemetry.logs import LogOptions, configure_logging, of_request, own_logging
from tests.cli.commands import all_commands
from tests.pages import blocks_of

PAGE = Path(__file__).parents[1] / "docs" / "operating.md"
BLOCKS = [block.text for block in blocks_of(PAGE)]


def test_the_unit_starts_the_service_and_leaves_it_its_time() -> None:
    (text,) = (block for block in BLOCKS if block.startswith("[Unit]"))
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    service = unit["Service"]
    program, command, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, command in COMMANDS) == ("beam-serving", True)
    flags = {
        flag for words, found in all_commands() if words == [command] for param in found.params for flag in param.opts
    }
    assert {argument for argument in arguments if argument.startswith("--")} <= flags
    assert float(service["TimeoutStopSec"]) > Params().grace_s
    assert int(service["SuccessExitStatus"]) == 128 + signal.SIGTERM


def test_the_line_of_json_has_the_fields_of_one(capfd: pytest.CaptureFixture[str]) -> None:
    (shown,) = (json.loads(block) for block in BLOCKS if block.startswith('{"time"'))
    origin = Origin(b"image_stream", b"1764518531310-0", b"cat", "native", b"5f0c")
    with own_logging(LogOptions(), "test"):
        configure_logging(LogOptions(format="json"), "worker 0")
        logging.getLogger("beam_serving.test").warning(
            "refused an entry of 'image_stream': ...", extra=of_request(origin)
        )
    written = json.loads(capfd.readouterr().err)
    assert written | {"time": ""} == shown | {"time": ""}
    assert list(written) == list(shown)
