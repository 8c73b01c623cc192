"""From the outboxes to files: a bounded pipeline of Beam's own file sinks, which runs when a drain has ended.

The drain itself has no file sink: Beam's are complete only when their pipeline ends, so requests could be acknowledged
only then. Until then all of them would be pending, to be served again after any crash, and a reader could not see
that nothing is left. So `WriteToRedis` keeps each result in an outbox, in the transaction that acknowledges its
request (`beam_serving.io.outbox`), and this pipeline takes it from there, whatever runner served it.
"""

import logging
import os
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import redis
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from redis.exceptions import RedisError

from beam_serving.config.output import is_url
from beam_serving.config.redis_at import redis_at
from beam_serving.config.schema import Settings
from beam_serving.errors import OutputError
from beam_serving.export.outbox_source import ReadFromOutbox
from beam_serving.export.tabulate import SCHEMA, Row, json_line, parquet_row, row_of
from beam_serving.io.outbox import Outbox, OutboxRecord, forget, kept, sole_writer
from beam_serving.io.readers import FN_API_RUNNER
from beam_serving.telemetry.logs import beam_is_quiet
from beam_serving.transport.connection import RedisAt

_log = logging.getLogger(__name__)
_METRICS = "beam_serving"


def export(settings: Settings, arguments: Sequence[str]) -> None:
    """Write all rows that the outboxes of the service hold to files, then take them off.

    `arguments` are Beam's flags. Rows of an earlier drain that came to no end are among them.

    Raises:
        OutputError: they cannot be written, or Redis does not answer; they are kept for the next drain.
    """
    at, output = redis_at(settings), settings.data.output
    assert output is not None  # noqa: S101 - checked by who calls this
    client = at.client()
    try:
        with beam_is_quiet(), sole_writer(client, settings.name, uuid.uuid4().hex):
            found = kept(client, settings.data.streams)
            if not found:
                _log.info("no results to write to %s", output)
                return
            rows, files = _write(at, found, _prefix(output, settings.name), settings.data.output_format, arguments)
            _log.info("wrote %d results to %d file%s in %s", rows, files, "" if files == 1 else "s", output)
            _forget(client, found)
    except (RedisError, RuntimeError, OSError) as err:
        raise OutputError(
            f"results are not in files at {output} ({_cause(err)}); they are kept in Redis, and the next --drain "
            "writes them"
        ) from err
    finally:
        client.close()


def _forget(client: redis.Redis, found: Sequence[Outbox]) -> None:
    try:
        for rows in found:
            forget(client, rows)
    except RedisError as err:
        raise OutputError(
            f"results are in files, and cannot be taken off Redis ({_cause(err)}); the next --drain writes them again"
        ) from err


def _cause(err: Exception) -> str:
    """Return the last line of an error: Beam puts whole tracebacks into the text of one."""
    lines = str(err).strip().splitlines()
    return lines[-1] if lines else repr(err)


def build(pipeline: beam.Pipeline, read: ReadFromOutbox, prefix: str, output_format: str) -> None:
    """Apply the steps: read, make rows, write, settle."""
    rows = pipeline | "Read results" >> read | "Make rows" >> beam.Map(_counted_row)
    if output_format == "parquet":
        files = (
            rows
            | "As columns" >> beam.Map(parquet_row)
            | "Write" >> beam.io.WriteToParquet(prefix, SCHEMA, codec="zstd", file_name_suffix=".parquet")
        )
    else:
        files = (
            rows | "As lines" >> beam.Map(json_line) | "Write" >> beam.io.WriteToText(prefix, file_name_suffix=".jsonl")
        )
    _ = files | "Settle" >> beam.Map(_settle)


def _write(
    at: RedisAt, found: Sequence[Outbox], prefix: str, output_format: str, arguments: Sequence[str]
) -> tuple[int, int]:
    """Run the pipeline; return how many rows and files it has written."""
    pipeline = beam.Pipeline(options=PipelineOptions([*arguments, f"--runner={FN_API_RUNNER}"]))
    build(pipeline, ReadFromOutbox(at, found), prefix, output_format)
    result = pipeline.run()
    result.wait_until_finish()
    return _count(result, "rows_exported"), _count(result, "files_exported")


def _prefix(output: str, name: str) -> str:
    """Return the beginning of the files' names, which no other export has: service, time in UTC, a random part."""
    readable = re.sub(r"[^\w.-]", "", name)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{output.rstrip('/')}/{readable}-{stamp}-{uuid.uuid4().hex[:8]}"


def _counted_row(kept_row: OutboxRecord) -> Row:
    Metrics.counter(_METRICS, "rows_exported").inc()
    return row_of(kept_row)


def _settle(path: str) -> str:
    """Make a file of this machine outlive a power failure: its rows are taken off Redis next."""
    if not is_url(path):
        for settled in (path, os.path.dirname(path)):
            descriptor = os.open(settled, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    Metrics.counter(_METRICS, "files_exported").inc()
    _log.info("wrote %s", path)
    return path


def _count(result: Any, name: str) -> int:
    counters = result.metrics().query(MetricsFilter().with_name(name))["counters"]
    return sum(counter.committed for counter in counters)
