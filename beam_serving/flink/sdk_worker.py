"""One worker of a Flink job: runs the steps that the runner sends it, until the runner lets it go.

SIGTERM and SIGINT end reading: what is in flight is finished, and with its last reader the job itself ends.
"""

from __future__ import annotations

import json
import logging
import sys
import threading

import grpc

from beam_serving.flink.processes import tell_of_thread
from beam_serving.worker import Job, serving_process

_log = logging.getLogger(__name__)


def main() -> int:
    """Reads two lines from standard input: its job and, once the runner wants it, the worker id and the endpoint.

    Loading Beam takes seconds, which pass while Java starts.
    """
    job = Job.decode(sys.stdin.readline())
    threading.excepthook = tell_of_thread
    with serving_process(job):
        from apache_beam.runners.worker.sdk_worker import SdkHarness

        import beam_serving.pipeline  # noqa: F401 - what the steps need is loaded before they come

        # Beam logs each failed bundle with its traceback; the driver gets the same text and says what matters of it.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        wanted = sys.stdin.readline()
        if not wanted:
            return 0
        about = json.loads(wanted)
        try:
            SdkHarness(about["control_endpoint"], worker_id=about["worker_id"]).run()
        except grpc.RpcError as err:
            _log.debug("the runner is gone: %s", err)
    return 0


if __name__ == "__main__":
    sys.exit(main())
