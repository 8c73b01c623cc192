"""The driver of an embedded Flink: starts the job server, submits the pipeline, starts the workers and waits.

`python -m beam_serving.launch.flink.driver` reads its job from standard input; see
`beam_serving.launch.portable.driver`.
"""

from __future__ import annotations

import sys

from beam_serving.config.schema import Settings
from beam_serving.io.readers import Readers
from beam_serving.launch.flink.job_server import flink_server
from beam_serving.launch.flink.options import embedded_flags, jar_of, java_for
from beam_serving.launch.flink.task_assignment import names_for_tasks
from beam_serving.launch.portable.driver import Outcome, main, run_job
from beam_serving.launch.portable.jar import FLINK, find_or_build
from beam_serving.launch.portable.processes import started_workers
from beam_serving.launch.start import planned_steps
from beam_serving.launch.worker import Job


def run(settings: Settings, job: Job) -> Outcome:
    """Serve the job on a Flink inside this process's own job server.

    Raises:
        BeamServingError: it cannot start.
    """
    flink, parallelism = settings.flink, len(job.consumers)
    jar = find_or_build(FLINK, jar_of(job.arguments, flink))
    with flink_server(java_for(job.arguments, flink), jar) as server, started_workers(job) as processes:
        # Beam is loaded while Java and the workers start.
        from beam_serving.launch.portable.pool import WorkerPool, served

        names = names_for_tasks(job.consumers[0], parallelism)
        serving = planned_steps(settings, Readers(names, job.drain, names_are_shared=True))
        pool = WorkerPool(processes)
        with served(pool) as workers_at:
            server.await_start(flink.start_s)
            flags = [*embedded_flags(parallelism, workers_at, server.endpoint), *job.arguments]
            return run_job(serving, settings, flags, server, pool)


if __name__ == "__main__":
    sys.exit(main("flink", run))
