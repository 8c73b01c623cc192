"""One worker of a job: runs the steps that the runner sends it, until the runner lets it go.

An embedded engine is given workers that wait for it. On a cluster Beam starts this module on each host, as the program
`beam-serving-worker` (environment PROCESS) or through a worker pool (environment EXTERNAL), and tells it where
to ask for its work.

SIGTERM and SIGINT end reading: what is in flight is finished, and with its last reader the job itself ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import socket
import sys
import threading
import uuid
from collections.abc import Sequence

import grpc

from beam_serving.errors import ConfigError
from beam_serving.launch.own_pipeline import load_own_pipeline
from beam_serving.launch.portable.callers import is_here
from beam_serving.launch.portable.options import JOB_VARIABLE
from beam_serving.launch.portable.processes import tell_of_thread
from beam_serving.launch.stop import Ending
from beam_serving.launch.worker import Job, serving_process

_log = logging.getLogger(__name__)
_PROVISION_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Work for the runner that the arguments name or, without any, for the one that standard input will name."""
    parser = argparse.ArgumentParser(description="A worker for Beam, which starts it. It is of no use by hand.")
    parser.add_argument("--id", help="name that the runner gives this worker")
    parser.add_argument("--provision_endpoint", help="where the runner tells what there is to do")
    given, _ = parser.parse_known_args(arguments)
    ending = Ending()
    if given.provision_endpoint is None:
        return _await_work(ending)
    text = os.environ.get(JOB_VARIABLE)
    if text is None:
        parser.error(f"the variable {JOB_VARIABLE} is not set; `python -m beam_serving` sets it")
    job = Job.decode(text)
    # Beam's own connections tell the runner by this who they are; it is read when their module is loaded.
    os.environ["WORKER_ID"] = given.id
    # Each process under a name of its own: a runner may start a successor while the old one still lives.
    name = f"{job.deployment}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    with serving_process(dataclasses.replace(job, consumers=(name,)), ending) as settings:
        load_own_pipeline(settings)
        _require_here(given.provision_endpoint)
        control, logs = _endpoints(given.provision_endpoint, given.id)
        _require_here(control, logs)
        _work(control, given.id, logs)
    return 0


def _await_work(ending: Ending) -> int:
    """Read two lines from standard input: the job and, once the runner wants it, the worker id and the endpoint.

    Loading Beam takes seconds, which pass while Java starts.
    """
    with serving_process(Job.decode(sys.stdin.readline()), ending) as settings:
        import beam_serving.pipeline  # noqa: F401 - what the steps need is loaded before they come

        load_own_pipeline(settings)
        wanted = sys.stdin.readline()
        if wanted:
            about = json.loads(wanted)
            _work(about["control_endpoint"], about["worker_id"])
    return 0


def _work(control: str, worker_id: str, logs: str | None = None) -> None:
    """Run what the runner sends, until it hangs up; with `logs`, what is logged is sent there too."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    threading.excepthook = tell_of_thread
    handler = _log_handler(logs) if logs else None
    # Beam logs each failed bundle with its traceback; who started the job gets the same text, and says what matters.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    try:
        SdkHarness(control, worker_id=worker_id).run()
    except grpc.RpcError as err:
        _log.debug("the runner is gone: %s", err)
    finally:
        if handler is not None:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _log_handler(logs: str) -> logging.Handler:
    from apache_beam.portability.api import endpoints_pb2
    from apache_beam.runners.worker.log_handler import FnApiLogRecordHandler

    handler: logging.Handler = FnApiLogRecordHandler(endpoints_pb2.ApiServiceDescriptor(url=logs))
    logging.getLogger().addHandler(handler)
    return handler


def _require_here(*endpoints: str) -> None:
    """Check that what names our work is on this machine, where each runner starts its workers.

    Raises:
        ConfigError: it is not.
    """
    for endpoint in endpoints:
        if not is_here(endpoint):
            raise ConfigError(f"a worker runs only what a runner on its own machine sends, and was told {endpoint!r}")


def _endpoints(provision: str, worker_id: str) -> tuple[str, str]:
    """Ask the runner where this worker gets its work from, and where its log goes."""
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(provision) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        info = service.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker_id)],
            timeout=_PROVISION_S,
        ).info
    return info.control_endpoint.url, info.logging_endpoint.url


if __name__ == "__main__":
    sys.exit(main())
